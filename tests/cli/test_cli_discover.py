"""``rightly discover``: from a table and from pictures, stopped and resumed, used further, and refused."""

import json
import shutil

import numpy as np
import pytest

from cli.running import contents, run
from rightly.core.errors import ArgumentError, CheckpointError
from rightly.report import read_record
from rightly.workflows.discovering import DiscoverRequest, run_search, search_for
from workflows import made
from workflows.small_jobs import lasting


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "people.csv"
    made.classes().to_csv(path, index=False)
    return path


def search(source, out, *, resume=False, **arguments):
    given = {"epochs": 3, "models": 2} | arguments
    return run_search(search_for(DiscoverRequest(str(source), **given)), out, resume=resume, progress=False)


@pytest.fixture(scope="module")
def finished(table, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "found"
    search(table, out, label="y")
    return out


def test_models_stand_side_by_side(finished):
    record, page = read_record(finished), (finished / "report.html").read_text()
    assert list(record["runs"]) == ["model-1", "model-2"]
    assert record["command"] == "discover"
    assert record["rerun"].startswith("rightly discover")
    told = record["discovery"]
    assert told["models"]["model-1"]["weight"] == 0
    assert told["models"]["model-2"]["weight"] > 0
    assert [len(row) for row in told["similarity"]] == [2, 2]
    assert "Models to choose from" in page
    assert "Leans on" in page
    assert told["stopped"] in record["conclusion"][1]


@pytest.mark.parametrize("command", ["explain", "evaluate"])
def test_a_chosen_model_is_used_further(finished, table, tmp_path, monkeypatch, capsys, command):
    out = tmp_path / ("e.csv" if command == "explain" else "e")
    few = ["--samples", "5"] if command == "explain" else ["--samples", "5", "--examples", "5", "--methods", "gradient"]
    ran = run([command, str(finished / "model-2"), str(table), "--out", str(out), "--quiet", *few], monkeypatch, capsys)
    assert ran.code == 0, ran.err
    assert out.exists()


def test_the_command_tells_what_it_found(table, tmp_path, monkeypatch, capsys):
    out = tmp_path / "found"
    arguments = ["--label", "y", "--epochs", "2", "--method", "simultaneous", "--weight", "0.1", "--quiet"]
    ran = run(["discover", str(table), "--out", str(out), *arguments], monkeypatch, capsys)
    assert ran.code == 0, ran.err
    assert "2 models were trained at once" in ran.out
    assert read_record(out)["discovery"]["models"]["model-1"]["weight"] == 0.1


def test_a_stopped_search_goes_on_to_the_same_record(finished, table, tmp_path):
    out = tmp_path / "found"
    shutil.copytree(finished, out)
    for name in ("record.json", "report.html", "figures.json"):
        (out / name).unlink()
    shutil.rmtree(out / "trials" / "discovery" / "model-2")
    with pytest.raises(ArgumentError, match="not empty"):
        search(table, out, label="y")
    search(table, out, label="y", resume=True)
    assert lasting(read_record(out)) == lasting(read_record(finished))
    assert (out / "model-2" / "model.safetensors").read_bytes() == (
        finished / "model-2" / "model.safetensors"
    ).read_bytes()
    with pytest.raises(CheckpointError, match="another run"):
        search(table, out, label="y", resume=True, cutoff=0.5)


def test_pictures_get_maps(tmp_path):
    record = search(made.pictures(tmp_path / "pictures"), tmp_path / "found")
    figures = json.loads((tmp_path / "found" / "figures.json").read_text())
    assert set(figures["maps"][0]["runs"]) == {"model-1", "model-2"}
    assert "Leans on" not in (tmp_path / "found" / "report.html").read_text()
    assert record["data"]["kind"] == "images"


def test_noise_is_told_to_be_noise(tmp_path):
    frame = made.classes(200)
    frame["y"] = np.random.default_rng(0).permutation(frame["y"].to_numpy())
    frame.to_csv(tmp_path / "noise.csv", index=False)
    record = search(tmp_path / "noise.csv", tmp_path / "found", label="y", tolerance=1.0)
    assert record["discovery"]["distinct"] == []
    assert "None of 2 models" in record["conclusion"][0]
    assert "the most frequent class" in record["conclusion"][0]
    assert "no better than one answer for all" in (tmp_path / "found" / "report.html").read_text()


def test_numbers_are_found_too(tmp_path):
    made.table().to_csv(tmp_path / "scores.csv", index=False)
    record = search(tmp_path / "scores.csv", tmp_path / "found", label="score")
    assert "R2" in record["conclusion"][0]


BAD = {
    "no label": {"label": None},
    "too many models": {"label": "y", "models": 12},
    "one model": {"label": "y", "models": 1},
    "an automatic weight": {"label": "y", "weight": "auto"},
    "a weight in words": {"label": "y", "weight": "much"},
    "a cutoff above one": {"label": "y", "cutoff": 1.5},
    "a tolerance below zero": {"label": "y", "tolerance": -1.0},
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_leaves_nothing_behind(table, tmp_path, case):
    with pytest.raises(ArgumentError):
        search(table, tmp_path / "found", **BAD[case])
    assert not (tmp_path / "found").exists()
    assert contents(tmp_path) == {}
