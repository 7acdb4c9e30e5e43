"""LIME through the adapter: what it finds on models whose answer is known, the same twice, and one error without it."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import rightly as rt
from rightly.core.errors import MissingExtraError
from rightly.integrations.lime import check_installed, explain_image, explain_row, explain_text
from rightly.workflows.reproduce import reproduce


def two_classes(score: np.ndarray) -> np.ndarray:
    one = 1 / (1 + np.exp(-score))
    return np.stack([1 - one, one], 1)


@pytest.mark.parametrize("discretize", [False, True])
def test_a_table_is_explained_by_what_matters(discretize):
    rows = np.random.default_rng(0).normal(size=(100, 5))
    rows[3] = [2.0, 1, 0, 0, 0]
    arguments = {"target": 1, "n_features": 2, "n_samples": 500, "discretize": discretize}
    found = explain_row(lambda x: two_classes(3 * x[:, 0] - 1.5 * x[:, 1]), rows, rows[3], **arguments)
    assert set(found) == {0, 1}
    assert found[0] > 0 > found[1]
    assert abs(found[0]) > abs(found[1])
    other = explain_row(lambda x: two_classes(3 * x[:, 0] - 1.5 * x[:, 1]), rows, rows[3], **{**arguments, "target": 0})
    assert other[0] == pytest.approx(-found[0], rel=1e-6)


def test_a_text_is_explained_by_its_words():
    def predict(texts):
        return two_classes(np.array([3.0 * ("good" in t) - 2.0 * ("day" in t) for t in texts]))

    found = explain_text(predict, "this is a good day for all of us", target=1, n_samples=200)
    assert sorted(found, key=lambda word: -abs(found[word]))[:2] == ["good", "day"]
    assert found["good"] > 0 > found["day"]


def test_a_picture_is_explained_by_its_pieces():
    picture = np.zeros((28, 28))
    picture[2:8, 2:8] = 1.0
    picture[18:26, 12:20] = 0.6
    weights, pieces = explain_image(
        lambda x: two_classes(8 * x[:, 2:8, 2:8, 0].mean((1, 2)) - 4), picture, target=1, n_samples=150
    )
    assert pieces.shape == (28, 28)
    assert set(weights) == set(np.unique(pieces))
    assert len(weights) > 1


def test_explanations_are_the_same_twice(capfd):
    rows = np.random.default_rng(0).normal(size=(50, 3))
    picture = np.kron(np.eye(4), np.ones((7, 7)))

    def once():
        tabular = explain_row(lambda x: two_classes(x[:, 0]), rows, rows[0], target=1, n_samples=100, seed=3)
        text = explain_text(lambda t: two_classes(np.array([len(x) for x in t]) / 9.0), "a bc d", target=1, seed=3)
        image = explain_image(lambda x: two_classes(x.mean((1, 2, 3))), picture, target=1, n_samples=50, seed=3)[0]
        return tabular, text, image

    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    assert once() == once()
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002
    assert capfd.readouterr() == ("", "")  # LIME's bar is held back


def test_without_lime_one_error_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "lime", None)
    for name in [name for name in sys.modules if name.startswith("lime.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingExtraError, match=r"rightly\[lime\]"):
        check_installed()
    with pytest.raises(MissingExtraError, match=r"rightly\[lime\]"):
        explain_text(lambda texts: texts, "a", target=0)
    monkeypatch.setattr(rt, "fit", lambda *_, **__: pytest.fail("trained in vain"))
    with pytest.raises(MissingExtraError, match=r"rightly\[lime\]"):
        reproduce("lime-speed", out=tmp_path / "run", smoke=True, progress=False)
