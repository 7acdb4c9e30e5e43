"""Every prior as a pure function of attributions, for those who write their own loss."""

from rightly.core.gini import gini
from rightly.core.graphs import edge_list
from rightly.priors.concept import concept_direction
from rightly.priors.contribution import group_contribution
from rightly.priors.energy import energy
from rightly.priors.frequency import frequency_band
from rightly.priors.graph import graph_smoothness
from rightly.priors.independence import independence
from rightly.priors.irrelevant import irrelevant
from rightly.priors.lenient import lenient
from rightly.priors.match import match_targets
from rightly.priors.norms import l1, l2
from rightly.priors.ranking import ranking
from rightly.priors.regions import over_regions
from rightly.priors.sign import sign
from rightly.priors.sparsity import sparsity
from rightly.priors.total_variation import total_variation

__all__ = [
    "concept_direction",
    "edge_list",
    "energy",
    "frequency_band",
    "gini",
    "graph_smoothness",
    "group_contribution",
    "independence",
    "irrelevant",
    "l1",
    "l2",
    "lenient",
    "match_targets",
    "over_regions",
    "ranking",
    "sign",
    "sparsity",
    "total_variation",
]
