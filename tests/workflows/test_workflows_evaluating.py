"""``rightly evaluate``: predictions judged in the label's unit, explanations measured, both models side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from rightly.core.errors import DataError
from rightly.data import TableEncoder, known_labels, read_frame
from rightly.evaluation import MEASURES
from rightly.report import read_figures, read_record
from rightly.workflows.evaluated import EvaluationRequest
from rightly.workflows.evaluating import evaluate_run
from rightly.workflows.explaining import load_model
from workflows.made import classes, pictures, table
from workflows.small_jobs import fit

MASKS = 6


def evaluated(run: Path, data: Path, **arguments: Any) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Record, figures, and what was printed."""
    out = run.parent / f"evaluation-{len(list(run.parent.iterdir()))}"
    given = {"examples": 20, "samples": 4, "methods": ("expected_gradients", "gradient")} | arguments
    told = evaluate_run(EvaluationRequest(run, data, **given), out, progress=False)
    assert sorted(path.name for path in out.iterdir()) == ["figures.json", "record.json", "report.html"]
    return read_record(out), read_figures(out) or {}, told


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    classes().to_csv(folder / "people.csv", index=False)
    classes(80, seed=7).to_csv(folder / "new.csv", index=False)
    fit(folder / "people.csv", folder / "run", label="y", seeds=1, epochs=15, weight="0.01")
    return folder


def test_both_models_are_judged_on_all_rows_and_explained_on_some(people: Path) -> None:
    record, figures, told = evaluated(people / "run", people / "new.csv")
    assert list(record["runs"]) == ["plain", "sparsity"]
    frame = pd.read_csv(people / "new.csv")
    for name, where in (("plain", people / "run" / "plain"), ("sparsity", people / "run")):
        model, facts = load_model(where)
        x = torch.from_numpy(TableEncoder.from_json(facts["encoder"]).transform(frame))
        with torch.no_grad():
            right = (model(x)[:, 0] > 0).numpy() == (frame["y"] == "yes").to_numpy()
        entry = record["runs"][name]["metrics"]["test"]["accuracy"]
        assert entry["mean"] == pytest.approx(right.mean())
        assert entry["low"] < entry["mean"] < entry["high"]
        assert entry["values"] == [entry["mean"]]
    gap = record["comparison"]["accuracy"]
    means = [record["runs"][name]["metrics"]["test"]["accuracy"]["mean"] for name in ("plain", "sparsity")]
    assert gap["difference"] == pytest.approx(means[1] - means[0])
    assert gap["low"] <= gap["difference"] <= gap["high"]
    assert (gap["run"], gap["against"], gap["p"]) == ("sparsity", "plain", None)
    assert record["data"]["split"] == {"given": 80}
    assert "20 of 80 rows were explained, drawn at random." in record["notes"]
    assert record["runs"]["sparsity"]["prior"]["name"] == "sparsity"
    importance = {e["feature"] for e in record["runs"]["plain"]["explanations"]["importance"]}
    assert importance == {"a", "b", "c", "colour"}
    for tab in figures["tables"]:
        assert len(tab["rows"]) == 9 + MASKS
        assert tab["columns"][2:4] == ["Without the prior", "With the prior: few features"]
    assert len(figures["tables"]) == 2
    assert [curve["y_label"] for curve in figures["curves"]] == ["AUC", "AUC", "Cosine of explanations"]
    auc = record["runs"]["plain"]["metrics"]["test"]["auc"]["mean"]
    assert figures["curves"][0]["series"][0]["y"][0] == pytest.approx(auc)
    assert figures["curves"][2]["series"][1]["y"][0] == pytest.approx(1)
    assert "AUC" in told
    assert "explanations of: With the prior: few features" in told
    page = (next(people.glob("evaluation-*")) / "report.html").read_text(encoding="utf-8")
    assert "80 rows given" in page
    assert "Results on the rows given." in page
    trained = read_record(people / "run")["runs"]["sparsity"]["seconds"]
    assert record["runs"]["sparsity"]["seconds"] == trained
    assert "took no part in training" not in page


