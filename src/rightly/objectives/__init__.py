"""Task loss plus terms: one module, one backward."""

from rightly.objectives.check import CheckReport, check
from rightly.objectives.contribution import ContributionTerm, RandomRegions
from rightly.objectives.group_dro import GroupDRO, with_groups
from rightly.objectives.independence import Ensemble, IndependenceTerm
from rightly.objectives.interval import IntervalTerm
from rightly.objectives.model_term import Batch, ModelTerm
from rightly.objectives.objective import LossReport, Objective, TermReport
from rightly.objectives.pairs import PairTerm
from rightly.objectives.perturbed import PerturbationTerm
from rightly.objectives.robust import RobustReasons
from rightly.objectives.term import Schedule, Term
from rightly.objectives.tree import TreeSurrogate, TreeTerm, path_length, path_lengths
from rightly.objectives.weights import WeightTerm

__all__ = [
    "Batch",
    "CheckReport",
    "ContributionTerm",
    "Ensemble",
    "GroupDRO",
    "IndependenceTerm",
    "IntervalTerm",
    "LossReport",
    "ModelTerm",
    "Objective",
    "PairTerm",
    "PerturbationTerm",
    "RandomRegions",
    "RobustReasons",
    "Schedule",
    "Term",
    "TermReport",
    "TreeSurrogate",
    "TreeTerm",
    "WeightTerm",
    "check",
    "path_length",
    "path_lengths",
    "with_groups",
]
