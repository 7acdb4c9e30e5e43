"""Soft labels at a temperature: a model's whole answer, for another (or the same) network to learn."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from rightly.core import autodiff
from rightly.core.batch import Inputs, Model, call, outputs_of, rows, take
from rightly.core.checks import check_number
from rightly.core.errors import ShapeError


def tempered(temperature: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Cross-entropy of scores divided by a temperature (Ross 2018, eq. 3.4 and 3.5): a loss for ``rt.Objective``.

    Returns:
        (outputs (B, K), labels) -> scalar; labels are class numbers (B,) or probabilities (B, K).
    """
    return partial(_tempered, check_number("temperature", temperature, positive=True))


def soft_labels(model: Model, inputs: Inputs, temperature: float = 1.0, *, batch_size: int = 256) -> Tensor:
    """The model's probabilities (N, K) at a temperature, dropout off and batch norm frozen.

    Defensive distillation (Papernot et al. 2016; Ross 2018, 3.2.2) trains a network with ``tempered(T)`` on the
    labels, and a fresh one with ``tempered(T)`` on the ``soft_labels(..., T)`` of the first; the fresh one is used as
    it is, at temperature 1. What looks like robustness there is gradients that underflow: see
    ``rt.evaluation.gradient_masking``.

    Args:
        model: inputs -> scores (B, K) before the softmax.
        inputs: N examples.
        temperature: that the scores are divided by.
        batch_size: examples a pass.
    """
    check_number("temperature", temperature, positive=True)
    found = []
    with autodiff.reading(model, trainable=False), torch.no_grad():
        for part in torch.arange(rows(inputs)).split(batch_size):
            scores = outputs_of(call(model, take(inputs, part)))
            if scores.ndim != 2 or scores.shape[1] < 2:
                raise ShapeError("soft labels are made of class scores", expected="(B, K), K > 1", got=scores.shape)
            found.append((scores / temperature).softmax(1))
    return torch.cat(found)


def _tempered(temperature: float, outputs: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(outputs / temperature, labels)
