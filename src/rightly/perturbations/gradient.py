"""Steps along the input gradient of a loss: fast gradient sign, targeted, iterated, projected."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from rightly.core import autodiff
from rightly.core.batch import Model, outputs_of
from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError
from rightly.core.scalar import Output, check_output, explained, resolve_target, single
from rightly.perturbations.base import Perturbation, check_radius

Norm = Literal["linf", "l2"]
Labels = Literal["label", "predicted"]
Targeted = Literal["next"] | int | None
_LOSSES = ("loss", "loss_uniform", "log_prob_sum")


@dataclass(frozen=True, kw_only=True)
class GradientStep(Perturbation):
    """What the attacks that follow a gradient share.

    Args:
        targeted: None moves away from the label (the loss rises). A class number, or ``"next"`` for the label's
            successor (the thesis' y + 1 modulo the classes), moves towards that class (its loss falls).
        labels: ``"predicted"`` takes the model's own answers for labels, so that training with the result cannot leak
            the true ones (Kurakin, Goodfellow, Bengio 2017).
        output: the loss that is followed, as in attributions: ``"loss"`` is cross-entropy (binary for a single
            output), ``"loss_uniform"`` asks no labels, nor does ``"log_prob_sum"``; or a callable (outputs, labels) ->
            (B,). An output of one class is no loss.
        clip: as in ``Perturbation``.
    """

    targeted: Targeted = None
    labels: Labels = "label"
    output: Output = "loss"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_output(self.output)
        if isinstance(self.output, str) and self.output not in _LOSSES:
            raise ArgumentError(
                "this output is of one class, and no loss to follow",
                expected=f"{', '.join(_LOSSES)}, or (outputs, labels) -> (B,)",
                got=repr(self.output),
                mend="rt.perturbations.unsaturated, or targeted= for a class to move to",
            )
        if self.labels not in get_args(Labels):
            raise ArgumentError("unknown labels", expected=", ".join(get_args(Labels)), got=repr(self.labels))
        number = isinstance(self.targeted, int) and not isinstance(self.targeted, bool) and self.targeted >= 0
        if self.targeted not in (None, "next") and not number:
            raise ArgumentError("unknown target", expected="None, 'next' or a class number", got=repr(self.targeted))

    def slope(self, model: Model, points: Tensor, goal: Tensor | None) -> Tensor:
        """Which way the example gets worse: (B, *F), the gradient of what is to rise; 0 where it is not finite."""
        points = points.detach().requires_grad_()
        outputs = outputs_of(model(points))
        if self.output == "loss" and outputs.ndim == 2 and not single(outputs):
            goal = resolve_target("label", goal, *outputs.shape).to(outputs.device)
        values = explained(outputs, goal, None, self.output)
        found = autodiff.gradient(values, points, create_graph=False)
        found = torch.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)
        return found if self.targeted is None else -found

    def goal(self, model: Model, inputs: Tensor, labels: Tensor | None) -> Tensor | None:
        """(B,) the labels that the loss is taken of; None where the loss reads none."""
        if self.labels == "label" and self.targeted is None:
            return labels
        with torch.no_grad():
            outputs = outputs_of(model(inputs))
        classes = 2 if single(outputs) else outputs.shape[1]
        if isinstance(self.targeted, int):
            if self.targeted >= classes:
                raise ArgumentError(
                    "the model does not have the targeted class", expected=f"0 to {classes - 1}", got=self.targeted
                )
            return torch.full(outputs.shape[:1], self.targeted, device=outputs.device)
        known = labels
        if self.labels == "predicted":
            known = answers(outputs)
        if known is None:
            raise ArgumentError(
                "the successor of the label is asked for, and there are no labels",
                expected="labels (B,)",
                got=None,
                mend="pass labels, or labels='predicted'",
            )
        return known if self.targeted is None else (known.long() + 1) % classes


@dataclass(frozen=True)
class FGSM(GradientStep):
    """Fast gradient sign method (Goodfellow, Shlens, Szegedy 2015; Ross 2018, eq. 3.2): one step of eps, by sign.

    With ``targeted`` it is the targeted one, TGSM (eq. 3.3). Where the gradient is exactly zero (a saturated model)
    nothing moves: see ``rt.evaluation.gradient_masking``.

    Args:
        eps: the change of every value, in the inputs' units.
        targeted, labels, output, clip: as in ``GradientStep``.
    """

    eps: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_radius("eps", self.eps)

    def _change(
        self, model: Model, inputs: Tensor, labels: Tensor | None, region: Tensor | None, draws: torch.Generator
    ) -> Tensor:
        return inputs + self.eps * self.slope(model, inputs, self.goal(model, inputs, labels)).sign()


@dataclass(frozen=True)
class PGD(GradientStep):
    """Projected gradient steps (Madry et al. 2018): many small ones, each put back into the ball around the example.

    Args:
        eps: radius of the ball, in the inputs' units; infinite for steps without projection.
        step_size: of each step; by default 2.5 eps / steps, which can reach the border from anywhere.
        steps: how many.
        norm: ``"linf"`` bounds the change of every value, and steps by sign; ``"l2"`` bounds the Euclidean length of
            the example's change, and steps along the gradient.
        random_start: begin at a random place of the ball instead of its centre.
        targeted, labels, output, clip: as in ``GradientStep``.
    """

    eps: float
    step_size: float | None = None
    steps: int = 10
    norm: Norm = "linf"
    random_start: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_radius("eps", self.eps, infinite=True)
        check_count("steps", self.steps)
        if self.norm not in get_args(Norm):
            raise ArgumentError("unknown norm", expected=", ".join(get_args(Norm)), got=repr(self.norm))
        if self.step_size is not None:
            check_radius("step_size", self.step_size)
        if math.isinf(self.eps) and (self.step_size is None or self.random_start):
            raise ArgumentError(
                "an infinite ball gives no step and no start", expected="step_size=, random_start=False", got=self
            )

    def _change(
        self, model: Model, inputs: Tensor, labels: Tensor | None, region: Tensor | None, draws: torch.Generator
    ) -> Tensor:
        goal = self.goal(model, inputs, labels)
        size = 2.5 * self.eps / self.steps if self.step_size is None else self.step_size
        moved = inputs
        if self.random_start:
            moved = self._within(inputs + self._anywhere(inputs, draws), inputs, region)
        for _ in range(self.steps):
            slope = self.slope(model, moved, goal)
            if region is not None:
                # before the step is made as long as it may be: what lies outside must not use up its length
                slope = slope * region
            step = slope.sign() if self.norm == "linf" else _unit(slope)
            moved = self._within(moved + size * step, inputs, region)
        return moved

    def _within(self, moved: Tensor, inputs: Tensor, region: Tensor | None) -> Tensor:
        """Back into the region, the ball and the range."""
        change = moved - inputs if region is None else (moved - inputs) * region
        if self.norm == "linf":
            eps = min(self.eps, torch.finfo(change.dtype).max)  # half precision refuses larger bounds
            change = change.clamp(-eps, eps)
        else:
            length = _length(change)
            change = torch.where(length > self.eps, change * (self.eps / length.clamp(min=1e-30)), change)
        return self._clipped(inputs + change, inputs)

    def _anywhere(self, inputs: Tensor, draws: torch.Generator) -> Tensor:
        """Uniform in the ball."""
        if self.norm == "linf":
            return self.eps * (2 * torch.rand(inputs.shape, generator=draws) - 1).to(inputs)
        way = _unit(torch.randn(inputs.shape, generator=draws, dtype=torch.float64))
        share = torch.rand(len(inputs), generator=draws, dtype=torch.float64) ** (1 / inputs[0].numel())
        return (self.eps * way * _per_example(share, inputs)).to(inputs)


def iterated_tgsm(
    eps: float, steps: int = 15, targeted: Targeted = "next", *, clip: tuple[float, float] | None = None
) -> PGD:
    """Iterated targeted gradient sign method (Kurakin et al. 2016; Ross 2018, 3.2.1 and figure 3.8).

    As in the thesis, each of its steps has the length ``eps`` and nothing holds their sum: the change can reach
    ``steps * eps``, and the example can become one of its target.
    """
    return PGD(math.inf, eps, steps, targeted=targeted, clip=clip)


def unsaturated(outputs: Tensor, labels: Tensor | None) -> Tensor:
    """Log-odds against the label (B,), as an ``output``: cross-entropy's direction without its underflow.

    Cross-entropy is the softplus of it, so that both gradients point the same way; but where the model is sure that of
    cross-entropy is rounded to zero, and a sign of zero attacks nothing.
    """
    if labels is None:
        raise ArgumentError("this loss needs labels", expected="labels (B,)", got=None)
    if single(outputs):
        logit = outputs.reshape(len(outputs))
        return (1 - 2 * labels.reshape(logit.shape).to(logit)) * logit
    return -explained(outputs, None, labels.long(), "log_odds")


def answers(outputs: Tensor) -> Tensor:
    """The class (B,) that the model gives each example; of a single output, whether it is positive."""
    return (outputs.reshape(len(outputs)) > 0).long() if single(outputs) else outputs.argmax(1)


def _unit(vectors: Tensor) -> Tensor:
    """Each example's (B, *F) divided by its length; zero stays zero."""
    largest = _per_example(vectors.reshape(len(vectors), -1).abs().amax(1), vectors)
    # by the largest entry first, so that no square over- or underflows
    scaled = vectors / torch.where(largest > 0, largest, 1)
    return scaled / _length(scaled).clamp(min=1)


def _length(vectors: Tensor) -> Tensor:
    return _per_example(torch.linalg.vector_norm(vectors.reshape(len(vectors), -1), dim=1), vectors)


def _per_example(numbers: Tensor, like: Tensor) -> Tensor:
    return numbers.reshape(-1, *(1,) * (like.ndim - 1))
