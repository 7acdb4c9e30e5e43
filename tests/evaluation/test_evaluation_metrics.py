"""Metrics against scikit-learn, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics as sk

from rightly.core.errors import ArgumentError, ShapeError
from rightly.evaluation import METRICS, metrics_for, score

ALL = metrics_for("classification")


def classified(n: int, classes: int, seed: int, dtype=np.float64) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    logits = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[labels]
    odds = np.exp(logits)
    return labels, (odds / odds.sum(1, keepdims=True)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("seed", [0, 1])
def test_classification_is_scikit_learn_s(classes, seed, dtype):
    labels, p = classified(60, classes, seed, dtype)
    found = score(labels, p, ALL)
    auc = sk.roc_auc_score(labels, p[:, 1]) if classes == 2 else sk.roc_auc_score(labels, p, multi_class="ovr")
    assert list(found) == ALL == ["auc", "accuracy", "balanced_accuracy", "log_loss"]
    assert found["auc"] == pytest.approx(auc, rel=1e-12)
    assert found["accuracy"] == sk.accuracy_score(labels, p.argmax(1))
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, p.argmax(1)), rel=1e-12)
    assert found["log_loss"] == pytest.approx(sk.log_loss(labels, p), rel=1e-6)
    assert all(type(value) is float for value in found.values())


def test_regression_is_scikit_learn_s():
    rng = np.random.default_rng(0)
    labels = rng.normal(size=50)
    predictions = labels + rng.normal(size=50)
    found = score(labels, predictions, metrics_for("regression"))
    assert list(found) == ["r2", "rmse", "mae"]
    assert found["r2"] == pytest.approx(sk.r2_score(labels, predictions), rel=1e-12)
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(labels, predictions), rel=1e-12)
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(labels, predictions), rel=1e-12)


def test_directions_are_true():
    labels, p = classified(60, 3, 0)
    perfect = np.eye(3)[labels] * 0.97 + 0.01
    better, worse = score(labels, perfect, ALL), score(labels, p, ALL)
    for name in ALL:
        assert (better[name] > worse[name]) == METRICS[name].higher_is_better
    y = np.arange(9.0)
    better, worse = (score(y, y + off, metrics_for("regression")) for off in (0.1, 1.0))
    for name in metrics_for("regression"):
        assert (better[name] > worse[name]) == METRICS[name].higher_is_better


def test_every_metric_is_reported_for_one_task_and_under_its_own_name():
    assert sorted([*ALL, *metrics_for("regression")]) == sorted(METRICS)
    assert all(name == metric.name for name, metric in METRICS.items())


def test_certain_and_wrong_is_a_finite_log_loss():
    assert score(np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]]), ["log_loss"])["log_loss"] == pytest.approx(
        -np.log(1e-15) / 2
    )


def test_balanced_accuracy_counts_the_classes_that_are_there():
    # a class that is predicted and never true is no class to be recalled
    labels, p = np.array([0, 0, 1, 1]), np.eye(3)[[0, 2, 1, 1]]
    assert score(labels, p, ["balanced_accuracy"])["balanced_accuracy"] == 0.75


@pytest.mark.parametrize("classes", [2, 3])
def test_an_area_without_one_of_the_classes_is_refused(classes):
    labels, p = np.zeros(5, int), np.full((5, classes), 1 / classes)
    with pytest.raises(ArgumentError, match="every class"):
        score(labels, p, ["auc"])


def test_unknown_metrics_and_predictions_that_are_not_finite_are_refused():
    with pytest.raises(ArgumentError, match="unknown metric") as caught:
        score(np.zeros(3), np.zeros(3), ["r2", "acc", "f1"])
    assert caught.value.got == "acc, f1"
    with pytest.raises(ArgumentError, match="finite"):
        score(np.zeros(3), np.array([0.0, np.nan, 1.0]), ["mae"])


@pytest.mark.parametrize(
    ("labels", "predictions", "name"),
    [
        (np.zeros(4), np.zeros((4, 1)), "rmse"),  # would broadcast to 4 x 4 differences
        (np.zeros((4, 1)), np.zeros(4), "mae"),
        (np.zeros(4), np.zeros(3), "r2"),
        (np.zeros(4, int), np.zeros(4), "accuracy"),
        (np.zeros(3, int), np.full((4, 2), 0.5), "accuracy"),
        (np.zeros((4, 1), int), np.full((4, 2), 0.5), "log_loss"),
        (np.zeros(0), np.zeros(0), "mae"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(labels, predictions, name):
    with pytest.raises(ShapeError, match=name):
        score(labels, predictions, [name])


@pytest.mark.parametrize("labels", [[-1, 0, 1, 0], [1, 2, 2, 1], [0.0, 0.5, 1.0, 0.0], [0.0, math.nan, 1.0, 0.0]])
@pytest.mark.parametrize("name", ["auc", "accuracy", "balanced_accuracy", "log_loss"])
def test_labels_that_count_no_column_are_refused(labels, name):
    found = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]])
    with pytest.raises(ArgumentError, match="class numbers 0 to 1"):
        score(np.array(labels), found, [name])
    for sound in ([0, 1, 1, 0], [0.0, 1.0, 1.0, 0.0], [False, True, True, False]):
        assert math.isfinite(score(np.array(sound), found, [name])[name])
