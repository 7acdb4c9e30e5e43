"""Which number of a model's output is explained: the ``output`` and ``target`` of DESIGN section 3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from rightly.core.errors import ArgumentError, ShapeError

OutputName = Literal["logit", "prob", "log_prob", "log_odds", "log_prob_sum", "loss", "loss_uniform"]
Output = OutputName | Callable[[Tensor, Tensor | None], Tensor]
Target = Literal["label", "predicted"] | int | Tensor

#: outputs that single out one class, so that ``target`` matters
_OF_ONE_CLASS = ("logit", "prob", "log_prob", "log_odds")


def check_output(output: Output) -> Output:
    """Raise ``ArgumentError`` unless ``output`` is a known name or a callable."""
    if callable(output) or output in get_args(OutputName):
        return output
    raise ArgumentError(
        "unknown output",
        expected=f"one of {', '.join(get_args(OutputName))}, or a callable (outputs, labels) -> (B,)",
        got=repr(output),
    )


def check_target(target: Target) -> Target:
    """Raise ``ArgumentError`` unless ``target`` is 'label', 'predicted', an int or an integer tensor (B,)."""
    if isinstance(target, Tensor):
        if target.ndim == 1 and not target.is_floating_point():
            return target
        got: object = f"a {target.dtype} tensor of shape {tuple(target.shape)}"
    elif isinstance(target, str) and target in ("label", "predicted"):
        return target
    elif isinstance(target, bool) or not isinstance(target, int):
        got = repr(target)
    else:
        return target
    raise ArgumentError(
        "unknown target", expected="'label', 'predicted', a class number, or an integer tensor (B,)", got=got
    )


def single(outputs: Tensor) -> bool:
    """Whether the model gives one number an example: a regression, or the logit of the positive class."""
    return outputs.ndim == 1 or (outputs.ndim == 2 and outputs.shape[1] == 1)


def needs_target(output: Output, outputs: Tensor) -> bool:
    """Whether a class has to be singled out; single outputs are explained as they are."""
    return output in _OF_ONE_CLASS and not single(outputs)


def resolve_target(target: Target, labels: Tensor | None, batch: int, classes: int) -> Tensor:
    """The class explained for each of ``batch`` examples, (B,) int64, for targets other than ``"predicted"``.

    Raises:
        ArgumentError: labels are missing or no class numbers, or a class does not exist.
        ShapeError: the tensor does not count the examples.
    """
    if isinstance(target, int):
        chosen = torch.full((batch,), target)
    else:
        chosen = target if isinstance(target, Tensor) else _class_labels(labels)
    if chosen.shape != (batch,):
        raise ShapeError("target has the wrong shape", expected=(batch,), got=tuple(chosen.shape))
    if bool(((chosen < 0) | (chosen >= classes)).any()):
        raise ArgumentError(
            "target names a class that the model does not have",
            expected=f"0 to {classes - 1}",
            got=f"{int(chosen.min())} to {int(chosen.max())}",
        )
    return chosen.long()


def _class_labels(labels: Tensor | None) -> Tensor:
    if labels is None:
        raise ArgumentError(
            "labels are needed to know the class",
            expected="labels (B,)",
            got=None,
            mend="pass labels, or choose target='predicted' or a class number",
        )
    if labels.ndim != 1 or labels.is_floating_point():
        raise ArgumentError(
            "labels must be class numbers here",
            expected="an integer tensor (B,)",
            got=f"{labels.dtype} {tuple(labels.shape)}",
            mend="pass target='predicted', a class number, or an integer tensor (B,)",
        )
    return labels


def explained(outputs: Tensor, labels: Tensor | None, target: Tensor | None, output: Output) -> Tensor:
    """The explained number of each example.

    Args:
        outputs: (M, C) scores of a classifier before the softmax, or (M,) / (M, 1): a regression's value
            or the logit of the positive class, which is then what is explained whatever the target.
        labels: (M,) or None; read by ``"loss"`` and callables only.
        target: (M,) class numbers, or None for single outputs.
        output: what to read off.

    Returns:
        (M,). Cross-entropy is meant by ``"loss"`` (binary for a single output); ``"loss_uniform"`` is the
        cross-entropy against the uniform distribution (Ross 2018, certainty sensitivity). ``"log_odds"`` is the class
        against all others, log p - log(1 - p): its gradient points where those of p, log p and the class'
        cross-entropy do, and does not vanish where the model is sure.
    """
    if callable(output):
        return _checked(output(outputs, labels), outputs)
    if single(outputs):
        return _of_single(outputs.reshape(outputs.shape[0]), labels, output)
    if outputs.ndim != 2:
        raise ShapeError(
            f"output={output!r} reads class scores",
            expected="model outputs (B,), (B, 1) or (B, classes)",
            got=tuple(outputs.shape),
            mend="pass output=callable(outputs, labels) -> (B,)",
        )
    if output == "logit":
        return _pick(outputs, target)
    if output == "log_odds":
        return _against_others(outputs, target)
    log_prob = F.log_softmax(outputs, 1)
    if output == "log_prob_sum":
        return log_prob.sum(1)
    if output == "loss_uniform":
        return -log_prob.mean(1)
    if output == "loss":
        return -_pick(log_prob, _class_labels(labels).long())
    return _pick(log_prob if output == "log_prob" else log_prob.exp(), target)


def _pick(scores: Tensor, target: Tensor | None) -> Tensor:
    if target is None:
        raise ArgumentError("a class has to be chosen", expected="a target", got=None)
    return scores.gather(1, target[:, None])[:, 0]


def _against_others(scores: Tensor, target: Tensor | None) -> Tensor:
    own = _pick(scores, target)
    others = torch.ones_like(scores, dtype=torch.bool).scatter(1, target[:, None], False)  # type: ignore[index]
    return own - scores.masked_fill(~others, -torch.inf).logsumexp(1)


def _of_single(logit: Tensor, labels: Tensor | None, output: str) -> Tensor:
    if output in ("logit", "log_odds"):
        return logit
    if output == "prob":
        return torch.sigmoid(logit)
    if output == "log_prob":
        return F.logsigmoid(logit)
    if output == "log_prob_sum":
        return F.logsigmoid(logit) + F.logsigmoid(-logit)
    if output == "loss_uniform":
        return -(F.logsigmoid(logit) + F.logsigmoid(-logit)) / 2
    if labels is None:
        raise ArgumentError("output='loss' needs labels", expected="labels (B,)", got=None)
    if labels.numel() != logit.numel():
        raise ShapeError("labels come one an example", expected=tuple(logit.shape), got=tuple(labels.shape))
    truth = labels.reshape(logit.shape).to(logit)
    if bool(((truth < 0) | (truth > 1)).any()):
        raise ArgumentError(
            "output='loss' of a single output means binary cross-entropy",
            expected="labels between 0 and 1",
            got=f"{float(truth.min()):g} to {float(truth.max()):g}",
            mend="for a regression pass output=lambda outputs, labels: (outputs[:, 0] - labels) ** 2",
        )
    return F.binary_cross_entropy_with_logits(logit, truth, reduction="none")


def _checked(value: Tensor, outputs: Tensor) -> Tensor:
    if not isinstance(value, Tensor):
        raise ArgumentError(
            "the output callable must give a tensor", expected="a tensor (B,)", got=type(value).__name__
        )
    if value.shape != outputs.shape[:1]:
        raise ShapeError(
            "the output callable must give one number an example",
            expected=tuple(outputs.shape[:1]),
            got=tuple(value.shape),
        )
    return value
