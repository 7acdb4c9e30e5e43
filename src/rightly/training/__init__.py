"""Train any model with an objective: deterministic, resumable, with progress."""

from rightly.training.fit import fit
from rightly.training.loop import DivergedError
from rightly.training.run import Candidate, Run, WeightChoice

__all__ = ["Candidate", "DivergedError", "Run", "WeightChoice", "fit"]
