"""Which data a piece of work reads, so that a run can tell that it would go on with other data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_READ: ContextVar[dict[str, str] | None] = ContextVar("data that were read", default=None)


@contextmanager
def noted() -> Iterator[None]:
    """Inside, every file of the catalogue and every folder that this room reads is noted: see ``read_so_far``."""
    token = _READ.set({})
    try:
        yield
    finally:
        _READ.reset(token)


def read_so_far() -> dict[str, str]:
    """Name of what was read, wherever it lies -> the head of a SHA-256 of what it holds; empty outside ``noted``."""
    return dict(_READ.get() or {})


def note(name: str, digest: str) -> None:
    """Note data by a digest that is known."""
    if (read := _READ.get()) is not None:
        read[name] = digest[:16]


def note_file(name: str, path: Path) -> None:
    """Note a file by its bytes."""
    if _READ.get() is not None and path.is_file():
        note(name, file_digest(path))


def note_listing(name: str, paths: Sequence[Path]) -> None:
    """Note many files by their names, their folders' names and their sizes."""
    if _READ.get() is not None:
        listed = "\n".join(f"{path.parent.name}/{path.name} {path.stat().st_size}" for path in paths)
        note(name, hashlib.sha256(listed.encode()).hexdigest())


def file_digest(path: Path) -> str:
    """SHA-256, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
