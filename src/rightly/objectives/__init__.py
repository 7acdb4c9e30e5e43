"""Task loss plus terms: one module, one backward."""

from rightly.objectives.check import CheckReport, check
from rightly.objectives.objective import LossReport, Objective, TermReport
from rightly.objectives.term import Schedule, Term

__all__ = ["CheckReport", "LossReport", "Objective", "Schedule", "Term", "TermReport", "check"]
