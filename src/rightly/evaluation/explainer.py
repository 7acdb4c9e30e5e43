"""One question put to any model: a method, the class asked about, and draws that are the same at every asking."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rightly.attributions import Attribution, attribute
from rightly.attributions.attribute import build
from rightly.core import autodiff
from rightly.core.batch import Inputs, Model, call, outputs_of, rows, take
from rightly.core.errors import ArgumentError
from rightly.core.scalar import Output, explained, needs_target, resolve_target
from rightly.core.types import AttributionResult
from rightly.spaces import Input

#: examples a pass when a model is only read
_READ = 256


@dataclass(frozen=True)
class Explainer:
    """A method that answers the same question about other models and other inputs.

    The class that is explained is settled once, from the model and inputs that it was made for: an explanation of a
    changed input is not one of another class. The draws are those of ``seed`` at every call.

    Attributes:
        method: with ``target="label"``.
        labels: (B,), what ``method`` takes for the labels: the explained class of each example, or the labels
            themselves where the explained number is computed from them; None for single outputs.
        seed: of the draws.
        chunk_size: points a pass; memory only.
    """

    method: Attribution
    labels: Tensor | None = None
    seed: int = 0
    chunk_size: int | None = None

    @classmethod
    def of(
        cls,
        method: str | Attribution,
        model: Model,
        inputs: Inputs,
        labels: Tensor | None = None,
        *,
        seed: int = 0,
        chunk_size: int | None = None,
        **arguments: Any,
    ) -> Explainer:
        """The question of a method about these examples.

        Args:
            method: a registered name with its ``arguments``, or an attribution.
            model: settles the class where ``target="predicted"``.
            inputs: (B, ...).
            labels: (B,); without them a method that is given by name explains the predicted class.
        """
        if isinstance(method, str):
            arguments = {"target": "predicted" if labels is None else "label"} | arguments
        built = copy.copy(build(method, arguments))
        asked = _asked(built, model, inputs, labels)
        built.target = "label"
        return cls(built, asked, seed, chunk_size)

    def __call__(self, model: Model, inputs: Inputs) -> Tensor:
        """Attributions (B, *F)."""
        return self.result(model, inputs, diagnostics=False).attributions

    def result(self, model: Model, inputs: Inputs, *, diagnostics: bool = True) -> AttributionResult:
        """Attributions with what is known of them."""
        return attribute(
            model,
            inputs,
            self.method,
            labels=self.labels,
            seed=self.seed,
            chunk_size=self.chunk_size,
            diagnostics=diagnostics,
        )

    def values(self, model: Model, inputs: Inputs) -> Tensor:
        """The explained number of each example, (B,)."""
        return explained(read(model, inputs), self.labels, self.labels, self.method.output)

    def take(self, index: Tensor) -> Explainer:
        """The same question about the examples ``index`` alone."""
        return replace(self, labels=None if self.labels is None else self.labels[index.to(self.labels.device)])

    def changed(self, **attributes: Any) -> Explainer:
        """The same with some of the method's attributes replaced."""
        method = copy.copy(self.method)
        for name, value in attributes.items():
            setattr(method, name, value)
        return replace(self, method=method)


def read(model: Model, inputs: Inputs) -> Tensor:
    """The model's outputs (B, ...) without a graph, dropout off and batch statistics frozen."""
    with autodiff.reading(model, trainable=False), torch.no_grad():
        parts = torch.arange(rows(inputs)).split(_READ)
        return torch.cat([outputs_of(call(model, take(inputs, part))) for part in parts])


def features(inputs: Inputs, attributions: Tensor | None = None) -> Tensor:
    """The inputs (B, *F), for measures that change them.

    Raises:
        ArgumentError: they are several tensors, or no floating point numbers, or not what the attributions explain.
    """
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        raise ArgumentError(
            "this measure changes the inputs, which it can do to one tensor only",
            expected="inputs: a floating point tensor (B, *F)",
            got=str(inputs.dtype) if isinstance(inputs, Tensor) else type(inputs).__name__,
            mend="wrap the model in a function of the tensor that is explained",
        )
    if attributions is not None and attributions.shape != inputs.shape:
        raise ArgumentError(
            "this measure sets attributions against inputs",
            expected=f"attributions shaped like the inputs, {tuple(inputs.shape)}",
            got=tuple(attributions.shape),
            mend="explain the input space",
        )
    return inputs


def in_input_space(explainer: Explainer) -> None:
    """Raise ``ArgumentError`` unless the method explains inputs: a layer's name means nothing in a changed model."""
    if not isinstance(explainer.method.space, Input):
        raise ArgumentError(
            "axioms are measured on changed models, in which a layer is not found by its name",
            expected="a method in the input space",
            got=repr(explainer.method.space),
            mend="measure completeness, which changes nothing",
        )


def _asked(method: Attribution, model: Model, inputs: Inputs, labels: Tensor | None) -> Tensor | None:
    """What the method is to take for labels so that it explains what its own target says."""
    output: Output = method.output
    outputs = read(model, inputs)
    if not needs_target(output, outputs):
        return labels
    if isinstance(method.target, str) and method.target == "predicted":
        return outputs.argmax(1)
    return resolve_target(method.target, labels, len(outputs), outputs.shape[1]).to(outputs.device)
