"""How much each feature mattered, in a form that can be trained through."""

from rightly.attributions.attribute import attribute
from rightly.attributions.base import Attribution
from rightly.attributions.concepts import concept_sensitivity, concept_vector
from rightly.attributions.decomposition import ContextualDecomposition, contextual_decomposition
from rightly.attributions.deep_lift import DeepLift
from rightly.attributions.grad_cam import GradCam
from rightly.attributions.gradient import Gradient, InputXGradient
from rightly.attributions.hessian import GradientDifferences, Hessian, HessianProducts
from rightly.attributions.hierarchy import Hierarchy, correlated, hierarchy, phrase_scores
from rightly.attributions.interactions import ExpectedHessians, IntegratedHessians
from rightly.attributions.occlusion import Occlusion
from rightly.attributions.path import ExpectedGradients, IntegratedGradients
from rightly.attributions.smoothgrad import SmoothGrad
from rightly.attributions.store import StoredAttributions

__all__ = [
    "Attribution",
    "ContextualDecomposition",
    "DeepLift",
    "ExpectedGradients",
    "ExpectedHessians",
    "GradCam",
    "Gradient",
    "GradientDifferences",
    "Hessian",
    "HessianProducts",
    "Hierarchy",
    "InputXGradient",
    "IntegratedGradients",
    "IntegratedHessians",
    "Occlusion",
    "SmoothGrad",
    "StoredAttributions",
    "attribute",
    "concept_sensitivity",
    "concept_vector",
    "contextual_decomposition",
    "correlated",
    "hierarchy",
    "phrase_scores",
]
