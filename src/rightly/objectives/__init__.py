"""Task loss plus terms: one module, one backward."""

from rightly.objectives.check import CheckReport, check
from rightly.objectives.model_term import Batch, ModelTerm
from rightly.objectives.objective import LossReport, Objective, TermReport
from rightly.objectives.term import Schedule, Term
from rightly.objectives.weights import WeightTerm

__all__ = [
    "Batch",
    "CheckReport",
    "LossReport",
    "ModelTerm",
    "Objective",
    "Schedule",
    "Term",
    "TermReport",
    "WeightTerm",
    "check",
]
