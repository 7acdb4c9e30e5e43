"""How well a model predicts; the formulas are scikit-learn's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rightly.core.errors import ArgumentError
from rightly.core.extras import require

Task = Literal["classification", "regression"]
Array = np.ndarray[tuple[int, ...], np.dtype[np.floating]]


@dataclass(frozen=True)
class Metric:
    """One number about predictions.

    Attributes:
        name: in records.
        higher_is_better: its direction.
        measure: (labels (N,), predictions) -> number; predictions are probabilities (N, C), or values (N,).
    """

    name: str
    higher_is_better: bool
    measure: Callable[[Array, Array], float]


def _auc(labels: Array, probabilities: Array) -> float:
    scores = require("sklearn.metrics")
    if probabilities.shape[1] == 2:
        return float(scores.roc_auc_score(labels, probabilities[:, 1]))
    return float(scores.roc_auc_score(labels, probabilities, multi_class="ovr", labels=range(probabilities.shape[1])))


def _log_loss(labels: Array, probabilities: Array) -> float:
    clipped = np.clip(probabilities.astype(np.float64), 1e-15, 1)
    return float(-np.log(clipped[np.arange(len(labels)), labels.astype(np.int64)]).mean())


METRICS = {
    "auc": Metric("auc", True, _auc),
    "accuracy": Metric("accuracy", True, lambda y, p: float((p.argmax(1) == y).mean())),
    "balanced_accuracy": Metric(
        "balanced_accuracy",
        True,
        lambda y, p: float(require("sklearn.metrics").recall_score(y, p.argmax(1), average="macro")),
    ),
    "log_loss": Metric("log_loss", False, _log_loss),
    "r2": Metric("r2", True, lambda y, p: float(require("sklearn.metrics").r2_score(y, p))),
    "rmse": Metric("rmse", False, lambda y, p: float(np.sqrt(np.mean((y - p) ** 2)))),
    "mae": Metric("mae", False, lambda y, p: float(np.abs(y - p).mean())),
}


def metrics_for(task: Task) -> list[str]:
    """The metrics that a task is reported with, the headline first."""
    return ["auc", "accuracy", "balanced_accuracy", "log_loss"] if task == "classification" else ["r2", "rmse", "mae"]


def score(labels: Array, predictions: Array, names: list[str]) -> dict[str, float]:
    """Metrics by name. Raises ``ArgumentError`` for one that is not known or predictions that are not finite."""
    if unknown := [name for name in names if name not in METRICS]:
        raise ArgumentError("unknown metric", expected=", ".join(METRICS), got=", ".join(unknown))
    if not np.isfinite(predictions).all():
        raise ArgumentError("predictions must be finite", expected="finite numbers", got="NaN or infinity")
    return {name: METRICS[name].measure(labels, predictions) for name in names}
