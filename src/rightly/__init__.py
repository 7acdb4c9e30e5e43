"""Train PyTorch models through their explanations: right for the right reasons, and shown to be."""

from typing import TYPE_CHECKING, Any

from rightly import data, distillation, evaluation, functional, models, priors, recipes, references, spaces
from rightly.attributions import (
    ContextualDecomposition,
    ExpectedGradients,
    ExpectedHessians,
    GradCam,
    Gradient,
    InputXGradient,
    IntegratedGradients,
    IntegratedHessians,
    Occlusion,
    SmoothGrad,
    attribute,
    contextual_decomposition,
)
from rightly.core.annotation import Annotation
from rightly.core.types import AttributionResult
from rightly.distillation import distill_tree, distill_wavelet
from rightly.evaluation import evaluate
from rightly.objectives import CheckReport, LossReport, Objective, Schedule, Term, TermReport, WeightTerm, check
from rightly.training import Run, fit, fit_many

if TYPE_CHECKING:
    from rightly.integrations.sklearn import PriorClassifier, PriorRegressor

__version__ = "0.1.0.dev0"

__all__ = [
    "Annotation",
    "AttributionResult",
    "CheckReport",
    "ContextualDecomposition",
    "ExpectedGradients",
    "ExpectedHessians",
    "GradCam",
    "Gradient",
    "InputXGradient",
    "IntegratedGradients",
    "IntegratedHessians",
    "LossReport",
    "Objective",
    "Occlusion",
    "PriorClassifier",
    "PriorRegressor",
    "Run",
    "Schedule",
    "SmoothGrad",
    "Term",
    "TermReport",
    "WeightTerm",
    "attribute",
    "check",
    "contextual_decomposition",
    "data",
    "distill_tree",
    "distill_wavelet",
    "distillation",
    "evaluate",
    "evaluation",
    "fit",
    "fit_many",
    "functional",
    "models",
    "priors",
    "recipes",
    "references",
    "spaces",
]


def __getattr__(name: str) -> Any:
    """The scikit-learn estimators are imported when they are asked for: they need an extra."""
    if name in ("PriorClassifier", "PriorRegressor"):
        from rightly.core.extras import require

        require("sklearn")
        return getattr(require("rightly.integrations.sklearn"), name)
    raise AttributeError(f"module 'rightly' has no attribute {name!r}")
