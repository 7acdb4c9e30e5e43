"""How good a model is when nobody says how to tell, and whether it is better than knowing nothing of the inputs."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rightly.core.errors import ArgumentError
from rightly.core.scalar import single

Meaning = Literal["classes", "one-hot", "values"]


def meaning(labels: Tensor) -> Meaning:
    """What labels are, from themselves alone: class numbers (floats may be, of two classes), one-hot rows, or values.

    Whole numbers (N, 2) are a class and a group (``rt.with_groups``). Raises ``ArgumentError`` where it cannot be told.
    """
    columns = labels.shape[1:].numel()
    binary = bool(((labels == 0) | (labels == 1)).all())
    if columns == 1:
        return "values" if labels.is_floating_point() and not binary else "classes"
    if labels.ndim == 2 and columns == 2 and not labels.is_floating_point() and labels.dtype != torch.bool:
        return "classes"
    if labels.ndim == 2 and labels.is_floating_point():
        shares = bool((labels >= 0).all()) and bool(((labels.sum(1) - 1).abs() < 1e-3).all())
        if binary and shares:
            return "one-hot"
        if not binary and not shares:
            return "values"
    raise ArgumentError(
        "models cannot be scored: these labels may mean several things",
        expected="class numbers (N,), float one-hot rows or values (N, K)",
        got=f"{labels.dtype} {tuple(labels.shape)}",
        mend="pass score=, (outputs, labels) -> number, high is good",
    )


def check_scorable(outputs: Tensor, labels: Tensor) -> None:
    """Raise ``ArgumentError`` unless the outputs of some examples, (M, ...), have the shape that the labels ask for."""
    what, columns = meaning(labels), labels.shape[1:].numel()
    fits = {
        "classes": single(outputs) or outputs.ndim == 2,
        "one-hot": outputs.ndim == 2 and outputs.shape[1] == columns,
        "values": single(outputs) if columns == 1 else outputs.ndim == 2 and outputs.shape[1] == columns,
    }
    if not fits[what]:
        raise ArgumentError(
            f"models cannot be scored: labels {tuple(labels.shape)} are read as {what}",
            expected="(N, classes)" if what == "classes" else f"outputs (N, {columns})",
            got=tuple(outputs.shape),
            mend="pass score=, (outputs, labels) -> number, high is good",
        )


def default_score(outputs: Tensor, labels: Tensor) -> float:
    """Accuracy of classes (a single output speaks for class 1), R2 of values, a mean over columns."""
    check_scorable(outputs, labels)
    what = meaning(labels)
    if what == "values":
        values, truth = outputs.reshape(len(outputs), -1), labels.reshape(len(labels), -1)
        return float((1 - (values - truth).square().sum(0) / (truth - truth.mean(0)).square().sum(0)).mean())
    return float((_predicted(outputs) == _classes(labels)).double().mean())


def better_than_constant(outputs: Tensor, labels: Tensor, trained: Tensor) -> bool:
    """Whether a model is better than one answer for everybody, by more than chance.

    The answer is the most frequent class of the ``trained`` labels, or their mean where they are values. Example by
    example the model gains on it: it is right and the answer is not (+1), or the other way round (-1); of values, what
    it takes off the squared error, in units of the column's variance, a mean over columns. The mean gain has to be
    above two of its standard errors.
    """
    if meaning(labels) == "values":
        truth, given = (part.reshape(len(part), -1).double() for part in (labels, trained))
        errors = [(values - truth).square() for values in (outputs.reshape(len(outputs), -1).double(), given.mean(0))]
        unit = given.var(0, correction=0).clamp_min(torch.finfo(torch.float64).tiny)
        gain = ((errors[1] - errors[0]) / unit).mean(1)
    else:
        classes = _classes(labels)
        answer = _classes(trained).mode().values
        gain = (_predicted(outputs) == classes).double() - (answer == classes).double()
    return len(gain) > 1 and bool(gain.mean() > 2 * gain.std() / len(gain) ** 0.5)


def _classes(labels: Tensor) -> Tensor:
    """(N,) numbers."""
    if meaning(labels) == "one-hot":
        return labels.argmax(1)
    return labels.reshape(len(labels), -1)[:, 0].long()


def _predicted(outputs: Tensor) -> Tensor:
    """(N,), of class numbers; a single output speaks for class 1."""
    return (outputs.reshape(len(outputs)) > 0).long() if single(outputs) else outputs.argmax(1)
