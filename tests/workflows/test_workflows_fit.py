"""``rightly fit`` from end to end on small data: what is written, and whether it is true."""

from __future__ import annotations

import json
import tomllib
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rightly.evaluation import compare
from rightly.report import read_record
from rightly.report.schema import figure_problems, record_problems
from workflows.made import classes, module, pictures, table
from workflows.small_jobs import fit, lasting

FILES = {"config.toml", "figures.json", "model.json", "model.safetensors", "plain", "record.json", "report.html"}


def _whole(out: Path, record: dict[str, Any], names: tuple[str, str], seeds: int = 2) -> None:
    """Everything a run folder promises."""
    assert {path.name for path in out.iterdir()} == FILES | {"trials"}
    assert {path.name for path in (out / "plain").iterdir()} == {"model.json", "model.safetensors"}
    trials = {f"{name}-{seed}.json" for name in record["runs"] for seed in range(seeds)}
    assert {path.name for path in (out / "trials").iterdir()} == trials
    figures = json.loads((out / "figures.json").read_text(encoding="utf-8"))
    assert record_problems(record) == []
    assert figure_problems(figures) == []
    assert read_record(out) == json.loads(json.dumps(record))
    assert tuple(record["runs"])[:2] == names
    assert all(run["seeds"] == list(range(seeds)) for run in record["runs"].values())
    sizes = record["data"]["split"]
    for name, found in record["comparison"].items():
        assert (found["run"], found["against"]) == (names[1], names[0])
        group = "explanations" if name in ("gini", "inside") else "test"
        first, second = (_values(record["runs"][run], group, name) for run in names)
        # three parts of one data set are shared among the seeds, those of a user's function are not
        share = None if record["data"]["kind"] == "custom" else sizes["test"] / sum(sizes.values())
        expected = compare(first, second, test_share=share)
        assert found["test"] == ("paired t-test" if share is None else "corrected resampled t-test")
        for key in ("difference", "low", "high", "p"):
            assert found[key] == (None if (wanted := getattr(expected, key)) is None else pytest.approx(wanted))
    html = unescape((out / "report.html").read_text(encoding="utf-8"))
    assert record["title"] in html
    assert record["intervals"] in html
    assert ("take the splits for independent" in html) == (record["data"]["kind"] != "custom")
    assert 'src="http' not in html
    tomllib.loads((out / "config.toml").read_text(encoding="utf-8"))


def _values(run: dict[str, Any], group: str, name: str) -> list[float]:
    values: list[float] = (run["explanations"] if group == "explanations" else run["metrics"]["test"])[name]["values"]
    return values


