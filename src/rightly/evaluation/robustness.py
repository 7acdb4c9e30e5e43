"""Curves over the severity of noise and corruption: of a model's predictions, or of its explanations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from rightly.core import seeding
from rightly.core.batch import Model
from rightly.core.checks import check_count, check_number
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.types import View
from rightly.evaluation.explainer import features, read
from rightly.evaluation.metrics import Task, predictions, score
from rightly.evaluation.statistics import Interval, interval
from rightly.references import Blur

Corruption = Callable[[Tensor, float, torch.Generator], Tensor]


def blur(inputs: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """A Gaussian blur of standard deviation ``severity`` in pixels, for (B, C, H, W)."""
    if severity == 0:
        return inputs.clone()
    if inputs.ndim != 4:
        raise ShapeError("only images are blurred", expected="(B, C, H, W)", got=tuple(inputs.shape))
    view = View(inputs, inputs, lambda x: inputs, lambda points, rows: points)
    return Blur(severity).draw(view, 1, generator).all(len(inputs), inputs.device)[:, 0]


def occlusion(inputs: Tensor, severity: float, generator: torch.Generator) -> Tensor:
    """A share ``severity`` of each example is hidden: a square in a random place of images, random features otherwise.

    What is hidden shows the mean of the examples there.
    """
    _check_share(severity)
    batch, mean = len(inputs), inputs.mean(0)
    if inputs.ndim != 4:
        order = torch.rand(batch, inputs[0].numel(), generator=generator, dtype=torch.float64).argsort(1).argsort(1)
        gone = (order < round(severity * inputs[0].numel())).reshape(inputs.shape)
        return torch.where(gone.to(inputs.device), mean, inputs)
    hidden = torch.ones(batch, 1, *inputs.shape[2:], dtype=torch.bool)
    for dim, size in enumerate(inputs.shape[2:], start=2):
        side = round(severity**0.5 * size)
        start = torch.randint(size - side + 1, (batch, 1), generator=generator)
        places = torch.arange(size)
        along = (places >= start) & (places < start + side)
        hidden &= along.reshape(batch, 1, *(size if d == dim else 1 for d in (2, 3)))
    return torch.where(hidden.to(inputs.device), mean, inputs)


@dataclass(frozen=True)
class Curve:
    """A measure against severity.

    Attributes:
        severities: (S,).
        intervals: (S,), each the mean over the repeats of the noise with its 95 % interval.
    """

    severities: tuple[float, ...]
    intervals: tuple[Interval, ...]

    @property
    def means(self) -> tuple[float, ...]:
        """(S,)."""
        return tuple(found.mean for found in self.intervals)


def robustness_curve(
    measure: Callable[[Tensor], float],
    inputs: Tensor,
    corruption: Corruption,
    severities: Sequence[float],
    *,
    repeats: int = 5,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    seed: int = 0,
) -> Curve:
    """A measure of corrupted inputs against how badly they are corrupted.

    Args:
        measure: corrupted inputs (B, *F) -> number: ``predicting(model, labels, "accuracy", task)``, or for
            explanations ``lambda x: float(cosine(explain(x), explain(inputs)).mean())``.
        inputs: (B, *F).
        corruption: (inputs, severity, generator) -> inputs: ``blur`` and ``occlusion`` here, the papers' noises in
            ``rt.data.NOISES``.
        severities: what each means is said by the corruption; 0 is none.
        repeats: draws of the noise; those of one repeat have the same seed at every severity.
        bounds: of the measure, to which intervals are cut.
    """
    check_count("repeats", repeats)
    x = features(inputs)
    for severity in severities:
        check_number("severity", severity, positive=False)
    values = [
        [measure(corruption(x, severity, seeding.generator("corruption", seed, k))) for k in range(repeats)]
        for severity in severities
    ]
    return Curve(tuple(float(s) for s in severities), tuple(interval(found, bounds) for found in values))


def predicting(model: Model, labels: Tensor, metric: str, task: Task) -> Callable[[Tensor], float]:
    """How well the model predicts, as a function of inputs (B, *F); see ``METRICS``."""
    return partial(_score, model, labels.flatten().cpu().numpy(), metric, task)


def _score(model: Model, labels: np.ndarray, metric: str, task: Task, inputs: Tensor) -> float:
    return score(labels, predictions(read(model, inputs), task), [metric])[metric]


def _check_share(severity: float) -> None:
    if not 0 <= severity <= 1:
        raise ArgumentError("this severity is a share of the values", expected="0 to 1", got=severity)