def test_without_labels_explanations_are_measured_alone(people: Path) -> None:
    frame = pd.read_csv(people / "new.csv").drop(columns="y")
    frame.to_csv(people / "bare.csv", index=False)
    record, figures, told = evaluated(people / "run", people / "bare.csv")
    assert record["comparison"] == {}
    assert all(run["metrics"]["test"] == {} for run in record["runs"].values())
    assert "The data have no labels, so predictions were not judged." in record["notes"]
    assert len(figures["curves"]) == 1
    assert len(figures["tables"][0]["rows"]) == 9 + MASKS - 2  # the absolute ones compare with labels
    assert any("explained by expected gradients: completeness" in line for line in record["conclusion"])
    assert "AUC" not in told


def test_one_class_has_no_area_and_rows_without_label_are_left_out(people: Path) -> None:
    frame = pd.read_csv(people / "new.csv")
    frame = frame[frame["y"] == "yes"].reset_index(drop=True)
    frame.loc[:2, "y"] = None
    frame.to_csv(people / "one.csv", index=False)
    record, figures, _ = evaluated(people / "run", people / "one.csv", metrics=("gini",))
    assert "auc" not in record["comparison"]
    assert record["data"]["rows"] == len(frame) - 3
    assert "3 rows without a label were dropped" in record["data"]["notes"]
    assert figures["curves"][0]["y_label"] == "Accuracy"


def test_a_lone_model_and_columns_that_must_not_matter(people: Path) -> None:
    record, figures, _ = evaluated(people / "run" / "plain", people / "new.csv", irrelevant=("a", "colour"))
    assert list(record["runs"]) == ["plain"]
    assert record["comparison"] == {}
    assert record["runs"]["plain"]["seconds"] == 0  # nothing there tells how long it was trained
    assert "inside" in {row[0] for row in figures["tables"][0]["rows"]}
    assert "--irrelevant a,colour" in record["rerun"]


def test_the_seed_decides(people: Path) -> None:
    def numbers(seed: int) -> Any:
        record, figures, _ = evaluated(people / "run", people / "new.csv", seed=seed, metrics=("gini", "infidelity"))
        return figures["tables"], [run["metrics"] for run in record["runs"].values()]

    assert numbers(0) == numbers(0)
    assert numbers(0)[0] != numbers(1)[0]


def test_a_regression_is_judged_in_its_own_unit(tmp_path: Path) -> None:
    frame = table()
    frame.assign(price=1000 + 50 * frame.pop("score")).to_csv(tmp_path / "prices.csv", index=False)
    fit(tmp_path / "prices.csv", tmp_path / "run", label="price", seeds=1, epochs=20)
    record, figures, _ = evaluated(tmp_path / "run", tmp_path / "prices.csv")
    model, facts = load_model(tmp_path / "run")
    mean, sd = facts["label_scale"]
    x = torch.from_numpy(TableEncoder.from_json(facts["encoder"]).transform(read_frame(tmp_path / "prices.csv").frame))
    with torch.no_grad():
        found = model(x)[:, 0].numpy() * sd + mean
    truth = pd.read_csv(tmp_path / "prices.csv")["price"].to_numpy()
    metrics = record["runs"]["sparsity"]["metrics"]["test"]
    assert metrics["rmse"]["mean"] == pytest.approx(np.sqrt(((found - truth) ** 2).mean()), rel=1e-4)
    assert metrics["rmse"]["mean"] > 3
    assert figures["curves"][0]["series"][1]["y"][0] == pytest.approx(metrics["r2"]["mean"], abs=1e-5)