def test_a_table_of_two_classes(tmp_path: Path) -> None:
    classes().to_csv(tmp_path / "people.csv", index=False)
    record = fit(tmp_path / "people.csv", tmp_path / "run", label="y")
    _whole(tmp_path / "run", record, ("plain", "sparsity"))
    assert record["data"]["classes"] == ["no", "yes"]
    assert sum(record["data"]["split"].values()) == 120
    assert record["data"]["split"]["train"] == 72
    assert set(record["comparison"]) == {"auc", "accuracy", "balanced_accuracy", "log_loss", "gini"}
    assert {entry["feature"] for entry in record["runs"]["plain"]["explanations"]["importance"]} == {
        "a", "b", "c", "colour",
    }  # fmt: skip
    assert "--label y" in record["rerun"]
    assert "beeswarm" in json.loads((tmp_path / "run" / "figures.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("suffix", [".csv.gz", ".parquet", ".tsv"])
def test_other_files_give_the_same_record(suffix: str, tmp_path: Path) -> None:
    frame = classes(60)
    frame.to_csv(tmp_path / "people.csv", index=False)
    other = tmp_path / f"people{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(other)
    else:
        frame.to_csv(other, index=False, sep="\t" if suffix == ".tsv" else ",")
    first = fit(tmp_path / "people.csv", tmp_path / "first", label="y", seeds=1)
    second = fit(other, tmp_path / "second", label="y", seeds=1)
    assert lasting(first["runs"]) == lasting(second["runs"])


def test_missing_entries_and_three_classes(tmp_path: Path) -> None:
    frame = table()
    frame["y"] = np.digitize(frame["score"], [-1, 1.5])
    frame.loc[::7, "a"] = np.nan
    frame.loc[::11, "colour"] = None
    frame.drop(columns="score").to_csv(tmp_path / "three.csv", index=False)
    record = fit(tmp_path / "three.csv", tmp_path / "run", label="y", prior="l2")
    _whole(tmp_path / "run", record, ("plain", "l2"))
    assert record["data"]["classes"] == ["0", "1", "2"]
    assert any("guessed" in note for note in record["data"]["notes"])


def test_a_regression_is_told_in_the_labels_unit(tmp_path: Path) -> None:
    frame = table()
    frame.assign(price=1000 + 50 * frame.pop("score")).to_csv(tmp_path / "a.csv", index=False)
    small = fit(tmp_path / "a.csv", tmp_path / "small", label="price", epochs=20)
    _whole(tmp_path / "small", small, ("plain", "sparsity"))
    frame.assign(price=1000 * (1000 + 50 * table()["score"])).to_csv(tmp_path / "b.csv", index=False)
    large = fit(tmp_path / "b.csv", tmp_path / "large", label="price", epochs=20)
    for metric, factor in (("rmse", 1000), ("mae", 1000), ("r2", 1)):
        a, b = (record["runs"]["plain"]["metrics"]["test"][metric]["mean"] for record in (small, large))
        assert b == pytest.approx(factor * a, rel=1e-3)
    spread = float(np.std(50 * table()["score"]))
    assert 0 < small["runs"]["plain"]["metrics"]["test"]["rmse"]["mean"] < spread
    swarm = json.loads((tmp_path / "small" / "figures.json").read_text(encoding="utf-8"))["beeswarm"]["plain"]
    # attributions are prices too, not standard deviations of prices
    assert max(abs(value) for entry in swarm for value in entry["attributions"]) > 5


def test_an_irrelevant_column_loses_its_importance(tmp_path: Path) -> None:
    frame = classes(200).assign(y=lambda f: f["y"] == "yes")
    frame["shortcut"] = frame["y"] + np.random.default_rng(0).normal(size=200) * 0.3
    frame.to_csv(tmp_path / "table.csv", index=False)
    record = fit(tmp_path / "table.csv", tmp_path / "run", label="y", irrelevant=("shortcut",), weight="10", epochs=30)
    _whole(tmp_path / "run", record, ("plain", "right-reasons"))
    share = {
        name: next(e["mean"] for e in run["explanations"]["importance"] if e["feature"] == "shortcut")
        for name, run in record["runs"].items()
    }
    assert share["plain"] > 0.3
    assert share["right-reasons"] < 0.5 * share["plain"]
    assert record["comparison"]["inside"]["difference"] < 0


def test_unbalanced_classes_are_pointed_out(tmp_path: Path) -> None:
    frame = classes(200).assign(y=["rare"] * 12 + ["often"] * 188)
    frame.to_csv(tmp_path / "rare.csv", index=False)
    classes().to_csv(tmp_path / "even.csv", index=False)
    rare = fit(tmp_path / "rare.csv", tmp_path / "a", label="y", seeds=1, epochs=1)
    even = fit(tmp_path / "even.csv", tmp_path / "b", label="y", seeds=1, epochs=1)
    assert any("unbalanced" in note and "'rare' is 6.0 %" in note for note in rare["data"]["notes"])
    assert not any("unbalanced" in note for note in even["data"]["notes"])


def test_the_same_seed_gives_the_same_record_and_another_does_not(tmp_path: Path) -> None:
    classes().to_csv(tmp_path / "people.csv", index=False)
    first, again, other = (
        fit(tmp_path / "people.csv", tmp_path / name, label="y", seed=seed, seeds=1)
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert lasting(first) == lasting(again)
    assert first["runs"]["plain"]["metrics"] != other["runs"]["plain"]["metrics"]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "again", "other")]
    assert weights[0] == weights[1] != weights[2]


def test_weight_zero_is_plain_training(tmp_path: Path) -> None:
    classes().to_csv(tmp_path / "people.csv", index=False)
    record = fit(tmp_path / "people.csv", tmp_path / "run", label="y", seeds=1, weight="0")
    assert record["runs"]["plain"]["metrics"] == record["runs"]["sparsity"]["metrics"]


def test_a_weight_by_validation_is_explained(tmp_path: Path) -> None:
    classes(60).to_csv(tmp_path / "people.csv", index=False)
    record = fit(tmp_path / "people.csv", tmp_path / "run", label="y", seeds=1, epochs=2, weight="auto")
    choice = record["runs"]["sparsity"]["weight_choice"]
    assert choice["rule"] == "auto"
    assert sum(candidate["chosen"] for candidate in choice["candidates"]) == 1
    assert record["runs"]["sparsity"]["weight"] in [candidate["weight"] for candidate in choice["candidates"]]


@pytest.mark.parametrize(("height", "width", "colour"), [(8, 12, False), (16, 20, True), (17, 16, False)])
def test_pictures_of_any_shape(height: int, width: int, colour: bool, tmp_path: Path) -> None:
    root = pictures(tmp_path / "pets", height=height, width=width, colour=colour)
    record = fit(root, tmp_path / "run", epochs=1)
    _whole(tmp_path / "run", record, ("plain", "smoothness"))
    maps = json.loads((tmp_path / "run" / "figures.json").read_text(encoding="utf-8"))["maps"]
    assert np.shape(maps[0]["image"])[:2] == np.shape(maps[0]["runs"]["plain"]["map"]) == (height, width)


@pytest.mark.parametrize(("regions", "prior"), [("irrelevant", "right-reasons"), ("relevant", "energy")])
def test_drawn_regions_choose_the_prior(regions: str, prior: str, tmp_path: Path) -> None:
    root = pictures(tmp_path / "pets", annotations=tmp_path / "regions")
    (tmp_path / "regions" / "cat" / "0.png").unlink()
    record = fit(root, tmp_path / "run", annotations=str(tmp_path / "regions"), regions=regions)
    _whole(tmp_path / "run", record, ("plain", prior))
    assert ("inside" in record["comparison"]) == (regions == "irrelevant")
    assert any(f"19 of 20 pictures have a drawn region, marked as {regions}" in n for n in record["data"]["notes"])


def test_no_batch_of_a_single_picture(tmp_path: Path) -> None:
    """Twelve pictures train; in batches of eleven the last would be alone, which batch norm refuses."""
    root = pictures(tmp_path / "pets", height=16, width=16)
    record = fit(root, tmp_path / "run", epochs=1, seeds=1, batch_size=11)
    assert record["data"]["split"]["train"] == 12
    fit(root, tmp_path / "again", epochs=1, seeds=1, batch_size=1)


@pytest.mark.parametrize(
    "places",
    [
        {},
        {
            "labels": "x[:, :1] * 2 + 1",
            "model": "torch.nn.Linear(4, 1)",
            "loss": "torch.nn.functional.mse_loss",
            "terms": "[rt.Term(rt.Gradient(output=lambda o, y: o[:, 0]), rt.priors.L1(), weight=0.1)]",
        },
        {
            "labels": "(x[:, 0] > 0).float()",
            "model": "torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Flatten(0))",
            "loss": "torch.nn.functional.binary_cross_entropy_with_logits",
        },
    ],
    ids=["classes", "regression", "one logit"],
)
def test_a_model_of_ones_own(places: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"own_{len(places)}"
    monkeypatch.syspath_prepend(str(tmp_path))
    record = fit(module(tmp_path, name, **places), tmp_path / "run")
    _whole(tmp_path / "run", record, ("plain", "prior"))
    assert record["data"]["rows"] == 90
    assert record["data"]["split"] == {"train": 50, "validation": 20, "test": 20}
