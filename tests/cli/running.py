"""Run a command in this process, as a person would type it, and see what it did."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from rightly.cli import main


@dataclass(frozen=True)
class Ran:
    """Exit code, what was printed, and what the folder held afterwards."""

    code: int
    out: str
    err: str


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ran:
    """``rightly ARGUMENTS``; modules and paths that the command imports are forgotten again."""
    monkeypatch.setattr(sys, "argv", ["rightly", *arguments])
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    capsys.readouterr()
    code: object = 0
    try:
        main()
    except SystemExit as stopped:
        code = stopped.code
    finally:
        for name in set(sys.modules) - before:
            if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(Path.cwd()):
                del sys.modules[name]
    printed = capsys.readouterr()
    return Ran(int(code or 0) if isinstance(code, int | None) else 1, printed.out, printed.err)


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder with a digest of its bytes, and every folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name == "__pycache__" or path.suffix == ".pyc":
            continue
        inner = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        found[path.relative_to(folder).as_posix()] = inner
    return found
