"""Find another explanation: models that are right for different reasons, for a person to choose from."""

from rightly.discovery.explanations import gradient_similarity, largest_gradient_mask, mask_overlap
from rightly.discovery.find import find_another_explanation
from rightly.discovery.result import Discovery, Finding

__all__ = [
    "Discovery",
    "Finding",
    "find_another_explanation",
    "gradient_similarity",
    "largest_gradient_mask",
    "mask_overlap",
]
