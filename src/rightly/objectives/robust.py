"""Right reasons not only at the example, but wherever the irrelevant region takes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rightly.attributions import Gradient
from rightly.core import autodiff, seeding
from rightly.core.batch import call, outputs_of, rows
from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.intervals import gradient_bounds
from rightly.core.scalar import Output, OutputName, Target, check_output, check_target, resolve_target, single
from rightly.objectives.engines import class_numbers
from rightly.objectives.interval import Clip, bounded, box, check_box
from rightly.objectives.model_term import Batch, ModelTerm
from rightly.objectives.perturbed import Inside, loss_labels
from rightly.objectives.term import Schedule, Weight, check_weight
from rightly.priors.base import Level
from rightly.priors.irrelevant import irrelevant

Bound = Literal["interval", "sampled", "pgd"]

#: slopes of an output with respect to the scores: a * (1 at the class) + b * probabilities + c, for C classes
_SLOPES: dict[OutputName, tuple[float, float, float]] = {
    "logit": (1, 0, 0),
    "log_prob": (1, -1, 0),
    "loss": (-1, 1, 0),
}


@dataclass(frozen=True)
class RobustReasons(ModelTerm):
    """``weight *`` the largest squared input gradient inside the region, over all values that it can take: R4.

    Right reasons hold where the example is; a gradient that is small there may be large a step away, inside the very
    region that should not matter. This looks for the largest within ``eps``, all entries of the region at once. The
    model is read with dropout off and batch norm frozen.

    Args:
        eps: how far each value of the region may go, in the inputs' units.
        bound: ``"interval"`` bounds the gradient from above, by interval arithmetic: never too low, exact on linear
            models, loose on deep ones. ``"sampled"`` takes the worst of the example and ``n_samples`` random places.
            ``"pgd"`` climbs from a random place, by signs of the penalty's own gradient; on a piecewise-linear model
            that needs an ``output`` that bends (log-probabilities, the loss). Where such an output is saturated, and
            its gradient the same all around, the climb stands still.
        output, target: whose gradient, as in attributions; intervals know the logit, the log-probability, their sum,
            and both losses.
        n_samples, steps: of ``"sampled"`` and of ``"pgd"``.
        inside: as in ``rt.PerturbationTerm``. An example without region counts zero.
        clip: the data's range, which the region does not leave.
        weight, name, schedule: as in ``rt.Term``. At ``eps=0`` it is right-for-the-right-reasons at the same weight.
    """

    eps: float
    bound: Bound = "interval"
    output: Output = "log_prob_sum"
    target: Target = "label"
    n_samples: int = 10
    steps: int = 10
    inside: Inside = "irrelevant"
    clip: Clip = None
    weight: Weight = 1.0
    name: str = "robust_reasons"
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        check_box(self.eps, self.inside, self.clip)
        check_output(self.output)
        check_target(self.target)
        check_count("n_samples", self.n_samples)
        check_count("steps", self.steps)
        check_weight(self.weight)
        if self.bound not in get_args(Bound):
            raise ArgumentError("unknown bound", expected=", ".join(get_args(Bound)), got=repr(self.bound))
        known = (*_SLOPES, "log_prob_sum", "loss_uniform")
        if self.bound == "interval" and self.output not in known:
            raise ArgumentError(
                "intervals do not know this output", expected=", ".join(known), got=repr(self.output),
                mend="bound='sampled' takes any",
            )  # fmt: skip

    @property
    def level(self) -> Level:
        """A number an example."""
        return "example"

    @property
    def about(self) -> str:
        """In words."""
        return f"largest gradient of {self.output} within {self.eps:g} inside the region, {self.bound}"

    def of(self, model: nn.Module, batch: Batch) -> Tensor:
        """The penalty of each example (B,), before the weight: the sum over the region of squared gradients.

        Raises:
            ArgumentError: no bounds for an operation of the model (named), inputs that are no single tensor.
            AnnotationError: the annotation does not have the region.
        """
        region, low, high = box(batch, self.eps, self.inside, self.clip)
        labels = class_numbers(batch.labels)
        if self.bound == "interval":
            return self._bounded(model, batch, labels, region.to(low), low, high)
        draws = batch.generator or seeding.generator("robust reasons")
        found = self._searched(model, batch, labels, region.to(low), low, high, draws)
        return self._penalty(model, found, labels, region.to(low), keep=torch.is_grad_enabled())

    def _bounded(
        self, model: nn.Module, batch: Batch, labels: Tensor | None, region: Tensor, low: Tensor, high: Tensor
    ) -> Tensor:
        def slope(least: Tensor, most: Tensor) -> tuple[Tensor, Tensor]:
            return output_slope(least, most, self.output, self._classes(labels, least, model, batch))

        keep = torch.is_grad_enabled()
        with autodiff.reading(model, trainable=True), torch.set_grad_enabled(keep):
            least, most = bounded(lambda: gradient_bounds(model, low, high, slope))
        return irrelevant(_wide(torch.maximum(least.abs(), most.abs())), region)

    def _classes(self, labels: Tensor | None, outputs: Tensor, model: nn.Module, batch: Batch) -> Tensor | None:
        """The class explained (B,), or the labels of the loss; None where neither is read."""
        if self.output in ("log_prob_sum", "loss_uniform"):
            return None
        if self.output == "loss":
            return loss_labels(outputs, labels)
        if single(outputs):
            return None
        if isinstance(self.target, str) and self.target == "predicted":
            with torch.no_grad():
                return outputs_of(call(model, batch.inputs)).argmax(1)
        return resolve_target(self.target, labels, rows(batch.inputs), outputs.shape[1]).to(outputs.device)

    def _searched(
        self,
        model: nn.Module,
        batch: Batch,
        labels: Tensor | None,
        region: Tensor,
        low: Tensor,
        high: Tensor,
        draws: torch.Generator,
    ) -> Tensor:
        """The worst inputs (B, *F) that were met, a constant of the gradient."""
        best = batch.inputs.detach()  # type: ignore[union-attr]
        most = self._penalty(model, best, labels, region, keep=False)
        for _ in range(self.n_samples if self.bound == "sampled" else 1):
            points = low + (high - low) * torch.rand(low.shape, generator=draws).to(low)
            for _ in range(self.steps if self.bound == "pgd" else 0):
                slope = self._rise(model, points, labels, region)
                points = points + 2.5 / self.steps * (high - low) / 2 * slope.sign()
                points = torch.minimum(torch.maximum(points, low), high)
            value = self._penalty(model, points, labels, region, keep=False)
            better = (value > most).reshape(-1, *(1,) * (low.ndim - 1))
            best, most = torch.where(better, points, best), torch.maximum(most, value)
        return best

    def _rise(self, model: nn.Module, points: Tensor, labels: Tensor | None, region: Tensor) -> Tensor:
        """Which way the penalty rises."""
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            value = self._penalty(model, points, labels, region, keep=True)
            found = autodiff.gradient(value, points, create_graph=False)
        # a named output but the logit bends, and stands still only where it is saturated
        bends = isinstance(self.output, str) and self.output != "logit"
        if not bends and bool(value.any()) and not bool(found.any()):
            raise ArgumentError(
                "this gradient is the same all around every example, so that there is nothing to climb",
                expected="a smooth model, or an output that bends, such as 'log_prob_sum'",
                got=f"output={self.output!r} of a piecewise-linear model",
                mend="bound='sampled' or 'interval'",
            )
        return found

    def _penalty(self, model: nn.Module, points: Tensor, labels: Tensor | None, region: Tensor, keep: bool) -> Tensor:
        method = Gradient(output=self.output, target=self.target)
        found = method(model, points, labels, create_graph=keep, diagnostics=False).attributions
        return irrelevant(_wide(found), region)


def _wide(slopes: Tensor) -> Tensor:
    """Slopes whose squares neither overflow nor vanish: those of half precision do."""
    return slopes.to(torch.promote_types(slopes.dtype, torch.float32))


def output_slope(low: Tensor, high: Tensor, output: Output, classes: Tensor | None) -> tuple[Tensor, Tensor]:
    """Bounds of an output's slope with respect to every score, for scores between bounds.

    Args:
        low, high: (B, C) scores; or (B,) / (B, 1), the logit of the positive class.
        output: ``"logit"``, ``"log_prob"``, ``"log_prob_sum"``, ``"loss"`` or ``"loss_uniform"``.
        classes: (B,) the class explained, or the labels.
    """
    if low.ndim > 2:
        raise ShapeError("bounds of class scores are wanted", expected="(B, classes)", got=tuple(low.shape))
    alone = single(low)
    count = 2 if alone else low.shape[1]
    at_class, factor, constant = {
        **_SLOPES, "log_prob_sum": (0, -count, 1), "loss_uniform": (0, 1, -1 / count)
    }[output]  # type: ignore[index]  # fmt: skip
    if alone:
        # the positive class is explained, whatever the target; a logit explains itself
        own = torch.ones_like(low) if output != "loss" or classes is None else classes.reshape(low.shape).to(low)
        least, most = torch.sigmoid(low), torch.sigmoid(high)
    else:
        own = torch.zeros_like(low) if classes is None else F.one_hot(classes.long(), count).to(low)
        least, most = _lowest_probability(low, high), _highest_probability(low, high)
    fixed = at_class * own + constant
    return (
        (fixed + factor * least, fixed + factor * most)
        if factor >= 0
        else (fixed + factor * most, fixed + factor * least)
    )


def _lowest_probability(low: Tensor, high: Tensor) -> Tensor:
    """Of each class: its own lowest score against the highest of all others."""
    own = torch.eye(low.shape[1], dtype=torch.bool, device=low.device)
    scores = torch.where(own, low[:, :, None], high[:, None, :])
    return (low - scores.logsumexp(2)).exp()


def _highest_probability(low: Tensor, high: Tensor) -> Tensor:
    return _lowest_probability(high, low)
