"""A penalty on what the model answers to changed inputs: adversarial training, agreement with the clean answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rightly.core import autodiff, seeding
from rightly.core.annotation import Annotation, needed
from rightly.core.batch import outputs_of
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.scalar import explained, resolve_target, single
from rightly.objectives.engines import class_numbers
from rightly.objectives.model_term import Batch, ModelTerm
from rightly.objectives.term import Schedule, Weight, check_weight
from rightly.perturbations import Perturbation
from rightly.priors.base import Level

Compare = Literal["loss", "agreement"]
Inside = Literal["irrelevant", "not_relevant"]


@dataclass(frozen=True)
class PerturbationTerm(ModelTerm):
    """``weight * penalty`` of the outputs at changed inputs.

    The perturbation sees the model with dropout off and batch norm frozen, and is a constant of the gradient: nothing
    is trained to make it weaker. The outputs are taken from the model in its own mode, like the task loss; running
    statistics follow the clean inputs alone, and dropout draws from the term's generator.

    Args:
        perturbation: which changed inputs, such as ``rt.perturbations.FGSM(0.3, labels="predicted", clip=(0, 1))``.
        compare: ``"loss"`` asks for the right answer there (adversarial training, augmentation); ``"agreement"`` for
            the answer that the clean input gets, whatever it is, and needs no labels. Both answers are trained.
        inside: where inputs change: everywhere, or as the annotation says: ``"irrelevant"`` inside what it marks so,
            ``"not_relevant"`` outside what it marks relevant. An example of which it says nothing, or leaves nothing
            to change, counts zero.
        loss: of each example, (outputs, goal) -> (B,), where the goal are the labels or, for agreement, the clean
            outputs. By default cross-entropy (binary for a single output), and for agreement ``divergence``; for a
            regression pass ``squared_difference``.
        weight, name, schedule: as in ``rt.Term``.
    """

    perturbation: Perturbation
    compare: Compare = "loss"
    inside: Inside | None = None
    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    weight: Weight = 1.0
    name: str = ""
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        if not isinstance(self.perturbation, Perturbation):
            raise ArgumentError(
                "the term needs a perturbation",
                expected="such as rt.perturbations.FGSM(0.3)",
                got=repr(self.perturbation),
            )
        if self.compare not in get_args(Compare):
            raise ArgumentError("unknown comparison", expected=", ".join(get_args(Compare)), got=repr(self.compare))
        if self.inside is not None and self.inside not in get_args(Inside):
            raise ArgumentError(
                "unknown region", expected=f"None, {', '.join(get_args(Inside))}", got=repr(self.inside)
            )
        check_weight(self.weight)
        if not self.name:
            object.__setattr__(self, "name", f"{self.compare}_under_{type(self.perturbation).__name__.lower()}")

    @property
    def level(self) -> Level:
        """A number an example."""
        return "example"

    @property
    def about(self) -> str:
        """In words."""
        where = {None: "", "irrelevant": " where irrelevant", "not_relevant": " outside what is relevant"}[self.inside]
        return f"{self.compare} under {type(self.perturbation).__name__}{where}"

    def of(self, model: nn.Module, batch: Batch) -> Tensor:
        """The penalty of each example (B,), before the weight.

        Raises:
            ArgumentError: inputs that are no single tensor, or ``"loss"`` without labels.
            AnnotationError: ``inside`` asks for what the annotation does not have.
            ShapeError: the loss gives no number an example.
        """
        if not isinstance(batch.inputs, Tensor):
            raise ArgumentError(
                "only one tensor is changed", expected="inputs (B, *F)", got=type(batch.inputs).__name__
            )
        if self.compare == "loss" and batch.labels is None:
            raise ArgumentError("the loss needs labels", expected="labels (B,)", got=None)
        region = None if self.inside is None else region_inside(self.inside, batch.annotation, batch.inputs)
        draws = batch.generator or seeding.generator("perturbation")
        changed = self.perturbation(model, batch.inputs, batch.labels, inside=region, generator=draws)
        with seeding.guarded(int(torch.randint(2**62, (), generator=draws))), autodiff.own_buffers(model):
            goal = batch.labels if self.compare == "loss" else outputs_of(model(batch.inputs))
            found = self._compared(outputs_of(model(changed)), goal)
        if found.shape != (len(changed),):
            raise ShapeError("the loss must give one number an example", expected=(len(changed),), got=found.shape)
        return found if region is None else torch.where(region.flatten(1).any(1), found, 0)

    def _compared(self, outputs: Tensor, goal: Tensor | None) -> Tensor:
        if self.loss is not None and goal is not None:
            return self.loss(outputs, goal)
        if self.compare == "agreement" and goal is not None:
            return divergence(outputs, goal)
        return explained(outputs, loss_labels(outputs, goal), None, "loss")


def loss_labels(outputs: Tensor, labels: Tensor | None) -> Tensor:
    """The labels (B,) that the cross-entropy of outputs reads: class numbers, or numbers in [0, 1] of a single output.

    Raises:
        ArgumentError: there are none, they are no class numbers, or they name classes that do not exist.
        ShapeError: they do not count the examples, or the outputs are no scores.
    """
    labels = class_numbers(labels)
    if labels is None:
        raise ArgumentError("the loss needs labels", expected="labels (B,)", got=None)
    if single(outputs):
        explained(outputs.detach(), labels, None, "loss")  # which knows what labels it takes
        return labels
    if outputs.ndim != 2:
        raise ShapeError("class scores are wanted", expected="(B, classes)", got=tuple(outputs.shape))
    return resolve_target("label", labels, *outputs.shape).to(outputs.device)


def divergence(outputs: Tensor, goal: Tensor) -> Tensor:
    """Kullback-Leibler divergence (B,) of the answers to changed inputs from the clean ones, both as scores.

    Args:
        outputs, goal: (B, C) before the softmax, or (B,) / (B, 1), the logit of the positive class.
    """
    pair = [torch.stack([-o.flatten(), o.flatten()], 1) / 2 if single(o) else o for o in (outputs, goal)]
    changed, clean = (F.log_softmax(scores, 1) for scores in pair)
    return (clean.exp() * (clean - changed)).sum(1)


def squared_difference(outputs: Tensor, goal: Tensor) -> Tensor:
    """Sum of the squared differences of each example's outputs: (B, ...) and (B, ...) -> (B,)."""
    return (outputs - goal.reshape(outputs.shape)).reshape(len(outputs), -1).square().sum(1)


def region_inside(inside: Inside, annotation: Annotation | None, inputs: Tensor) -> Tensor:
    """Where inputs (B, *F) may change, boolean; nowhere in an example of which the annotation says nothing."""
    value, known = needed(annotation, "irrelevant" if inside == "irrelevant" else "relevant", inputs)
    return known & ((value > 0) if inside == "irrelevant" else ~(value > 0))
