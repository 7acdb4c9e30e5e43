"""How well a model predicts; the formulas are scikit-learn's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.extras import require

Task = Literal["classification", "regression"]
Array = np.ndarray[tuple[int, ...], np.dtype[np.floating]]


@dataclass(frozen=True)
class Metric:
    """One number about predictions.

    Attributes:
        name: in records.
        higher_is_better: its direction.
        bounds: the values it can take, which an interval is cut to.
        measure: (labels (N,), predictions) -> number; predictions are probabilities (N, C), or values (N,).
    """

    name: str
    higher_is_better: bool
    bounds: tuple[float, float]
    measure: Callable[[Array, Array], float]


def _auc(labels: Array, probabilities: Array) -> float:
    if (seen := len(np.unique(labels))) < probabilities.shape[1]:
        raise ArgumentError(
            "the area under the curve needs every class among the labels",
            expected=f"{probabilities.shape[1]} classes",
            got=f"{seen} in {len(labels)} examples",
            mend="measure on more examples, or split by class",
        )
    if probabilities.shape[1] == 2:
        # Mann and Whitney's form: scikit-learn checks its arguments for longer than a small area takes
        ranks, positive = require("scipy.stats").rankdata(probabilities[:, 1]), labels == labels.max()
        ones, others = int(positive.sum()), int((~positive).sum())
        return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * others))
    scores = require("sklearn.metrics")
    return float(scores.roc_auc_score(labels, probabilities, multi_class="ovr", labels=range(probabilities.shape[1])))


def _log_loss(labels: Array, probabilities: Array) -> float:
    clipped = np.clip(probabilities.astype(np.float64), 1e-15, 1)
    return float(-np.log(clipped[np.arange(len(labels)), labels.astype(np.int64)]).mean())


def _balanced_accuracy(labels: Array, probabilities: Array) -> float:
    right = probabilities.argmax(1) == labels
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


_SHARE, _POSITIVE = (0.0, 1.0), (0.0, math.inf)

METRICS = {
    "auc": Metric("auc", True, _SHARE, _auc),
    "accuracy": Metric("accuracy", True, _SHARE, lambda y, p: float((p.argmax(1) == y).mean())),
    "balanced_accuracy": Metric("balanced_accuracy", True, _SHARE, _balanced_accuracy),
    "log_loss": Metric("log_loss", False, _POSITIVE, _log_loss),
    "r2": Metric("r2", True, (-math.inf, 1.0), lambda y, p: float(require("sklearn.metrics").r2_score(y, p))),
    "rmse": Metric("rmse", False, _POSITIVE, lambda y, p: float(np.sqrt(np.mean((y - p) ** 2)))),
    "mae": Metric("mae", False, _POSITIVE, lambda y, p: float(np.abs(y - p).mean())),
}


def metrics_for(task: Task) -> list[str]:
    """The metrics that a task is reported with, the headline first."""
    return ["auc", "accuracy", "balanced_accuracy", "log_loss"] if task == "classification" else ["r2", "rmse", "mae"]


def predictions(outputs: Tensor, task: Task) -> np.ndarray:
    """What metrics read: probabilities (N, C), two columns for a single logit; or values (N,) of a regression."""
    outputs = outputs.detach().float().cpu()
    if task == "regression":
        return outputs.reshape(len(outputs)).numpy()
    if outputs.ndim == 1 or outputs.shape[1] == 1:
        positive = torch.sigmoid(outputs.reshape(-1).double())
        return torch.stack([1 - positive, positive], 1).numpy()
    return torch.softmax(outputs.double(), 1).numpy()


def score(labels: Array, predictions: Array, names: list[str]) -> dict[str, float]:
    """Metrics by name.

    Args:
        labels: (N,), class numbers or values.
        predictions: probabilities (N, C) for a classification, values (N,) for a regression.
        names: see ``METRICS``.

    Raises:
        ArgumentError: a metric is not known or cannot be computed, predictions are not finite, or labels are no classes
            0 to C - 1.
        ShapeError: labels and predictions do not fit.
    """
    if unknown := [name for name in names if name not in METRICS]:
        raise ArgumentError("unknown metric", expected=", ".join(METRICS), got=", ".join(unknown))
    if not np.isfinite(predictions).all():
        raise ArgumentError("predictions must be finite", expected="finite numbers", got="NaN or infinity")
    for name in names:
        dims = 2 if name in metrics_for("classification") else 1
        # a column (N, 1) against (N,) would broadcast to N x N differences
        if labels.ndim != 1 or predictions.ndim != dims or len(labels) != len(predictions) or len(labels) == 0:
            raise ShapeError(
                f"{name} cannot compare these",
                expected="labels (N,) and " + ("probabilities (N, C)" if dims == 2 else "values (N,)"),
                got=f"labels {labels.shape} and predictions {predictions.shape}",
            )
        if dims == 2:
            check_classes(labels, predictions.shape[1])
    return {name: METRICS[name].measure(labels, predictions) for name in names}


def check_classes(labels: Array, classes: int) -> None:
    """Raise ``ArgumentError`` unless labels are whole numbers from 0 to ``classes`` - 1."""
    whole = np.issubdtype(labels.dtype, np.integer) or labels.dtype == np.bool_ or (labels == np.floor(labels)).all()
    if not whole or labels.min() < 0 or labels.max() >= classes:
        raise ArgumentError(
            "labels count the columns of the predictions",
            expected=f"class numbers 0 to {classes - 1}",
            got=", ".join(map(str, np.unique(labels)[:5].tolist())),
            mend="number the classes from 0 in the order of the columns",
        )
