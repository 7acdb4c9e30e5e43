"""What a person expects of an explanation: penalties, low where the expectation is met."""

from rightly.priors.base import Prior
from rightly.priors.concept import ConceptDirection
from rightly.priors.contribution import GroupContribution
from rightly.priors.energy import Energy
from rightly.priors.frequency import FrequencyBand
from rightly.priors.given import Given
from rightly.priors.graph import GraphSmoothness
from rightly.priors.independence import Independence
from rightly.priors.irrelevant import Irrelevant
from rightly.priors.lenient import Lenient
from rightly.priors.match import MatchTargets
from rightly.priors.meta_features import MetaFeatures
from rightly.priors.norms import L1, L2
from rightly.priors.ranking import Ranking
from rightly.priors.regions import OverRegions
from rightly.priors.resized import Resized
from rightly.priors.sign import Sign
from rightly.priors.sparsity import Sparsity
from rightly.priors.total_variation import TotalVariation

__all__ = [
    "L1",
    "L2",
    "ConceptDirection",
    "Energy",
    "FrequencyBand",
    "Given",
    "GraphSmoothness",
    "GroupContribution",
    "Independence",
    "Irrelevant",
    "Lenient",
    "MatchTargets",
    "MetaFeatures",
    "OverRegions",
    "Prior",
    "Ranking",
    "Resized",
    "Sign",
    "Sparsity",
    "TotalVariation",
]
