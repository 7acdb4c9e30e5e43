"""The ``run`` script: what it decides, and that an interrupted or doubled set-up does no harm. No network, no venv."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
POSIX = os.name == "posix"


@pytest.fixture(scope="module")
def run() -> ModuleType:
    loader = SourceFileLoader("run", str(ROOT / "run"))
    spec = importlib.util.spec_from_loader("run", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture
def house(run: ModuleType, tmp_path: Path) -> Any:
    """A checkout with nothing but what the set-up reads."""
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "constraints.txt").write_text("# exact\ntorch==2.13.0\ntorchish==9.9\nnumpy==2.4.6\n")
    return run.House(tmp_path)


@pytest.fixture
def launched(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the verbs would start; the set-up is skipped."""
    calls: list[dict[str, Any]] = []

    def launch(command: list[str], env: dict[str, str], folder: Path | None = None) -> int:
        calls.append({"command": command, "env": env, "folder": folder})
        return 0

    monkeypatch.setattr(run, "launch", launch)
    monkeypatch.setattr(run, "set_up", lambda house: False)
    return calls


# ---- verbs


def test_an_unknown_verb_ends_with_2_and_names_the_verbs(
    run: ModuleType, house: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["tset"], house) == 2
    error = capsys.readouterr().err
    assert "tset" in error
    assert all(verb in error for verb in run.VERBS)
    assert error.count("\n") == 1


def test_the_script_itself_starts_without_a_set_up() -> None:
    answer = subprocess.run([sys.executable, str(ROOT / "run"), "nonsense"], capture_output=True, text=True)
    assert (answer.returncode, answer.stdout) == (2, "")
    answer = subprocess.run([sys.executable, str(ROOT / "run"), "--help"], capture_output=True, text=True)
    assert answer.returncode == 0
    assert "RIGHTLY_TORCH_INDEX" in answer.stdout


