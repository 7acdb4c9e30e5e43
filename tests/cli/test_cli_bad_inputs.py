"""Every mistake ends in exit code 2 and one clear message, without a traceback and with nothing written."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from cli import mistakes_arguments, mistakes_evaluate, mistakes_images, mistakes_rules, mistakes_runs, mistakes_tables
from cli.mistakes import CASES, Bad
from cli.mistakes_runs import train
from cli.running import contents, run
from rightly.cli import main

#: these run as real processes too: the message must not hang on this process' state
REAL = ("label_absent", "module_term_detached", "explain_damaged_weights")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs that cases may damage copies of."""
    folder = tmp_path_factory.mktemp("trained")

    def fit(arguments: list[str]) -> None:
        patch.setattr(sys, "argv", ["rightly", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert not stopped.value.code

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train(folder, fit)
    return folder


@pytest.fixture
def folder(tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """An empty current folder; the finished runs are there for the cases that read one."""
    monkeypatch.chdir(tmp_path)
    if request.node.callspec.params["case"].name.startswith(("explain", "evaluate", "resume_with", "resume_trial")):
        shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_one_clear_message_and_nothing_written(
    case: Bad, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = case.make(folder)
    before = contents(folder)
    ran = run(
        [*arguments, *(["--quiet"] if arguments[0] in ("fit", "explain", "evaluate") else [])], monkeypatch, capsys
    )
    _judge(case, ran.code, ran.out, ran.err)
    assert contents(folder) == before


@pytest.mark.parametrize("case", [c for c in CASES if c.name in REAL], ids=lambda case: case.name)
def test_the_same_in_a_process_of_its_own(case: Bad, folder: Path) -> None:
    arguments = case.make(folder)
    before = contents(folder)
    ran = subprocess.run(
        [sys.executable, "-m", "rightly", *arguments, "--quiet"], cwd=folder, capture_output=True, text=True
    )
    _judge(case, ran.returncode, ran.stdout, ran.stderr)
    assert contents(folder) == before


def _judge(case: Bad, code: int, out: str, err: str) -> None:
    assert code == 2, (out, err)
    assert out == ""
    assert "Traceback" not in err
    assert err.startswith("Usage" if case.usage else "rightly: "), err
    assert err.count("rightly: ") == (0 if case.usage else 1), err
    assert all(word in err for word in case.words), err


@pytest.mark.parametrize(
    "part",
    [mistakes_arguments, mistakes_evaluate, mistakes_images, mistakes_rules, mistakes_runs, mistakes_tables],
)
def test_every_file_of_mistakes_counts(part: ModuleType) -> None:
    assert sum(case.make.__module__ == part.__name__ for case in CASES) >= 15


def test_there_are_enough_mistakes() -> None:
    assert len(CASES) >= 100
    assert len({case.name for case in CASES}) == len(CASES)


def test_a_maker_that_raises_shows_its_own_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong in the user's own code is not ours to shorten: the traceback leads to the line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad_raises.py").write_text("def make(seed):\n    raise KeyError('my own')\n", encoding="utf-8")
    with pytest.raises(KeyError, match="my own"):
        run(["fit", "bad_raises:make", "--out", "run"], monkeypatch, capsys)
    assert not (tmp_path / "run").exists()
