"""How much each feature mattered, in a form that can be trained through."""

from rightly.attributions.attribute import attribute
from rightly.attributions.base import Attribution
from rightly.attributions.grad_cam import GradCam
from rightly.attributions.gradient import Gradient, InputXGradient
from rightly.attributions.occlusion import Occlusion
from rightly.attributions.path import ExpectedGradients, IntegratedGradients
from rightly.attributions.smoothgrad import SmoothGrad
from rightly.attributions.store import StoredAttributions

__all__ = [
    "Attribution",
    "ExpectedGradients",
    "GradCam",
    "Gradient",
    "InputXGradient",
    "IntegratedGradients",
    "Occlusion",
    "SmoothGrad",
    "StoredAttributions",
    "attribute",
]
