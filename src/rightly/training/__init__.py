"""Train any model with an objective: deterministic, resumable, with progress."""

from rightly.training.fit import fit
from rightly.training.last_layer import Retrained, retrain_last_layer
from rightly.training.loop import DivergedError
from rightly.training.many import fit_many
from rightly.training.run import Candidate, Run, WeightChoice
from rightly.training.trials import Trial

__all__ = [
    "Candidate",
    "DivergedError",
    "Retrained",
    "Run",
    "Trial",
    "WeightChoice",
    "fit",
    "fit_many",
    "retrain_last_layer",
]
