"""Contextual decomposition: any model's outputs as sums of what a region contributes and what everything else does."""

from rightly.attributions.decomposition import rules as _rules  # noqa: F401  they enter themselves into the table
from rightly.attributions.decomposition.contextual import Decomposition, contextual_decomposition, decompose
from rightly.attributions.decomposition.convention import CONVENTIONS, Convention
from rightly.attributions.decomposition.coverage import Coverage, coverage
from rightly.attributions.decomposition.method import ContextualDecomposition
from rightly.attributions.decomposition.split import Split
from rightly.attributions.decomposition.table import RULES, rule

__all__ = [
    "CONVENTIONS",
    "RULES",
    "ContextualDecomposition",
    "Convention",
    "Coverage",
    "Decomposition",
    "Split",
    "contextual_decomposition",
    "coverage",
    "decompose",
    "rule",
]
