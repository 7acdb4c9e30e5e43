"""Files are written whole or not at all, read back as they were, and refused in one clear sentence."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from report.examples import bare_record, full_figures, full_record
from rightly.core.errors import DataError
from rightly.report import files, read_figures, read_record, render, write_record, write_report


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    path = write_record(tmp_path / "new", full_record(), full_figures())
    assert path == tmp_path / "new" / "record.json"
    assert read_record(tmp_path / "new") == full_record()
    assert read_figures(tmp_path / "new") == full_figures()
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["figures.json", "record.json"]


def test_the_page_is_the_same_from_memory_and_from_disk(tmp_path: Path) -> None:
    names = ("plain", "sparsity", "no-decoy")
    record, figures = full_record(names=names), full_figures(names=names)
    record["runs"]["no-decoy"]["prior"] = None
    write_record(tmp_path, record, figures)
    assert render(read_record(tmp_path), read_figures(tmp_path)) == render(record, figures)


def test_the_order_of_the_keys_does_not_change_a_byte(tmp_path: Path) -> None:
    record = full_record()
    turned = dict(reversed(record.items()))
    turned["runs"] = dict(reversed(record["runs"].items()))
    first = write_record(tmp_path / "a", record).read_bytes()
    assert write_record(tmp_path / "b", turned).read_bytes() == first
    assert render(turned) == render(record)


def test_numpy_is_written_as_json(tmp_path: Path) -> None:
    record = bare_record()
    record["runs"]["plain"]["seconds"] = np.float64(2.0)
    record["runs"]["plain"]["explanations"]["lorenz"] = np.linspace(0, 1, 101)
    loaded = json.loads(write_record(tmp_path, record).read_text(encoding="utf-8"))
    assert loaded["runs"]["plain"]["explanations"]["lorenz"][100] == 1.0


def test_a_folder_without_figures_has_none(tmp_path: Path) -> None:
    write_record(tmp_path, bare_record())
    assert read_figures(tmp_path) is None


def test_a_bad_record_writes_nothing(tmp_path: Path) -> None:
    record = bare_record()
    record["runs"]["plain"]["metrics"]["test"]["auc"]["mean"] = float("nan")
    with pytest.raises(DataError):
        write_record(tmp_path / "out", record, full_figures())
    with pytest.raises(DataError):
        write_report(tmp_path / "out", record)
    with pytest.raises(DataError):
        write_record(tmp_path / "out", bare_record(), {"maps": [1]})
    assert not (tmp_path / "out").exists()


def test_a_missing_record_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"record\.json cannot be read") as caught:
        read_record(tmp_path / "nowhere")
    assert caught.value.mend


@pytest.mark.parametrize("content", [b"", b'{"schema": 1', b"\xff\xfe\x00", b"[" * 100_000, b"NaN and more"])
def test_a_broken_file_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(DataError, match="is not a whole JSON file"):
        read_record(tmp_path)


@pytest.mark.parametrize("content", ["[]", "null", "3", '{"schema": 7}', '{"schema": NaN}'])
def test_json_that_is_no_record_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "record.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="the record cannot be used"):
        read_record(tmp_path)


def test_a_report_is_one_file_and_overwrites_the_old_one(tmp_path: Path) -> None:
    path = write_report(tmp_path, full_record(), full_figures())
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]
    first = path.read_text(encoding="utf-8")
    assert write_report(tmp_path, bare_record()) == path
    assert path.read_text(encoding="utf-8") != first


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_leaves_the_old_page_and_no_scraps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    old = write_report(tmp_path, bare_record()).read_text(encoding="utf-8")

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(files.os, step, fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(tmp_path, full_record())
    monkeypatch.undo()
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == old


def test_a_page_is_never_seen_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the moment of the move the file aside is complete, and nothing is at the final place yet."""
    seen = []

    def watch(aside: Any, path: Any, move: Any = os.replace) -> None:
        seen.append((Path(path).exists(), Path(aside).parent == Path(path).parent, Path(aside).read_text("utf-8")))
        move(aside, path)

    monkeypatch.setattr(files.os, "replace", watch)
    path = write_report(tmp_path, bare_record())
    assert seen == [(False, True, path.read_text(encoding="utf-8"))]


def test_a_file_where_the_folder_should_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file", encoding="utf-8")
    with pytest.raises(OSError):
        write_report(tmp_path / "taken", bare_record())
