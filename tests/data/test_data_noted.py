"""What is read is noted by its contents, wherever it lies; outside a run nothing is."""

from __future__ import annotations

import numpy as np
import pytest

import rightly as rt
from rightly.data.noted import file_digest, note_file, note_listing, noted, read_so_far


def test_files_are_told_by_their_contents(tmp_path):
    (tmp_path / "a").write_text("one")
    (tmp_path / "b").write_text("two")
    note_file("outside", tmp_path / "a")
    assert read_so_far() == {}
    with noted():
        for name in "ab":
            note_file(name, tmp_path / name)
            note_file(f"again {name}", tmp_path / name)
        note_file("nothing", tmp_path / "absent")
        found = read_so_far()
        with noted():
            assert read_so_far() == {}
    assert read_so_far() == {}
    assert set(found) == {"a", "b", "again a", "again b"}
    assert found["a"] == found["again a"] != found["b"]


def test_listings_are_told_by_names_and_sizes(tmp_path):
    def listed(*files):
        for folder, name, text in files:
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / name).write_text(text)
        with noted():
            note_listing("pictures", [tmp_path / folder / name for folder, name, _ in files])
            return read_so_far()["pictures"]

    one = listed(("cat", "1.png", "abc"), ("dog", "1.png", "abcd"))
    assert one == listed(("cat", "1.png", "abc"), ("dog", "1.png", "dcba"))
    assert one != listed(("cat", "1.png", "abcd"), ("dog", "1.png", "abcd"))
    assert one != listed(("cat", "1.png", "abc"), ("fox", "1.png", "abcd"))
    assert one != listed(("cat", "1.png", "abc"))


@pytest.mark.parametrize("values", [0, 1])
def test_the_catalogue_notes_what_it_opens(tmp_path, monkeypatch, values):
    entry = rt.data.ENTRIES["mnist"]
    np.savez(tmp_path / entry.file, x=np.full(3, values))
    monkeypatch.setitem(rt.data.ENTRIES, "mnist", type(entry)(**{**vars(entry), "sha256": None}))
    with noted():
        rt.data.load_arrays("mnist", data_dir=tmp_path)
        ((name, digest),) = read_so_far().items()
    assert name == entry.file
    assert digest == file_digest(tmp_path / entry.file)[:16]
