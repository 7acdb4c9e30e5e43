"""What people get wrong, one function a mistake: it makes the files and returns what is typed.

Each names words that its message must hold. The mistakes themselves are in the files beside this one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from workflows.made import classes

Make = Callable[[Path], list[str]]


@dataclass(frozen=True)
class Bad:
    """One mistake: ``make(folder)`` prepares the folder and returns the arguments."""

    name: str
    words: tuple[str, ...]
    make: Make
    usage: bool = False


CASES: list[Bad] = []


def bad(*words: str, usage: bool = False) -> Callable[[Make], Make]:
    """Register a mistake under its function's name."""

    def register(make: Make) -> Make:
        CASES.append(Bad(make.__name__, words, make, usage))
        return make

    return register


def fit(source: str | Path, *arguments: str, label: str | None = "y") -> list[str]:
    """``rightly fit`` as small as it gets."""
    labelled = [] if label is None else ["--label", label]
    return ["fit", str(source), *labelled, "--seeds", "1", "--epochs", "1", "--weight", "1", "--out", "run", *arguments]


def saved(folder: Path, frame: pd.DataFrame | None = None) -> Path:
    """A sound table, or the one given, as CSV."""
    path = folder / "table.csv"
    (classes(60) if frame is None else frame).to_csv(path, index=False)
    return path


def written(folder: Path, content: bytes, name: str = "table.csv") -> Path:
    """A file with these bytes."""
    (folder / name).write_bytes(content)
    return folder / name
