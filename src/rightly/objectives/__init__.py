"""Task loss plus terms: one module, one backward."""

from rightly.objectives.check import CheckReport, check
from rightly.objectives.objective import LossReport, Objective, TermReport
from rightly.objectives.term import Schedule, Term
from rightly.objectives.weights import WeightTerm

__all__ = ["CheckReport", "LossReport", "Objective", "Schedule", "Term", "TermReport", "WeightTerm", "check"]
