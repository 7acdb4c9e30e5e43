"""Train PyTorch models through their explanations: right for the right reasons, and shown to be."""

from typing import TYPE_CHECKING, Any

from rightly import (
    data,
    discovery,
    distillation,
    evaluation,
    functional,
    models,
    perturbations,
    priors,
    recipes,
    references,
    rules,
    spaces,
)
from rightly.attributions import (
    ContextualDecomposition,
    DeepLift,
    ExpectedGradients,
    ExpectedHessians,
    GradCam,
    Gradient,
    GradientDifferences,
    Hessian,
    HessianProducts,
    InputXGradient,
    IntegratedGradients,
    IntegratedHessians,
    Occlusion,
    SmoothGrad,
    attribute,
    contextual_decomposition,
    hierarchy,
)
from rightly.core.annotation import Annotation
from rightly.core.types import AttributionResult
from rightly.discovery import find_another_explanation
from rightly.distillation import distill_tree, distill_wavelet
from rightly.evaluation import evaluate
from rightly.objectives import (
    CheckReport,
    ContributionTerm,
    GroupDRO,
    IndependenceTerm,
    IntervalTerm,
    LossReport,
    Objective,
    PairTerm,
    PerturbationTerm,
    RandomRegions,
    RobustReasons,
    Schedule,
    Term,
    TermReport,
    TreeSurrogate,
    TreeTerm,
    WeightTerm,
    check,
    with_groups,
)
from rightly.training import Run, fit, fit_many, retrain_last_layer

if TYPE_CHECKING:
    from rightly.integrations.sklearn import PriorClassifier, PriorRegressor

__version__ = "0.1.0.dev0"

__all__ = [
    "Annotation",
    "AttributionResult",
    "CheckReport",
    "ContextualDecomposition",
    "ContributionTerm",
    "DeepLift",
    "ExpectedGradients",
    "ExpectedHessians",
    "GradCam",
    "Gradient",
    "GradientDifferences",
    "GroupDRO",
    "Hessian",
    "HessianProducts",
    "IndependenceTerm",
    "InputXGradient",
    "IntegratedGradients",
    "IntegratedHessians",
    "IntervalTerm",
    "LossReport",
    "Objective",
    "Occlusion",
    "PairTerm",
    "PerturbationTerm",
    "PriorClassifier",
    "PriorRegressor",
    "RandomRegions",
    "RobustReasons",
    "Run",
    "Schedule",
    "SmoothGrad",
    "Term",
    "TermReport",
    "TreeSurrogate",
    "TreeTerm",
    "WeightTerm",
    "attribute",
    "check",
    "contextual_decomposition",
    "data",
    "discovery",
    "distill_tree",
    "distill_wavelet",
    "distillation",
    "evaluate",
    "evaluation",
    "find_another_explanation",
    "fit",
    "fit_many",
    "functional",
    "hierarchy",
    "models",
    "perturbations",
    "priors",
    "recipes",
    "references",
    "retrain_last_layer",
    "rules",
    "spaces",
    "with_groups",
]


def __getattr__(name: str) -> Any:
    """The scikit-learn estimators are imported when they are asked for: they need an extra."""
    if name in ("PriorClassifier", "PriorRegressor"):
        from rightly.core.extras import require

        require("sklearn")
        return getattr(require("rightly.integrations.sklearn"), name)
    raise AttributeError(f"module 'rightly' has no attribute {name!r}")
