"""What matters should lie in a band of frequencies."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from rightly.core.annotation import Annotation
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.frequencies import frequencies
from rightly.core.registry import register
from rightly.priors.base import Prior
from rightly.priors.irrelevant import irrelevant


def frequency_band(
    attributions: Tensor, low: float, high: float, dims: int = 1, norm: Literal["l1", "l2"] = "l2"
) -> Tensor:
    """Sum of squared (or absolute) attributions outside low <= frequency < high: (B, *F) -> (B,).

    Args:
        attributions: (B, *F) in ``rt.spaces.Fourier(dims)``.
        low, high: in cycles a step; the highest frequency is 1/2 in one dimension and sqrt(1/2) in two.
        dims: of the transform.
        norm: ``"l2"`` or ``"l1"``.
    """
    if attributions.ndim <= dims:
        raise ShapeError(
            "these attributions are not in that space of frequencies",
            expected=f"(B, ..., {dims} transformed dimensions)",
            got=tuple(attributions.shape),
            mend="choose dims= as in rt.spaces.Fourier(dims)",
        )
    at = frequencies(tuple(attributions.shape[1:]), dims)
    outside = (at < low) | (at >= high)
    return irrelevant(attributions, outside.to(attributions), norm)


@register("prior", citation="singh2022", example=lambda shape: {"high": 0.2})
class FrequencyBand(Prior):
    """Attributions in ``rt.spaces.Fourier`` should lie in a band of frequencies: sum of what lies outside.

    Right for the right reasons among frequencies: ``rt.Term(rt.Gradient(space=rt.spaces.Fourier(2)),
    rt.priors.FrequencyBand(0.0, 0.1, dims=2))`` asks for a model that does not use fine detail.

    Args:
        low, high: the band, low <= frequency < high, in cycles a step; ``high=1.0`` leaves it open above.
        dims: as in ``rt.spaces.Fourier``: 1 for signals, 2 for images.
        norm: ``"l2"`` or ``"l1"``.
    """

    def __init__(self, low: float = 0.0, high: float = 1.0, *, dims: int = 1, norm: Literal["l1", "l2"] = "l2") -> None:
        if not 0 <= low < high:
            raise ArgumentError("a band lies between two frequencies", expected="0 <= low < high", got=(low, high))
        if dims not in (1, 2):
            raise ArgumentError("signals have 1 dimension, images 2", expected="1 or 2", got=repr(dims))
        if norm not in ("l1", "l2"):
            raise ArgumentError("unknown norm", expected="'l1' or 'l2'", got=repr(norm))
        self.low, self.high, self.dims = float(low), float(high), dims
        self.norm: Literal["l1", "l2"] = norm

    def penalty(self, attributions: Tensor, annotation: Annotation | None, target: Tensor | None) -> Tensor:
        """(B,)."""
        return frequency_band(attributions, self.low, self.high, self.dims, self.norm)