def test_help_tells_of_every_verb(run: ModuleType, house: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main([], house) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {verb} " in text for verb in run.VERBS)


@pytest.mark.parametrize(
    ("version", "fine"), [((3, 11, 0), True), ((3, 14, 1), True), ((3, 10, 13), False), ((2, 7, 18), False)]
)
def test_an_old_python_gets_a_sentence(run: ModuleType, version: tuple[int, ...], fine: bool) -> None:
    problem = run.version_problem(version)
    assert (problem == "") is fine
    assert fine or ("3.11" in problem and ".".join(map(str, version)) in problem)


def test_demo_passes_its_arguments_and_leaves_the_threads(
    run: ModuleType, house: Any, launched: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert run.main(["demo", "--quick", "--out", "there"], house) == 0
    (call,) = launched
    assert call["command"] == [str(house.python), "-m", "rightly", "demo", "--quick", "--out", "there"]
    assert call["folder"] is None  # where the user stands
    assert call["env"]["OMP_NUM_THREADS"] == "7"


def test_test_runs_pytest_without_a_screen_or_a_hub(
    run: ModuleType, house: Any, launched: list[dict[str, Any]]
) -> None:
    assert run.main(["test", "-k", "foo"], house) == 0
    (call,) = launched
    assert call["command"] == [str(house.python), "-m", "pytest", "-k", "foo"]
    assert call["folder"] == house.root
    assert call["env"]["MPLBACKEND"] == "Agg"
    assert call["env"]["HF_HUB_OFFLINE"] == "1"


def test_bench_without_its_folder_says_so(
    run: ModuleType, house: Any, launched: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["bench", "--list"], house) == 2
    assert capsys.readouterr().out.count("\n") == 1
    assert not launched
    (house.root / "benchmarks").mkdir()
    assert run.main(["bench", "--list"], house) == 0
    assert launched[0]["command"][1:] == ["-m", "benchmarks", "--list"]


def test_shell_runs_python_or_a_command(
    run: ModuleType, house: Any, launched: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.shutil, "which", lambda name, path: None if name == "absent" else f"/x/{name}")
    assert run.main(["shell", "--", "pip", "list"], house) == 0
    assert run.main(["shell", "--", "absent"], house) == 127
    assert run.main(["shell"], house) == 0
    assert [call["command"][1:] for call in launched] == [["list"], ["-i", "-c", "import rightly as rt"]]


def test_lint_runs_every_tool_and_fails_if_one_does(
    run: ModuleType, house: Any, launched: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def call(command: list[str], **_: object) -> int:
        seen.append(" ".join(command[2:]))
        return 3 if "check" in command else 0

    monkeypatch.setattr(run.subprocess, "call", call)
    assert run.main(["lint"], house) == 3
    assert seen == ["ruff check .", "ruff format --check .", "mypy"]
    seen.clear()
    run.main(["lint", "--fix"], house)
    assert seen == ["ruff check --fix .", "ruff format .", "mypy"]
    assert run.main(["lint", "--fxi"], house) == 2


def test_a_failed_set_up_is_one_line_and_1(
    run: ModuleType, house: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(house: Any) -> bool:
        raise run.SetupError("no room on the disk")

    monkeypatch.setattr(run, "set_up", fail)
    assert run.main(["setup"], house) == 1
    assert capsys.readouterr().err == "run: no room on the disk\n"


# ---- key and stamp


def test_the_key_follows_what_the_environment_is_made_from(
    run: ModuleType, house: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = run.set_up_key(house, {})
    assert key == run.set_up_key(house, {"PATH": "elsewhere"})
    keys = {key, run.set_up_key(house, {"RIGHTLY_TORCH": "torch==2.12.0"})}
    house.constraints.write_text("torch==2.13.1\n")
    keys.add(run.set_up_key(house, {}))
    (house.root / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    keys.add(run.set_up_key(house, {}))
    monkeypatch.setattr(run, "interpreter", lambda: ["3.12.0", "/usr", "x86_64"])
    keys.add(run.set_up_key(house, {}))
    assert len(keys) == 5


def test_ready_needs_the_stamp_and_a_python(run: ModuleType, house: Any) -> None:
    assert not run.is_ready(house, "abc")
    house.venv.mkdir()
    run.write_stamp(house, "abc")
    assert not run.is_ready(house, "abc")
    house.python.parent.mkdir()
    house.python.touch()
    assert run.is_ready(house, "abc")
    assert not run.is_ready(house, "abd")
    house.stamp.write_bytes(b"\xff\xfe")
    assert not run.is_ready(house, "abc")


@pytest.fixture
def steps(run: ModuleType, house: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The steps of a set-up, replaced by their names; each notes whether the stamp was there already."""
    order: list[str] = []

    def fake(name: str) -> Any:
        def note(house: Any, lock: int = 0) -> str:
            order.append(name + ("!" if house.stamp.exists() else ""))
            house.python.parent.mkdir(parents=True, exist_ok=True)
            house.python.touch()
            return "torch"

        return note

    for name in ("make_environment", "install_torch", "install_packages", "smoke"):
        monkeypatch.setattr(run, name, fake(name))
    return order


def test_the_stamp_comes_last_and_spares_the_next_run(run: ModuleType, house: Any, steps: list[str]) -> None:
    assert run.set_up(house) is True
    assert steps == ["make_environment", "install_torch", "install_packages", "smoke"]
    assert run.set_up(house) is False
    assert len(steps) == 4


def test_an_interrupted_set_up_is_not_ready(
    run: ModuleType, house: Any, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run.set_up(house)
    house.constraints.write_text("torch==2.13.1\n")

    def interrupted(house: Any, lock: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run, "install_packages", interrupted)
        assert run.main(["setup"], house) == 130
    assert not house.stamp.exists()
    assert run.set_up(house) is True


# ---- which torch


def report(version: str) -> str:
    return json.dumps({"version": "1", "install": [{"metadata": {"name": "torch", "version": version}}]})


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (report("2.13.0+cpu"), "2.13.0+cpu"),
        (report("2.13.0"), "2.13.0"),
        ("WARNING: something\n" + report("2.13.0"), "2.13.0"),
        ('{"install": []}', None),
        ('{"install": [', None),
        ("", None),
        ("[]", None),
    ],
)
def test_what_pip_reports_is_read(run: ModuleType, text: str, version: str | None) -> None:
    assert run.reported_version(text) == version


PIN = ["torch==2.13.0"]
FROM_INDEX = [*PIN, "--index-url", "cpu-index", "--retries", "1"]


@pytest.mark.parametrize(
    ("system", "nvidia", "spec", "index", "installed", "answer", "expected"),
    [
        ("linux", False, "", "", None, "2.13.0+cpu", [PIN]),
        ("linux", False, "", "cpu-index", None, "2.13.0+cpu", [PIN]),
        ("linux", False, "", "cpu-index", None, "2.13.0", [FROM_INDEX, PIN]),
        ("linux", False, "", "cpu-index", None, None, [FROM_INDEX, PIN]),
        ("linux", False, "", "", None, "2.13.0", [PIN]),
        ("linux", False, "", "", "2.12.0+cpu", "2.13.0+cpu", [PIN]),
        ("linux", False, "", "", "2.13.0+cpu", "unasked", []),
        ("linux", False, "", "", "2.13.0", "unasked", []),
        ("linux", True, "", "cpu-index", None, "unasked", [PIN]),
        ("darwin", False, "", "cpu-index", None, "unasked", [PIN]),
        ("win32", False, "", "cpu-index", None, "unasked", [PIN]),
        ("linux", False, "torch==2.12.0 --pre", "", "2.13.0", "unasked", [["torch==2.12.0", "--pre"]]),
    ],
)
def test_the_plan_for_torch(
    run: ModuleType,
    system: str,
    nvidia: bool,
    spec: str,
    index: str,
    installed: str | None,
    answer: str | None,
    expected: list[list[str]],
) -> None:
    def ask() -> str | None:
        assert answer != "unasked"
        return answer

    plan = run.torch_plan("2.13.0", run.Machine(system, nvidia, spec, index), installed, ask)
    assert [attempt.arguments for attempt in plan] == expected


def test_the_large_download_is_announced(run: ModuleType) -> None:
    plan = run.torch_plan("2.13.0", run.Machine("linux", False, "", ""), None, lambda: "2.13.0")
    assert "5 GB" in plan[0].says
    assert "RIGHTLY_TORCH_INDEX" in plan[0].says
    small = run.torch_plan("2.13.0", run.Machine("linux", False, "", ""), None, lambda: "2.13.0+cpu")
    assert "GB" not in small[0].says


def test_a_failed_index_falls_back_to_the_default_build(
    run: ModuleType, house: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: list[list[str]] = []

    def step(command: list[str], house: Any, lock: int, problem: str, **extra: str) -> None:
        tried.append(command[6:])
        if "--index-url" in command:
            raise run.SetupError(problem)

    machine = run.Machine("linux", False, "", "cpu-index")
    monkeypatch.setattr(run.Machine, "here", classmethod(lambda cls, env: machine))
    monkeypatch.setattr(run, "step", step)
    monkeypatch.setattr(run, "what_pip_would_install", lambda house, pin: "2.13.0")
    run.install_torch(house, 0)
    assert tried == [FROM_INDEX, PIN]
    assert "5 GB" in capsys.readouterr().out


def test_the_pin_is_read_from_the_constraints(run: ModuleType) -> None:
    assert run.pinned_torch("# all\nnumpy==2.4.6\ntorch==2.13.0\n") == "2.13.0"
    with pytest.raises(run.SetupError, match="torch==VERSION"):
        run.pinned_torch("torchvision==0.28.0\n")


def test_torch_is_held_to_the_pin(run: ModuleType, house: Any) -> None:
    run.check_torch("2.13.0", house, {})
    run.check_torch("2.13.0+cpu", house, {})
    run.check_torch("2.15.0", house, {"RIGHTLY_TORCH": "torch==2.15.0"})
    with pytest.raises(run.SetupError, match=r"2\.15\.0\+cu130"):
        run.check_torch("2.15.0+cu130", house, {})


def test_a_users_torch_replaces_the_pin_in_the_constraints(run: ModuleType, house: Any) -> None:
    assert run.chosen_constraints(house) == house.constraints
    (run.packages_folder(house) / "torch-2.12.0+cu126.dist-info").mkdir(parents=True)
    assert run.installed_torch(house) == "2.12.0+cu126"
    chosen = run.chosen_constraints(house).read_text()
    assert chosen == house.constraints.read_text().replace("torch==2.13.0", "torch==2.12.0")


# ---- a damaged .venv


def install(packages: Path, name: str, text: str = "x = 1\n") -> Path:
    """A package as pip leaves it."""
    info = packages / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (packages / f"{name}.py").write_text(text)
    rows = [f"{name}.py,sha256=abc,{len(text)}", f"__pycache__/{name}.pyc,,", f"{info.name}/RECORD,,"]
    (info / "RECORD").write_text("\n".join(rows) + "\n")
    return info


def test_half_installed_packages_are_found_and_forgotten(run: ModuleType, house: Any) -> None:
    packages = run.packages_folder(house)
    whole, no_record = install(packages, "whole"), install(packages, "norecord")
    lost, cut = install(packages, "lost"), install(packages, "cut")
    (no_record / "RECORD").unlink()
    (packages / "lost.py").unlink()
    (packages / "cut.py").write_text("x")
    (packages / "~hole").mkdir()
    assert run.half_installed(packages) == sorted([no_record, lost, cut])
    run.mend(house)
    assert [path.name for path in packages.glob("*.dist-info")] == [whole.name]
    assert not (packages / "~hole").exists()


def test_a_venv_without_a_whole_pip_is_made_anew(run: ModuleType, house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(run, "step", lambda command, house, lock, problem: commands.append(command))
    answer = subprocess.CompletedProcess([], 0, stdout=json.dumps(run.interpreter()))
    monkeypatch.setattr(run.subprocess, "run", lambda *_, **__: answer)
    run.make_environment(house, 0)
    assert commands[0][1:] == ["-m", "venv", "--clear", str(house.venv)]
    install(run.packages_folder(house), "pip")
    run.make_environment(house, 0)
    assert len(commands) == 1
    answer.stdout = json.dumps(["3.12.0", *run.interpreter()[1:]])  # made from another Python
    run.make_environment(house, 0)
    assert len(commands) == 2


# ---- steps and environments


def test_a_step_says_that_it_lives_and_how_it_failed(
    run: ModuleType, house: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "SIGN_OF_LIFE", 0.05)
    with run.locked(house.lock) as lock:
        run.step([sys.executable, "-c", "import time; time.sleep(0.5)"], house, lock, "")
        assert "still at it" in capsys.readouterr().out
        with pytest.raises(run.SetupError, match="the disk is full"):
            run.step([sys.executable, "-c", "raise SystemExit(1)"], house, lock, "the disk is full")


def test_pip_is_kept_to_the_venv(run: ModuleType) -> None:
    env = run.pip_environment({"PIP_TARGET": "x", "PYTHONPATH": "y", "PIP_USER": "1", "PIP_FIND_LINKS": "w"})
    assert not {"PIP_TARGET", "PYTHONPATH"} & set(env)
    assert env["PIP_USER"] == "0"
    assert env["PIP_FIND_LINKS"] == "w"  # where wheels are is the user's to say


def test_a_child_finds_the_venv_first(run: ModuleType, house: Any) -> None:
    env = run.child_environment(house, {"PATH": "before", "PYTHONHOME": "x", "HOME": "h"}, MPLBACKEND="Agg")
    assert env == {
        "PATH": f"{house.bin}{os.pathsep}before",
        "VIRTUAL_ENV": str(house.venv),
        "HOME": "h",
        "MPLBACKEND": "Agg",
    }


# ---- the lock


HOLD = """
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

script, root = sys.argv[1:]
run = ModuleType("run")
SourceFileLoader("run", script).exec_module(run)
house = run.House(Path(root))
with run.locked(house.lock) as lock:
    sleep = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    run.step([sys.executable, "-c", sleep], house, lock, "")
"""


@pytest.fixture
def holder(house: Any) -> Iterator[subprocess.Popen[str]]:
    """Another process in the middle of a set-up; the step that it waits for prints its own number."""
    command = [sys.executable, "-c", HOLD, str(ROOT / "run"), str(house.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.mark.skipif(not POSIX, reason="kills by signal and passes file descriptors")
def test_the_lock_lasts_as_long_as_its_holders(run: ModuleType, house: Any, holder: subprocess.Popen[str]) -> None:
    assert holder.stdout is not None
    step = int(holder.stdout.readline())
    handle = os.open(house.lock, os.O_RDWR)
    try:
        assert not run.try_lock(handle)
        holder.kill()
        holder.wait()
        assert not run.try_lock(handle)  # its pip still writes
        os.kill(step, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while not (got := run.try_lock(handle)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert got
    finally:
        os.close(handle)


def test_a_second_run_waits_and_then_finds_it_done(
    run: ModuleType, house: Any, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other run finishes while we wait for the lock: nothing is done twice."""
    key, answers = run.set_up_key(house, os.environ), [False, True]

    def try_lock(handle: int) -> bool:
        if len(answers) == 1:
            house.python.parent.mkdir(parents=True)
            house.python.touch()
            run.write_stamp(house, key)
        return answers.pop(0)

    monkeypatch.setattr(run, "try_lock", try_lock)
    assert run.set_up(house) is True
    assert (steps, answers) == ([], [])


# ---- the pins


def test_every_package_that_the_set_up_brings_is_pinned() -> None:
    """An unpinned one would be whatever is newest on the day of the set-up."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {canonicalize_name(line.partition("==")[0]) for line in lines if not line.startswith("#")}
    reached = requirements_of("rightly", {"dev"})
    assert len(reached) > 40
    assert not {name for name in reached if not name.startswith(("nvidia", "cuda", "triton", "rightly"))} - pinned


def requirements_of(name: str, extras: set[str]) -> set[str]:
    """Everything that the installed package needs here, and what that needs, and so on."""
    reached: set[str] = set()
    waiting = [(name, frozenset(extras))]
    seen = set(waiting)
    while waiting:
        package, asked = waiting.pop()
        for text in importlib.metadata.requires(package) or []:
            need = Requirement(text)
            marks = [need.marker is None or need.marker.evaluate({"extra": extra}) for extra in (*asked, "")]
            found = (canonicalize_name(need.name), frozenset(need.extras))
            if any(marks) and found not in seen:
                seen.add(found)
                waiting.append(found)
                reached.add(found[0])
    return reached
