"""Every reproduction runs from end to end in seconds, goes on after a kill, and tells what it cannot do."""

import ast
import json
import shutil

import numpy as np
import pytest

import rightly as rt
from rightly.core.errors import ArgumentError, CheckpointError, DataError, RightlyError
from rightly.report import read_figures, read_record
from rightly.workflows import reproduce as reproductions
from rightly.workflows.reproduce import Trials, names, reproduce, summary

RECIPES = {"decoy-mnist": None, "mnist-noise": None, "nhanes-sparsity": "nhefs"}


def drawn_digits(name, *, data_dir=None):
    """Pictures like MNIST's in shape: a bright bar at a place that tells the class."""
    draws = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 320), ("test", 300)):
        labels = np.arange(count) % 10
        images = draws.integers(0, 60, (count, 28, 28))
        for image, label in zip(images, labels, strict=True):
            image[6 + label : 12 + label, 6:22] += 150
        arrays |= {f"x_{part}": images.astype(np.uint8), f"y_{part}": labels.astype(np.uint8)}
    return arrays


@pytest.fixture
def digits(monkeypatch):
    monkeypatch.setattr(rt.data, "load_arrays", drawn_digits)


def smoke(name, out, **arguments):
    return reproduce(name, out=out, dataset=RECIPES[name], smoke=True, progress=False, **arguments)


def without_times(value):
    """A record without what the clock wrote."""
    if isinstance(value, dict):
        return {key: without_times(entry) for key, entry in value.items() if key not in ("created", "seconds")}
    return [without_times(entry) for entry in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Each recipe's folder, run once."""
    folders = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rt.data, "load_arrays", drawn_digits)
        for name in RECIPES:
            folders[name] = smoke(name, tmp_path_factory.mktemp(name))
    return folders


def test_every_recipe_is_tested():
    assert set(names()) == set(RECIPES)
    assert all(40 < len(line) < 125 for line in names().values())


@pytest.mark.parametrize("name", RECIPES)
def test_runs_from_end_to_end(name, finished):
    folder = finished[name]
    record, figures = read_record(folder), read_figures(folder)
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    assert record["rerun"].startswith(f"rightly reproduce {name}")
    assert record["notes"][0] == record["reduction"]
    assert figures["tables"][0]["columns"] == ["Claim", "Paper", "Ours", "Verdict"]
    assert not (folder / "checkpoints").exists() or not list((folder / "checkpoints").iterdir())
    told = summary(folder)
    for claim in record["claims"]:
        assert claim["claim"] in told
        assert claim["verdict"] in told
    assert record["reduction"] in told


@pytest.mark.parametrize("name", RECIPES)
def test_a_killed_run_goes_on_to_the_same_record(name, finished, digits, tmp_path):
    lines = (finished[name] / "trials.jsonl").read_text().splitlines(keepends=True)
    kept = len(lines) - 2
    (tmp_path / "trials.jsonl").write_text("".join(lines[:kept]) + lines[kept][:40])
    smoke(name, tmp_path, resume=True)
    assert without_times(read_record(tmp_path)) == without_times(read_record(finished[name]))
    assert without_times(read_figures(tmp_path)) == without_times(read_figures(finished[name]))
    assert len((tmp_path / "trials.jsonl").read_text().splitlines()) == len(lines)


#: for each recipe, its runs with a term
TRAINED = {
    "decoy-mnist": ("right_reasons", "balance"),
    "mnist-noise": ("eg_smoothness", "gradient_smoothness"),
    "nhanes-sparsity": ("l1_eg", "gini_eg"),
}


def learned(record, run):
    """What tells two trained networks apart most finely: how concentrated or smooth their explanations are."""
    explanations = record["runs"][run]["explanations"].values()
    return [value for entry in explanations if isinstance(entry, dict) for value in entry["values"]]


@pytest.mark.parametrize("name", RECIPES)
def test_no_engine_changes_what_is_learned(name, finished, digits, tmp_path):
    own, asked = (read_record(f) for f in (finished[name], smoke(name, tmp_path, engine="double-backward")))
    assert "--engine double-backward" in asked["rerun"]
    assert "--engine" not in own["rerun"]
    for run, record in asked["runs"].items():
        if run not in TRAINED[name]:
            assert record["engines"] == own["runs"][run]["engines"] == {}
            assert learned(asked, run) == learned(own, run)
            continue
        assert set(record["engines"].values()) == {"double-backward: asked for"}
        assert all(text.startswith("frozen-masks: ") for text in own["runs"][run]["engines"].values())
        assert learned(asked, run) == pytest.approx(learned(own, run), rel=1e-5)
        # fine enough to see the prior itself, at this size as well
        assert learned(asked, run) != pytest.approx(learned(own, "plain"), rel=1e-4)
        for metric, found in record["metrics"]["test"].items():
            expected = own["runs"][run]["metrics"]["test"][metric]["values"]
            assert found["values"] == pytest.approx(expected, abs=0.01), (run, metric)


