"""What a measure of explanations reads, and what can keep it from being taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from rightly.core.annotation import Annotation
from rightly.core.batch import Inputs, Model
from rightly.core.errors import ArgumentError
from rightly.core.scalar import Output, single
from rightly.evaluation.explainer import Explainer, features, read
from rightly.spaces import Input

#: outputs (M, C) of a classifier on the scale of the number that is explained
SCALES: dict[str, Callable[[Tensor], Tensor]] = {
    "logit": lambda outputs: outputs,
    "prob": lambda outputs: F.softmax(outputs, 1),
    "log_prob": lambda outputs: F.log_softmax(outputs, 1),
}
#: changes of an input are this share of the standard deviation of all inputs
_NEAR = 0.1


@dataclass(frozen=True)
class Subject:
    """One explanation that is measured, with what it explains.

    Attributes:
        model, inputs, labels, annotation: as ``rt.evaluate`` got them; labels as tensor (B,) or None.
        attributions: (B, *F).
        explainer: asks the method again; None for attributions that came from elsewhere.
        background: (T, *F), rows that stand for the data.
        values: (B,), the explained number; reads the model at other inputs too.
        output: which number that is.
        target: (B,), of which class; None where the number belongs to no class, or the model has a single output.
        n_samples: changes of an input, where a measure draws them.
        seed: of whatever a measure draws.
        seeds: the same network, trained from other random numbers.
        relabelled: the same network, trained on labels in random order.
    """

    model: Model
    inputs: Inputs
    labels: Tensor | None
    annotation: Annotation | None
    attributions: Tensor
    explainer: Explainer | None
    background: Tensor | None
    values: Callable[[Tensor], Tensor]
    output: Output
    target: Tensor | None
    n_samples: int
    seed: int
    seeds: Sequence[Model] = ()
    relabelled: Model | None = None

    @property
    def asked(self) -> Explainer:
        """The explainer of a measure that needs one."""
        if self.explainer is None:
            raise ArgumentError("this measure explains again", expected="a method", got="attributions from elsewhere")
        return self.explainer

    @property
    def near(self) -> float:
        """The size of a small change, in the unit of the inputs."""
        return max(_NEAR * float(features(self.inputs).double().std()), 1e-12)

    def read(self, rows: Tensor) -> Tensor:
        """What is ablated: the outputs (M,) or (M, 1), or of a classifier (M, C) on the scale that is explained."""
        outputs = read(self.model, rows)
        return outputs if self.target is None else SCALES[str(self.output)](outputs)

    def region(self, name: str) -> tuple[Tensor, Tensor]:
        """Attributions summed over the channels of images, and the region of ``annotation.name``: (B, *F) each.

        Examples without annotation have an empty region.
        """
        phi = self.attributions.sum(1, keepdim=True) if self.attributions.ndim == 4 else self.attributions
        values, known = (self.annotation or Annotation()).known(name, phi)
        return phi, (values > 0.5) & known


#: subject -> why a measure cannot be taken; empty if it can
Missing = Callable[[Subject], str]


def again(subject: Subject) -> str:
    """For a measure that asks the method once more."""
    return "" if subject.explainer else "the attributions came from elsewhere, and this measure explains again"


def changed_models(subject: Subject) -> str:
    """For a measure that asks about models made from this one."""
    if again(subject):
        return again(subject)
    space = subject.asked.method.space
    return changed_inputs(subject) if isinstance(space, Input) else "the method does not explain the inputs"


def changed_inputs(subject: Subject) -> str:
    """For a measure that sets attributions against changes of the inputs."""
    x = subject.inputs
    if not isinstance(x, Tensor) or not x.is_floating_point():
        return "the inputs are not one floating point tensor"
    return "" if x.shape == subject.attributions.shape else "the attributions are not shaped like the inputs"


def near(subject: Subject) -> str:
    """For a measure that explains inputs nearby."""
    x = subject.inputs
    near = isinstance(x, Tensor) and x.is_floating_point()
    return again(subject) or ("" if near else "the inputs are not one floating point tensor")


def module(subject: Subject) -> str:
    """For a measure that changes layers."""
    return again(subject) or ("" if isinstance(subject.model, nn.Module) else "the model is no module with layers")


def annotated(name: str, subject: Subject) -> str:
    """For a measure of places."""
    given = subject.annotation is not None and getattr(subject.annotation, name) is not None
    return "" if given else f"no annotation says what is {name}"


def tabular(subject: Subject) -> str:
    """For a measure that replaces features by those of other rows."""
    if changed_inputs(subject) or subject.attributions.ndim != 2:
        return changed_inputs(subject) or "features are ablated from tables"
    if subject.background is None or len(subject.background) < 2:
        return "there are no other rows to replace features from"
    if subject.target is None and not single(read(subject.model, subject.inputs)):
        return "the model has several outputs, and what is explained is none of a class"
    return ""


def tabular_labelled(subject: Subject) -> str:
    """The same for a measure that needs labels."""
    return tabular(subject) or ("" if subject.labels is not None else "there are no labels")


def other_seeds(subject: Subject) -> str:
    """For a measure that compares with other models of the same kind."""
    return again(subject) or ("" if subject.seeds else "no models of other seeds are given")


def random_labels(subject: Subject) -> str:
    """For a measure that compares with a model that could learn nothing from its labels."""
    return again(subject) or ("" if subject.relabelled else "no model of labels in random order is given")
