"""Train any model with an objective: deterministic, resumable, with progress."""

from rightly.training.fit import fit
from rightly.training.run import Run
from rightly.training.selection import Candidate, WeightChoice, choose_weight

__all__ = ["Candidate", "Run", "WeightChoice", "choose_weight", "fit"]
