"""Train PyTorch models through their explanations: right for the right reasons, and shown to be."""

from rightly import data, functional, models, priors, recipes, references, spaces
from rightly.attributions import (
    ExpectedGradients,
    GradCam,
    Gradient,
    InputXGradient,
    IntegratedGradients,
    Occlusion,
    SmoothGrad,
    attribute,
)
from rightly.core.annotation import Annotation
from rightly.core.types import AttributionResult
from rightly.objectives import CheckReport, LossReport, Objective, Schedule, Term, TermReport, check
from rightly.training import Run, fit

__version__ = "0.1.0.dev0"

__all__ = [
    "Annotation",
    "AttributionResult",
    "CheckReport",
    "ExpectedGradients",
    "GradCam",
    "Gradient",
    "InputXGradient",
    "IntegratedGradients",
    "LossReport",
    "Objective",
    "Occlusion",
    "Run",
    "Schedule",
    "SmoothGrad",
    "Term",
    "TermReport",
    "attribute",
    "check",
    "data",
    "fit",
    "functional",
    "models",
    "priors",
    "recipes",
    "references",
    "spaces",
]
