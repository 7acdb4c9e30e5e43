"""Every prior as a pure function of attributions, for those who write their own loss."""

from rightly.core.gini import gini
from rightly.priors.energy import energy
from rightly.priors.graph import edge_list, graph_smoothness
from rightly.priors.irrelevant import irrelevant
from rightly.priors.match import match_targets
from rightly.priors.norms import l1, l2
from rightly.priors.sign import sign
from rightly.priors.sparsity import sparsity
from rightly.priors.total_variation import total_variation

__all__ = [
    "edge_list",
    "energy",
    "gini",
    "graph_smoothness",
    "irrelevant",
    "l1",
    "l2",
    "match_targets",
    "sign",
    "sparsity",
    "total_variation",
]