def test_pictures_with_drawn_regions(tmp_path: Path) -> None:
    root = pictures(tmp_path / "pets", height=16, width=18, annotations=tmp_path / "drawn")
    fit(root, tmp_path / "run", seeds=1, epochs=1)
    record, figures, _ = evaluated(
        tmp_path / "run", root, annotations=tmp_path / "drawn", regions="relevant", examples=8
    )
    assert {"accuracy", "auc"} <= set(record["runs"]["plain"]["metrics"]["test"])
    rows = {row[0] for row in figures["tables"][0]["rows"]}
    assert {"energy pointing game", "random annotation", "pointing game", "rank accuracy", "iou"} <= rows
    assert "keep positive mask" not in rows
    assert len(figures["curves"]) == 4
    loose, _, _ = evaluated(tmp_path / "run", root / "cat", examples=8, metrics=("gini",))
    assert all(run["metrics"]["test"] == {} for run in loose["runs"].values())
    assert loose["data"]["split"] == {"given": 10}


def test_a_place_that_cannot_be_written_is_found_before_the_work(people: Path) -> None:
    (people / "file").write_text("x")
    with pytest.raises(DataError, match="cannot be"):
        evaluate_run(EvaluationRequest(people / "run", people / "new.csv"), people / "file" / "ev", progress=False)


@pytest.mark.parametrize(
    ("column", "known", "expected"),
    [
        (["yes", None, "no"], ("no", "yes"), [1, 0]),
        ([1, 0, 3], ("0", "1", "2", "3"), [1, 0, 3]),
        ([1.0, None, 0.0], ("0", "1"), [1, 0]),
        ([True, False, True], ("False", "True"), [1, 0, 1]),
        ([1.5, None, 2.5], (), [1.5, 2.5]),
    ],
)
def test_labels_are_read_as_the_model_knows_them(column: list[Any], known: tuple[str, ...], expected: list) -> None:
    notes: list[str] = []
    found, keep = known_labels(pd.Series(column), "y", known, "data", notes)
    assert found.tolist() == expected
    assert keep.tolist() == [value is not None for value in column]
    assert bool(notes) == (None in column)


@pytest.mark.parametrize(("column", "known"), [(["a", "b"], ()), (["a", "z"], ("a", "b")), ([2], ("0", "1"))])
def test_labels_that_the_model_does_not_know_are_refused(column: list[Any], known: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="'y'"):
        known_labels(pd.Series(column), "y", known, "data", [])


def test_the_default_methods_and_every_measure_can_be_typed() -> None:
    plain = EvaluationRequest(Path("run"), Path("data"))
    assert plain.methods[0] == "expected_gradients"
    assert all("," not in name and " " not in name for name in MEASURES)


def test_classes_that_most_resamples_lack_cost_an_interval_and_nothing_else(tmp_path: Path) -> None:
    """Each of two classes has one row: with replacement it is drawn in two of five resamples only."""
    draws, frame = np.random.default_rng(0), table(90)
    frame["y"] = draws.choice(["a", "b", "c", "d"], len(frame))
    frame.drop(columns="score").to_csv(tmp_path / "four.csv", index=False)
    fit(tmp_path / "four.csv", tmp_path / "run", label="y", seeds=1, epochs=2, weight="0.01")
    few = frame[frame["y"].isin(["a", "b"])]
    rare = [frame[frame["y"] == name].head(1) for name in "cd"]
    pd.concat([few, *rare]).to_csv(tmp_path / "rare.csv", index=False)
    record, _, told = evaluated(tmp_path / "run", tmp_path / "rare.csv")
    found = record["runs"]["plain"]["metrics"]["test"]
    assert found["auc"]["low"] is None
    assert 0 < found["auc"]["mean"] < 1
    assert found["accuracy"]["low"] < found["accuracy"]["high"]
    assert "auc" not in record["comparison"]
    assert "accuracy" in record["comparison"]
    assert any("No interval can be given for" in note for note in record["notes"])
    assert "AUC" in told or "auc" in told
