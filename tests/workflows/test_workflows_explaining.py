"""``rightly explain``: the rows add up, in the units a person knows, for tables and pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rightly.core.errors import CheckpointError
from rightly.workflows.explaining import explain_run
from workflows.made import classes, module, pictures, table
from workflows.small_jobs import fit


def _explained(run: Path, data: Path, samples: int = 50, seed: int = 0) -> tuple[pd.DataFrame, str]:
    out = run.parent / "found.csv"
    told = explain_run(run, data, out, samples=samples, seed=seed, progress=False)
    return pd.read_csv(out), told


def _adds_up(found: pd.DataFrame, columns: list[str], scale: float) -> None:
    left = found[columns].sum(axis=1)
    right = found["explained"] - found["base"] + found["gap"]
    np.testing.assert_allclose(left, right, atol=1e-5 * scale)
    assert found["gap"].abs().mean() < 0.2 * scale


def test_two_classes(tmp_path: Path) -> None:
    classes().to_csv(tmp_path / "people.csv", index=False)
    fit(tmp_path / "people.csv", tmp_path / "run", label="y", seeds=1)
    found, told = _explained(tmp_path / "run", tmp_path / "people.csv")
    assert list(found) == [
        "example", "prediction", "probability", "a", "b", "c", "colour", "explained", "base", "gap",
    ]  # fmt: skip
    _adds_up(found, ["a", "b", "c", "colour"], 1)
    # the explained number is the logit of the second class
    chance = 1 / (1 + np.exp(-found["explained"]))
    np.testing.assert_allclose(found["probability"], np.maximum(chance, 1 - chance), atol=1e-6)
    assert (found["prediction"] == np.where(chance > 0.5, "yes", "no")).all()
    assert "120 examples explained" in told


def test_a_regression_in_its_own_unit(tmp_path: Path) -> None:
    frame = table()
    frame.assign(price=1000 + 50 * frame.pop("score")).to_csv(tmp_path / "prices.csv", index=False)
    fit(tmp_path / "prices.csv", tmp_path / "run", label="price", seeds=1, epochs=20)
    found, _ = _explained(tmp_path / "run", tmp_path / "prices.csv")
    _adds_up(found, ["a", "b", "c", "colour"], 50)
    np.testing.assert_allclose(found["explained"], found["prediction"], rtol=1e-5)
    assert found["base"].mean() == pytest.approx(found["prediction"].mean(), rel=0.05)
    assert found["a"].abs().mean() > 5


def test_three_classes_explain_the_predicted_one(tmp_path: Path) -> None:
    frame = table()
    frame["y"] = np.digitize(frame.pop("score"), [-1, 1.5])
    frame.to_csv(tmp_path / "three.csv", index=False)
    fit(tmp_path / "three.csv", tmp_path / "run", label="y", seeds=1)
    found, _ = _explained(tmp_path / "run", tmp_path / "three.csv")
    _adds_up(found, ["a", "b", "c", "colour"], 1)


def test_columns_named_like_ours_are_kept_apart(tmp_path: Path) -> None:
    frame = classes().rename(columns={"a": "prediction", "b": "gap", "c": "example"})
    frame.to_csv(tmp_path / "people.csv", index=False)
    fit(tmp_path / "people.csv", tmp_path / "run", label="y", seeds=1)
    found, _ = _explained(tmp_path / "run", tmp_path / "people.csv")
    assert set(found["prediction"]) <= {"yes", "no"}
    _adds_up(found, ["prediction (column)", "gap (column)", "example (column)", "colour"], 1)


def test_the_label_is_not_needed_and_few_rows_are_enough(tmp_path: Path) -> None:
    classes().to_csv(tmp_path / "people.csv", index=False)
    fit(tmp_path / "people.csv", tmp_path / "run", label="y", seeds=1)
    classes(3, seed=7).drop(columns="y").to_csv(tmp_path / "new.csv", index=False)
    found, _ = _explained(tmp_path / "run", tmp_path / "new.csv")
    assert len(found) == 3
    _adds_up(found, ["a", "b", "c", "colour"], 1)
    assert np.ptp(found["base"]) < 1e-6  # all are compared with the training mean


def test_the_seed_decides(tmp_path: Path) -> None:
    classes(60).to_csv(tmp_path / "people.csv", index=False)
    fit(tmp_path / "people.csv", tmp_path / "run", label="y", seeds=1)
    first, again, other = (_explained(tmp_path / "run", tmp_path / "people.csv", 5, s)[0] for s in (0, 0, 1))
    assert first.equals(again)
    assert not first.equals(other)


@pytest.mark.parametrize("flat", [False, True])
def test_pictures(flat: bool, tmp_path: Path) -> None:
    root = pictures(tmp_path / "pets", height=16, width=18)
    fit(root, tmp_path / "run", seeds=1, epochs=1)
    given = root / "cat" if flat else root
    found, told = _explained(tmp_path / "run", given, 5)
    with np.load(tmp_path / "found.npz") as arrays:
        attributions, names = arrays["attributions"], arrays["names"]
    assert attributions.shape == ((10 if flat else 20), 1, 16, 18)
    assert list(names) == list(found["example"])
    assert found["example"][0] == ("0.png" if flat else "cat/0.png")
    np.testing.assert_allclose(
        attributions.sum((1, 2, 3)), found["explained"] - found["base"] + found["gap"], atol=1e-4
    )
    assert "resized" not in told


def test_pictures_of_another_size_are_resized_and_said_to_be(tmp_path: Path) -> None:
    fit(pictures(tmp_path / "pets"), tmp_path / "run", seeds=1, epochs=1)
    found, told = _explained(tmp_path / "run", pictures(tmp_path / "larger", height=20, width=30), 5)
    assert len(found) == 20
    assert "20 of 20 pictures were resized to 8 x 8" in told


def test_a_model_of_ones_own_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    fit(module(tmp_path, "own_explained"), tmp_path / "run", seeds=1, epochs=1)
    with pytest.raises(CheckpointError, match=r"rt\.attribute"):
        explain_run(tmp_path / "run", tmp_path, tmp_path / "x.csv", samples=5, seed=0, progress=False)
