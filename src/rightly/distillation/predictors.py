"""Simple models of wavelet coefficients: the largest of every scale and a linear model, or peak counts of maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.extras import require
from rightly.spaces import Wavelet

Task = Literal["classification", "regression"]
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class WaveletPredictor:
    """A linear model of the largest coefficients of every scale (Singh, Ha, Yu 2022, section 4.1).

    Attributes:
        transform: (F, n) the whole wavelet transform of a flat signal, float32.
        scales: the rows of ``transform`` that belong to each scale.
        largest: how many coefficients of a scale are used, the largest first; all where there are fewer.
        weights, bias: of the linear model, (K, features) and (K,): one row for regression and two classes.
        task: what it predicts.
        cross_validated: mean score over the folds of the training data: R2; area under the ROC curve for two classes;
            minus the log loss for more.
    """

    transform: Array
    scales: tuple[slice, ...]
    largest: int
    weights: Array
    bias: Array
    task: Task
    cross_validated: float

    def features(self, signals: Tensor | Array) -> Array:
        """The largest coefficients of every scale: (N, *X) -> (N, features)."""
        return _largest(_flat(signals) @ self.transform.T, self.scales, self.largest)

    def __call__(self, signals: Tensor | Array) -> Array:
        """What the linear model says: (N,) values, or log-odds of the second class; (N, K) scores for K classes."""
        scores = self.features(signals) @ self.weights.T + self.bias
        return scores[:, 0] if scores.shape[1] == 1 else scores


def _flat(signals: Tensor | Array) -> Array:
    values = signals.detach().cpu().numpy() if isinstance(signals, Tensor) else np.asarray(signals)
    return np.ascontiguousarray(values.reshape(len(values), -1), dtype=np.float32)


def _largest(coefficients: Array, scales: Sequence[slice], largest: int) -> Array:
    return np.concatenate([np.sort(coefficients[:, scale], axis=1)[:, ::-1][:, :largest] for scale in scales], 1)


def fit_predictor(
    wavelets: Wavelet | Sequence[Wavelet],
    signals: Tensor,
    labels: Tensor,
    *,
    task: Task,
    largest: int = 6,
    folds: int = 5,
    seed: int = 0,
) -> tuple[WaveletPredictor, int]:
    """The linear model on the wavelet that cross-validates best, on training data alone.

    Args:
        wavelets: spaces to choose from (``rt.distill_wavelet(...).space()``, ``rt.spaces.Wavelet("db5", 4)``).
        signals: (N, *X) to train on.
        labels: (N,) values, or class numbers.
        task: ``"regression"``: ridge regression, R2 decides. ``"classification"``: logistic regression, the area under
            the ROC curve decides (log loss with more than two classes).
        largest: coefficients of every scale.
        folds, seed: of the cross-validation, which also chooses the strength of the ridge.

    Returns:
        The predictor, and the position of its wavelet in ``wavelets``.

    Raises:
        ArgumentError, ShapeError: an argument cannot be used.
        MissingExtraError: scikit-learn is not installed.
    """
    spaces = [wavelets] if isinstance(wavelets, Wavelet) else list(wavelets)
    check_count("largest", largest)
    check_count("folds", folds, least=2)
    if task not in ("classification", "regression"):
        raise ArgumentError("unknown task", expected="'classification' or 'regression'", got=repr(task))
    if not spaces or not all(isinstance(space, Wavelet) for space in spaces):
        raise ArgumentError("a wavelet is chosen from some", expected="rt.spaces.Wavelet, or several", got=wavelets)
    if labels.shape != signals.shape[:1]:
        raise ShapeError("a label for every signal", expected=(len(signals),), got=tuple(labels.shape))
    found = [_fitted(space, signals, labels.cpu().numpy(), task, largest, folds, seed) for space in spaces]
    best = max(range(len(found)), key=lambda position: found[position].cross_validated)
    return found[best], best


def _fitted(
    space: Wavelet, signals: Tensor, labels: Array, task: Task, largest: int, folds: int, seed: int
) -> WaveletPredictor:
    shape = tuple(signals.shape[1:])
    transform, scales = _whole(space, shape)
    features = _largest(_flat(signals) @ transform.T, scales, largest).astype(np.float64)
    linear, selection = require("sklearn.linear_model"), require("sklearn.model_selection")
    scaler, pipeline = require("sklearn.preprocessing"), require("sklearn.pipeline")
    if task == "regression":
        model, grid, scoring = linear.Ridge(), {"ridge__alpha": np.logspace(-3, 4, 8)}, "r2"
        split = selection.KFold(folds, shuffle=True, random_state=seed)
    else:
        two = len(np.unique(labels)) == 2
        model = linear.LogisticRegression(max_iter=2000)
        grid, scoring = {"logisticregression__C": np.logspace(-4, 3, 8)}, "roc_auc" if two else "neg_log_loss"
        split = selection.StratifiedKFold(folds, shuffle=True, random_state=seed)
    whole = pipeline.make_pipeline(scaler.StandardScaler(), model)
    search = selection.GridSearchCV(whole, grid, scoring=scoring, cv=split).fit(features, labels)
    standard, head = search.best_estimator_[0], search.best_estimator_[1]
    weights = np.atleast_2d(head.coef_) / standard.scale_
    bias = np.atleast_1d(head.intercept_) - weights @ standard.mean_
    single = np.float32
    return WaveletPredictor(
        transform, scales, largest, weights.astype(single), bias.astype(single), task, float(search.best_score_)
    )


def _whole(space: Wavelet, shape: tuple[int, ...]) -> tuple[Array, tuple[slice, ...]]:
    """The transform as one matrix, its rows sorted by scale."""
    size = int(np.prod(shape))
    with torch.no_grad():
        columns = space.encode(torch.eye(size, dtype=torch.float64).reshape(size, *shape)).flatten(1)
    order = [scale.flatten().nonzero()[:, 0] for scale in space.scales(shape)]
    ends = np.cumsum([0, *(len(rows) for rows in order)]).tolist()
    slices = tuple(slice(start, stop) for start, stop in pairwise(ends))
    return columns.T[torch.cat(order)].numpy().astype(np.float32), slices
