"""The commands as a newcomer meets them: what is printed, where things go, what the exit code says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from cli.running import run
from rightly.cli.app import Engine
from rightly.core import registry
from rightly.objectives.term import EngineName
from rightly.report import read_record
from rightly.workflows.catalogue import FAMILIES
from rightly.workflows.choices import CHOICES
from rightly.workflows.reproduce import names
from workflows.made import classes, module, pictures

SMALL = ("--seeds", "1", "--epochs", "1", "--weight", "1")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_names_every_command(folder: Path, monkeypatch: Any, capsys: Any) -> None:
    ran = run(["--help"], monkeypatch, capsys)
    assert ran.code == 0
    for command in ("fit", "explain", "evaluate", "check", "list", "show", "demo", "reproduce"):
        assert f"\n  {command} " in ran.out
        assert run([command, "--help"], monkeypatch, capsys).code == 0


def test_version(folder: Path, monkeypatch: Any, capsys: Any) -> None:
    assert run(["--version"], monkeypatch, capsys).out.startswith("rightly 0.")


def test_list_names_everything_and_show_tells_of_it(folder: Path, monkeypatch: Any, capsys: Any) -> None:
    told = run(["list"], monkeypatch, capsys).out
    for name in [*CHOICES, *(entry.name for family in FAMILIES for entry in registry.family(family).values())]:
        assert f"  {name} " in told
        assert run(["show", name], monkeypatch, capsys).code == 0
    for name in names():
        assert name in run(["show", name], monkeypatch, capsys).out
    assert "attributions" not in run(["list", "priors"], monkeypatch, capsys).out.split("\n")


def test_fit_numbers_its_folders_and_resume_takes_the_last(folder: Path, monkeypatch: Any, capsys: Any) -> None:
    classes(60).to_csv(folder / "people.csv", index=False)
    command = ["fit", "people.csv", "--label", "y", *SMALL]
    for number in (1, 2):
        ran = run(command, monkeypatch, capsys)
        assert ran.code == 0
        assert f"report: runs/people-sparsity-{number}/report.html" in ran.out
        assert "task guessed from 'y': classification" in ran.err
        assert f"the run's folder is runs/people-sparsity-{number}" in ran.err
    assert "people-sparsity-2/" in run([*command, "--resume"], monkeypatch, capsys).out
    assert not (folder / "runs" / "people-sparsity-3").exists()


def test_every_engine_can_be_asked_for() -> None:
    assert tuple(Engine) == get_args(EngineName)


def test_fit_trains_with_the_engine_asked_for(folder: Path, monkeypatch: Any, capsys: Any) -> None:
    classes(60).to_csv(folder / "people.csv", index=False)
    command = ["fit", "people.csv", "--label", "y", *SMALL, "--out"]
    told = {}
    for name, asked in (("own", []), ("asked", ["--engine", "double-backward"])):
        assert run([*command, name, *asked], monkeypatch, capsys).code == 0
        told[name] = read_record(folder / name)
    runs = {name: record["runs"]["sparsity"] for name, record in told.items()}
    assert runs["own"]["engines"]["sparsity"].startswith("frozen-masks: ")
    assert runs["asked"]["engines"] == {"sparsity": "double-backward: asked for"}
    assert told["asked"]["runs"]["plain"]["engines"] == {}
    assert told["asked"]["rerun"].endswith("--engine double-backward")
    assert "double-backward: asked for" in (folder / "asked" / "report.html").read_text()
    refused = run(["fit", module(folder, "own_terms"), "--engine", "auto"], monkeypatch, capsys)
    assert (refused.code, "--engine" in refused.err) == (2, True)
    values = [run["explanations"]["gini"]["values"] for run in runs.values()]
    assert values[0] == pytest.approx(values[1], abs=1e-4)


def test_reproduce_passes_the_engine_on(folder: Path, monkeypatch: Any, capsys: Any) -> None:
    asked = []
    monkeypatch.setattr("rightly.workflows.reproduce.reproduce", lambda _, **given: asked.append(given) or folder)
    monkeypatch.setattr("rightly.workflows.reproduce.summary", lambda _: "told")
    for arguments in ([], ["--engine", "two-phase"]):
        assert run(["reproduce", "decoy-mnist", *arguments], monkeypatch, capsys).code == 0
    assert [given["engine"] for given in asked] == ["auto", "two-phase"]
    assert run(["reproduce", "decoy-mnist", "--engine", "turbo"], monkeypatch, capsys).code == 2


def test_quiet_prints_the_result_only(folder: Path, monkeypatch: Any, capsys: Any) -> None:
    classes(60).to_csv(folder / "people.csv", index=False)
    ran = run(["fit", "people.csv", "--label", "y", *SMALL, "--quiet"], monkeypatch, capsys)
    assert ran.err == ""
    assert "AUC" in ran.out
    ran = run(["explain", "runs/people-sparsity-1", "people.csv", "--samples", "4", "--quiet"], monkeypatch, capsys)
    assert (ran.code, ran.err) == (0, "")
    assert (folder / "explanations.csv").exists()


def test_images_take_an_annotation_folder_inside(folder: Path, monkeypatch: Any, capsys: Any) -> None:
    root = pictures(folder / "pets", annotations=folder / "pets" / "marks")
    ran = run(["fit", str(root), "--annotations", "pets/marks", *SMALL], monkeypatch, capsys)
    assert (ran.code, "20 of 20 pictures have a drawn region" in ran.err) == (0, True)


def test_check_passes_and_fails(folder: Path, monkeypatch: Any, capsys: Any) -> None:
    good = run(["check", module(folder, "checked_good")], monkeypatch, capsys)
    assert (good.code, "sparsity" in good.out) == (0, True)
    assert "contextual decomposition of the model's operations" in good.out
    assert "linear" in good.out.split("contextual decomposition")[1]
    cut = "type('Cut', (torch.nn.Module,), {'forward': lambda s, x: x.detach()})()"
    detached = f"torch.nn.Sequential(torch.nn.Linear(4, 2), {cut})"
    failing = run(["check", module(folder, "checked_bad", model=detached)], monkeypatch, capsys)
    assert (failing.code, " NO " in failing.out) == (1, True)


def test_a_demo_that_breaks_its_promise_fails(folder: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr("rightly.workflows.demo.run_demo", lambda *_, **__: [])
    monkeypatch.setattr("rightly.workflows.demo.promises", lambda _: [("kept", True), ("broken", False)])
    ran = run(["demo", "--quick"], monkeypatch, capsys)
    assert ran.code == 1
    assert "as promised   kept" in ran.out
    assert "NOT AS PROMISED  broken" in ran.out


@pytest.mark.parametrize(("command", "resumable"), [("fit", True), ("list", False)])
def test_control_c(command: str, resumable: bool, folder: Path, monkeypatch: Any, capsys: Any) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rightly.cli.app.app", stop)
    ran = run([command], monkeypatch, capsys)
    assert ran.code == 130
    assert ("--resume" in ran.err) == resumable


def test_a_closed_pipe_is_no_crash(folder: Path) -> None:
    shell = f"{sys.executable} -m rightly list | true"
    ran = subprocess.run(["bash", "-c", shell], capture_output=True, text=True)
    assert "Traceback" not in ran.stderr
