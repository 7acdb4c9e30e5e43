"""A concept should not matter."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from rightly.core.annotation import Annotation
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.registry import register
from rightly.priors.base import Prior

Measure = Literal["squared", "cosine"]


def concept_direction(attributions: Tensor, direction: Tensor, measure: Measure = "squared") -> Tensor:
    """Squared inner product of each example's gradient with a direction, (B, *F) -> (B,).

    Args:
        attributions: (B, *F), a gradient in a latent space.
        direction: (*F), or its first dimensions, such as (C,) for feature maps (B, C, H, W): the same at every place,
            so that the inner product is the slope along "more of the concept everywhere". Made a unit vector.
        measure: ``"squared"`` as published, or ``"cosine"``: over the squared length of the gradient, which a timid
            model cannot make small.
    """
    missing = attributions.ndim - 1 - direction.ndim
    if missing < 0 or direction.shape != attributions.shape[1 : 1 + direction.ndim]:
        raise ShapeError(
            "the direction does not fit the space",
            expected=f"{tuple(attributions.shape[1:])}, or its first dimensions",
            got=tuple(direction.shape),
        )
    unit = _unit(direction, attributions.dtype).to(attributions)
    way = unit.reshape(*unit.shape, *(1,) * missing).expand(attributions.shape[1:]).flatten()
    flat = attributions.flatten(1)
    inner: Tensor = (flat @ way).square()
    if measure == "squared":
        return inner
    lengths = flat.square().sum(1) * way.square().sum()
    cosine: Tensor = inner / lengths.clamp_min(torch.finfo(flat.dtype).tiny)
    return cosine


def _unit(direction: Tensor, precision: torch.dtype) -> Tensor:
    """Of length 1, however tiny or huge: its largest entry is 1 before any is squared."""
    for other in (precision, torch.float32):
        direction = direction.to(torch.promote_types(direction.dtype, other))
    direction = direction / direction.abs().amax()
    unit: Tensor = direction / torch.linalg.vector_norm(direction)
    return unit


@register("prior", citation="dreyer2024", example=lambda shape: {"direction": torch.arange(1.0, shape[0] + 1)})
class ConceptDirection(Prior):
    """The gradient in a latent space should not point along a concept: RR-ClArC, right reasons for concepts.

    With ``rt.Gradient(space=rt.spaces.Layer(...))``. Concepts reach what no region of the input marks: a tint, a
    texture. All examples are held to it, those that do not show the concept too, as in the paper.

    Args:
        direction: (*F) of the layer, or (C,) for its channels: a concept activation vector. Only its direction counts.
        measure: ``"squared"`` or ``"cosine"``; see ``rt.functional.concept_direction``.
    """

    def __init__(self, direction: Tensor, *, measure: Measure = "squared") -> None:
        if not isinstance(direction, Tensor) or not direction.is_floating_point() or direction.ndim == 0:
            got = (
                (direction.dtype, tuple(direction.shape)) if isinstance(direction, Tensor) else type(direction).__name__
            )
            raise ArgumentError(
                "a direction is a vector of the latent space", expected="floating (*F) or (C,)", got=got
            )
        if not bool(direction.isfinite().all()) or not bool(direction.any()):
            raise ArgumentError("this is no direction", expected="finite numbers, not all of them 0", got=direction)
        if measure not in get_args(Measure):
            raise ArgumentError("unknown measure", expected=", ".join(get_args(Measure)), got=repr(measure))
        self.direction = direction.detach()
        self.measure: Measure = measure

    def penalty(self, attributions: Tensor, annotation: Annotation | None, target: Tensor | None) -> Tensor:
        """(B,)."""
        return concept_direction(attributions, self.direction, self.measure)