def test_the_engine_belongs_to_the_run(finished, tmp_path):
    with pytest.raises(CheckpointError, match="another run"):
        smoke("decoy-mnist", finished["decoy-mnist"], resume=True, engine="double-backward")
    with pytest.raises(ArgumentError, match="frozen-masks"):
        reproduce("decoy-mnist", out=tmp_path, engine="turbo")
    assert not list(tmp_path.iterdir())


def test_finished_trials_are_not_repeated(finished, tmp_path, monkeypatch):
    shutil.copy(finished["mnist-noise"] / "trials.jsonl", tmp_path)
    monkeypatch.setattr(rt, "fit", lambda *_, **__: pytest.fail("trained again"))
    smoke("mnist-noise", tmp_path, resume=True)


def test_an_earlier_run_is_not_overwritten(finished):
    with pytest.raises(ArgumentError, match="earlier run"):
        smoke("nhanes-sparsity", finished["nhanes-sparsity"])


def test_another_runs_trials_are_refused(finished):
    with pytest.raises(CheckpointError, match="another run"):
        smoke("nhanes-sparsity", finished["nhanes-sparsity"], resume=True, seed=1)


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(ArgumentError, match="decoy-mnist"):
        reproduce("decoy-minst", out=tmp_path)
    with pytest.raises(ArgumentError, match="of its own"):
        reproduce("decoy-mnist", out=tmp_path, dataset="nhefs")
    with pytest.raises(ArgumentError, match="nhanes, nhanes-binned, nhefs"):
        reproduce("nhanes-sparsity", out=tmp_path, dataset="titanic")
    assert not list(tmp_path.iterdir())


def test_an_installed_copy_says_where_the_recipes_are(tmp_path, monkeypatch):
    monkeypatch.setattr(reproductions, "EXPERIMENTS", tmp_path / "experiments")
    assert names() == {}
    with pytest.raises(RightlyError, match="source checkout"):
        reproduce("decoy-mnist", out=tmp_path)


def test_real_data_fits_the_recipe(tmp_path):
    place = rt.data.available()["nhanes1_shap_subset"]
    if place.startswith("not here"):
        pytest.skip("NHANES I is not here: set RIGHTLY_DATA to a folder that holds nhanes1_shap_subset.csv.gz")
    record = read_record(reproduce("nhanes-sparsity", out=tmp_path, smoke=True, progress=False))
    assert record["data"]["rows"] == 9535
    assert record["data"]["split"] == {"train": 100, "validation": 100, "test": 9335}


def test_absent_data_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("RIGHTLY_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    with pytest.raises(DataError, match="RIGHTLY_DATA"):
        reproduce("nhanes-sparsity", out=tmp_path / "run", smoke=True, progress=False)


def test_trials_are_kept_as_they_finish(tmp_path):
    path, seen = tmp_path / "trials.jsonl", []

    def work(key):
        seen.append(key["x"])
        if key["x"] == 2:
            raise KeyboardInterrupt
        return {"y": key["x"] / 3}

    keys = [{"x": x} for x in range(4)]
    with pytest.raises(KeyboardInterrupt):
        Trials(path, {"name": "t"}, resume=False, progress=False).run("t", keys, work)
    rows = Trials(path, {"name": "t"}, resume=True, progress=False).run("t", keys, lambda key: {"y": key["x"] / 3})
    assert seen == [0, 1, 2]
    assert [row["y"] for row in rows] == [x / 3 for x in range(4)]
    assert [json.loads(line).get("trial") for line in path.read_text().splitlines()] == [None, *keys]


def test_recipes_use_the_public_api_only():
    for path in reproductions.EXPERIMENTS.glob("*/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            if module and module.startswith("rightly."):
                assert module in ("rightly.evaluation", "rightly.workflows.reproduce"), (path.name, module)
                assert not any(alias.name.startswith("_") for alias in node.names), path.name


def test_recipes_cannot_be_imported():
    assert not list(reproductions.EXPERIMENTS.glob("**/__init__.py"))
