"""The worst that can happen while the irrelevant region takes any value: bounds, not samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rightly.core import autodiff
from rightly.core.errors import ArgumentError
from rightly.core.intercept import Unsupported
from rightly.core.intervals import output_bounds
from rightly.core.scalar import explained, single
from rightly.objectives.model_term import Batch, ModelTerm
from rightly.objectives.perturbed import Inside, loss_labels, region_inside
from rightly.objectives.term import Schedule, Weight, check_weight
from rightly.perturbations.base import check_radius
from rightly.priors.base import Level

Clip = tuple[float, float] | None
T = TypeVar("T")


@dataclass(frozen=True)
class IntervalTerm(ModelTerm):
    """``weight * cross-entropy`` of the worst outputs that interval bounds allow: IBP-Ex (Heo et al. 2023).

    Inside the region every value may be anywhere within ``eps`` of its own, all at once. The bounds are propagated
    through the model as it is, with dropout off and batch norm frozen: linear layers, convolutions, monotone
    activations, pooling, batch norm, sums and reshaping; anything else is an error that names it. They are sound (no
    input of the box does worse), exact for a linear model, and looser with every further layer.

    Args:
        eps: half the width of the box, in the inputs' units.
        inside: as in ``rt.PerturbationTerm``. An example without region counts zero.
        clip: the data's range, which the box is cut to.
        weight, name, schedule: as in ``rt.Term``; a schedule with ``warmup`` lets the model learn first.
    """

    eps: float
    inside: Inside = "irrelevant"
    clip: Clip = None
    weight: Weight = 1.0
    name: str = "interval_bound"
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        check_box(self.eps, self.inside, self.clip)
        check_weight(self.weight)

    @property
    def level(self) -> Level:
        """A number an example."""
        return "example"

    @property
    def about(self) -> str:
        """In words."""
        return f"worst loss within {self.eps:g} inside the region, by intervals"

    def of(self, model: nn.Module, batch: Batch) -> Tensor:
        """The penalty of each example (B,), before the weight.

        Raises:
            ArgumentError: no bounds for an operation of the model (named), inputs that are no single tensor, no labels.
            AnnotationError: the annotation does not have the region.
        """
        region, low, high = box(batch, self.eps, self.inside, self.clip)
        keep = torch.is_grad_enabled()
        with autodiff.reading(model, trainable=False), torch.set_grad_enabled(keep):
            bounds = bounded(lambda: output_bounds(model, low, high))
        return torch.where(region.flatten(1).any(1), worst_loss(*bounds, batch.labels), 0)


def worst_loss(low: Tensor, high: Tensor, labels: Tensor | None) -> Tensor:
    """The largest cross-entropy (B,) of outputs between bounds: the label's lowest score, the highest of all others.

    Args:
        low, high: (B, C) scores, or (B,) / (B, 1), the logit of the positive class.
        labels: (B,) class numbers, or numbers between 0 and 1 of a single output.

    Raises:
        ArgumentError, ShapeError: labels that a cross-entropy does not read.
    """
    known = loss_labels(low, labels)
    if single(low):
        # convex in the logit: the worst is at an end
        return torch.maximum(explained(low, known, None, "loss"), explained(high, known, None, "loss"))
    own = F.one_hot(known, low.shape[1]).bool()
    return explained(torch.where(own, low, high), known, None, "loss")


def check_box(eps: float, inside: Inside, clip: Clip) -> None:
    """Raise ``ArgumentError`` for what makes no box."""
    check_radius("eps", eps)
    if inside not in get_args(Inside):
        raise ArgumentError("unknown region", expected=", ".join(get_args(Inside)), got=repr(inside))
    if clip is not None and not (len(clip) == 2 and clip[0] < clip[1]):
        raise ArgumentError("clip is a range", expected="(low, high), low < high", got=repr(clip))


def box(batch: Batch, eps: float, inside: Inside, clip: Clip) -> tuple[Tensor, Tensor, Tensor]:
    """The region, and the lowest and highest inputs, each (B, *F)."""
    x = batch.inputs
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = str(x.dtype) if isinstance(x, Tensor) else type(x).__name__
        raise ArgumentError("only real numbers have a range", expected="a floating tensor (B, *F)", got=got)
    region = region_inside(inside, batch.annotation, x)
    width = eps * region.to(x)
    low, high = x - width, x + width
    if clip is not None:
        # what lies outside of the range already stays where it is
        low, high = torch.minimum(x, low.clamp_min(clip[0])), torch.maximum(x, high.clamp_max(clip[1]))
    return region, low, high


def bounded(find: Callable[[], T]) -> T:
    """What ``find`` gives; the error of a model without bounds is one that a user can read."""
    try:
        return find()
    except Unsupported as reason:
        raise ArgumentError(
            "interval bounds cannot go through this model",
            expected="linear layers, convolutions, monotone activations (ReLU, softplus, tanh), pooling, batch norm",
            got=str(reason),
            mend="replace that operation, or sample the region: masked_pgd, robust_right_reasons(bound='sampled')",
        ) from reason
