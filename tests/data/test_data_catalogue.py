"""The catalogue: the order of places, checksums, downloads that leave nothing behind, and clear errors."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import gzip
import hashlib
import http.server
import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import rightly.data
from rightly.core.errors import ArgumentError, DataError, MissingExtraError
from rightly.data import ENTRIES, Entry, FrameData, available, catalogue, download, load, load_arrays, load_frame

SHARED = os.environ.get("RIGHTLY_DATA")


@pytest.fixture
def alone(monkeypatch, tmp_path) -> Path:
    """No data folder, and an empty cache of this test's own, which is returned."""
    monkeypatch.delenv("RIGHTLY_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rightly"


def listed(monkeypatch, **fields) -> Entry:
    """A small entry of the catalogue, for this test only."""
    entry = Entry(**{"name": "toy", "file": "toy.npz", "kind": "npz", "sha256": None, **TEXTS, **fields})
    monkeypatch.setitem(ENTRIES, entry.name, entry)
    return entry


TEXTS = {"title": "a toy", "licence": "none", "source": "the toy shop"}


def stored(folder: Path, name: str = "toy.npz", value: int = 1) -> str:
    """Write an ``.npz`` and return its digest."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / name, x=np.array([value]))
    return hashlib.sha256((folder / name).read_bytes()).hexdigest()


# --- places -----------------------------------------------------------------------------------------------------


def test_the_folder_given_comes_before_the_environment_before_the_cache(monkeypatch, alone, tmp_path):
    digests = [stored(tmp_path / "given", value=1), stored(tmp_path / "env", value=2), stored(alone, value=3)]
    monkeypatch.setenv("RIGHTLY_DATA", str(tmp_path / "env"))
    found = []
    for digest in digests:
        listed(monkeypatch, sha256=digest)
        found.append(load("toy", data_dir=tmp_path / "given")["x"].tolist())
        assert available(tmp_path / "given")["toy"].startswith(("data folder", "RIGHTLY_DATA", "cache")[len(found) - 1])
        place = (tmp_path / "given", tmp_path / "env", alone)[len(found) - 1]
        (place / "toy.npz").unlink()
    assert found == [[1], [2], [3]]
    assert available(tmp_path / "given")["toy"].startswith("not here: no file toy.npz")


def test_an_absent_data_set_names_its_source_and_every_place(monkeypatch, alone, tmp_path):
    listed(monkeypatch, sha256="0" * 64)
    with pytest.raises(DataError) as caught:
        load("toy", data_dir=tmp_path)
    for part in ("toy.npz", "the toy shop", "RIGHTLY_DATA", str(alone), str(tmp_path / "toy.npz")):
        assert part in str(caught.value)


def test_a_folder_that_does_not_exist_is_told(alone, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        load("mnist", data_dir=tmp_path / "absent")


def test_another_file_of_the_same_name_is_refused(monkeypatch, alone, tmp_path):
    listed(monkeypatch, sha256="0" * 64)
    stored(tmp_path)
    with pytest.raises(DataError, match="is not the catalogue's file 'toy', or it is damaged") as caught:
        load("toy", data_dir=tmp_path)
    assert "remove it or replace it" in caught.value.mend


def test_nothing_is_unpickled(monkeypatch, alone, tmp_path):
    np.savez(tmp_path / "toy.npz", x=np.array([{"a": 1}], dtype=object))
    listed(monkeypatch, sha256=hashlib.sha256((tmp_path / "toy.npz").read_bytes()).hexdigest())
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load("toy", data_dir=tmp_path)


def test_names_and_kinds_are_checked(alone):
    with pytest.raises(ArgumentError, match="did you mean 'mnist'"):
        load("mnits")
    with pytest.raises(ArgumentError, match="load_frame for tables"):
        load_arrays("nhefs")
    with pytest.raises(ArgumentError, match="of kind npz"):
        load_frame("digits")


def test_what_is_always_here_needs_no_folder_and_no_network(monkeypatch, alone):
    pytest.importorskip("pandas", reason="tables need pandas")
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    monkeypatch.setattr(download.urllib.request, "urlopen", lambda *_, **__: pytest.fail("went to the network"))
    places = available()
    assert set(places) == set(ENTRIES)
    assert places["nhefs"] == "embedded"
    assert places["digits"] == "package: sklearn"
    assert places["mnist"].startswith("not here yet: will be downloaded from https://")
    table = load("nhefs")
    assert isinstance(table, FrameData)
    assert table.frame.shape == (1629, 67)
    assert table.entry.licence.startswith("MIT")
    digits = load("digits")
    assert (digits["x"].shape, digits["x"].dtype, digits["x"].max()) == ((1797, 8, 8), np.uint8, 16)
    assert not alone.exists()


def test_the_embedded_file_is_the_catalogued_one_and_names_its_licence():
    folder = Path(rightly.data.__file__).parent / "embedded"
    packed = (folder / "nhefs.csv.gz").read_bytes()
    assert hashlib.sha256(packed).hexdigest() == ENTRIES["nhefs"].sha256
    assert packed[4:8] == b"\0\0\0\0"  # the time in a gzip header: none, so that the file can be made again
    assert "MIT License" in (folder / "nhefs.LICENCE.txt").read_text()


def test_entries_are_complete():
    for entry in ENTRIES.values():
        assert entry.title, entry
        assert entry.licence, entry
        assert entry.source, entry
        assert (entry.sha256 is None) == (entry.package is not None), entry
        assert entry.package or entry.file.endswith(".npz" if entry.kind == "npz" else ".csv.gz"), entry


# --- downloads --------------------------------------------------------------------------------------------------


def idx(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + b"".join(length.to_bytes(4, "big") for length in array.shape)
    return gzip.compress(head + array.tobytes(), mtime=0)


ARRAYS = {
    "x_train": np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2),
    "y_train": np.arange(6, dtype=np.uint8),
    "x_test": np.arange(3 * 4, dtype=np.uint8).reshape(3, 2, 2),
    "y_test": np.arange(3, dtype=np.uint8),
}


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    """A folder with four small IDX files, which the catalogue's checksums are set to."""
    folder, files = tmp_path / "site", {}
    folder.mkdir()
    for name, (file, _) in download.MNIST_FILES.items():
        content = idx(ARRAYS[name])
        (folder / file).write_bytes(content)
        files[name] = (file, hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(catalogue, "fetch_mnist", functools.partial(download.fetch_mnist, files=files))
    return folder


def official(monkeypatch, base: str) -> None:
    monkeypatch.setitem(ENTRIES, "mnist", dataclasses.replace(ENTRIES["mnist"], url=base))


@contextlib.contextmanager
def served(folder: Path):
    """The folder on the loopback address; yields its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()


def test_mnist_is_downloaded_once_and_then_comes_from_the_cache(monkeypatch, alone, site):
    with served(site) as base:
        official(monkeypatch, base)
        first = load_arrays("mnist")
    assert available()["mnist"] == f"cache: {alone / 'mnist_full.npz'}"
    second = load_arrays("mnist")  # nobody answers any more
    for arrays in (first, second):
        assert set(arrays) == set(ARRAYS)
        assert all((arrays[name] == ARRAYS[name]).all() for name in ARRAYS)
    assert sorted(path.name for path in alone.iterdir()) == ["mnist_full.npz", "mnist_full.npz.sha256"]


def test_a_damaged_file_in_the_cache_is_told(monkeypatch, alone, site):
    official(monkeypatch, site.as_uri() + "/")
    load_arrays("mnist")
    content = (alone / "mnist_full.npz").read_bytes()
    (alone / "mnist_full.npz").write_bytes(content[:-1] + b"\0\0")
    with pytest.raises(DataError, match="or it is damaged"):
        load_arrays("mnist")


def test_a_corrupted_download_leaves_nothing(monkeypatch, alone, site):
    path = site / "t10k-labels-idx1-ubyte.gz"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    official(monkeypatch, site.as_uri() + "/")
    with pytest.raises(DataError) as caught:
        load_arrays("mnist")
    for part in ("could not be downloaded", "not the file that was asked for", "SHA-256", "RIGHTLY_DATA"):
        assert part in str(caught.value)
    assert not alone.exists() or not list(alone.iterdir())


def test_a_missing_page_and_a_silent_address_are_told(monkeypatch, alone, site):
    with served(site) as base:
        official(monkeypatch, base + "elsewhere/")
        with pytest.raises(DataError, match="cannot be downloaded"):
            load_arrays("mnist")
    official(monkeypatch, base)
    with pytest.raises(DataError, match=r"put mnist_full\.npz into a folder and set RIGHTLY_DATA"):
        load_arrays("mnist")
    assert not alone.exists() or not list(alone.iterdir())


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"junk",
        gzip.compress(b""),
        gzip.compress(b"\0\0\x09\1\0\0\0\1\0"),
        idx(ARRAYS["x_train"])[:-9],
        gzip.compress(b"\0\0\x08\2\0\0\0\2\0\0\0\2abc"),
    ],
)
def test_what_is_no_idx_file_is_told(packed):
    with pytest.raises(DataError, match="digits is not an IDX file"):
        download.read_idx(packed, "digits")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "new" / "file"
    with download.written_aside(target) as stream:
        stream.write(b"old")
    with contextlib.suppress(KeyboardInterrupt), download.written_aside(target) as stream:
        stream.write(b"half")
        raise KeyboardInterrupt
    assert target.read_bytes() == b"old"
    assert [path.name for path in target.parent.iterdir()] == ["file"]
    (tmp_path / "blocked").write_text("a file where a folder is needed")
    with pytest.raises(DataError, match="cannot be written to"), download.written_aside(tmp_path / "blocked" / "file"):
        pass


def test_the_cache_follows_the_platform(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert catalogue.cache_folder() == tmp_path / "rightly"
    monkeypatch.delenv("XDG_CACHE_HOME")
    if os.name != "nt":
        assert catalogue.cache_folder() == Path.home() / ".cache" / "rightly"


# --- the files of a data folder ---------------------------------------------------------------------------------

EXTERNAL = [name for name, entry in ENTRIES.items() if not entry.embedded and entry.package is None]


@pytest.mark.parametrize("name", EXTERNAL)
def test_files_of_the_data_folder_are_the_catalogued_ones(name):
    if not SHARED or not (Path(SHARED) / ENTRIES[name].file).is_file():
        pytest.skip(f"RIGHTLY_DATA names no folder with {ENTRIES[name].file}")
    loaded = load(name)
    if isinstance(loaded, FrameData):
        assert len(loaded.frame) > 1000
    else:
        assert all(isinstance(array, np.ndarray) for array in loaded.values())


def test_jpeg_scans_become_pictures():
    pytest.importorskip("PIL.Image", reason="pictures need Pillow")
    if not SHARED or not (Path(SHARED) / "cifar10_10k_2k_jpeg.npz").is_file():
        pytest.skip("RIGHTLY_DATA names no folder with cifar10_10k_2k_jpeg.npz")
    pictures, labels = rightly.data.cifar10_images(load_arrays("cifar10_10k_2k_jpeg"), "test")
    assert (pictures.shape, pictures.dtype) == ((2000, 3, 32, 32), np.uint8)
    assert np.bincount(labels).tolist() == [200] * 10
    assert 100 < pictures.mean() < 140


def drawn_scans():
    """Whole JPEG files in place of scans, with no header to share: 20 grey pictures of classes 0 to 4 in turn."""
    image = pytest.importorskip("PIL.Image", reason="pictures need Pillow")
    scans = []
    for shade in range(20):
        file = io.BytesIO()
        image.new("RGB", (32, 32), (10 * shade,) * 3).save(file, "JPEG")
        scans.append(np.frombuffer(file.getvalue(), dtype=np.uint8))
    return {
        "header": np.empty(0, dtype=np.uint8),
        "test_scan": np.concatenate(scans),
        "test_len": np.array([len(scan) for scan in scans], dtype=np.uint16),
        "y_test": np.arange(20) % 5,
    }


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({}, list(range(20))),
        ({"classes": (3, 1)}, [1, 3, 6, 8, 11, 13, 16, 18]),
        ({"most": 1}, [0, 1, 2, 3, 4]),
        ({"classes": (4,), "most": 2}, [4, 9]),
    ],
)
def test_jpeg_scans_are_decoded_where_asked_for(asked, kept, monkeypatch):
    arrays = drawn_scans()
    image = pytest.importorskip("PIL.Image")
    opened, own = [], image.open
    monkeypatch.setattr(image, "open", lambda file: opened.append(file) or own(file))
    pictures, labels = rightly.data.cifar10_images(arrays, "test", **asked)
    assert labels.tolist() == [row % 5 for row in kept]
    assert (pictures[:, :, 0, 0] == 10 * np.array(kept)[:, None]).all()
    assert len(opened) == len(kept)


def test_absent_classes_of_pictures_are_refused():
    for asked in ({"classes": (3, 7)}, {"classes": ()}, {"most": 0}):
        with pytest.raises(ArgumentError, match=r"no picture is of such a class|most"):
            rightly.data.cifar10_images(drawn_scans(), "test", **asked)


def test_other_arrays_are_no_jpeg_scans():
    with pytest.raises(DataError, match="test_scan"):
        rightly.data.cifar10_images({}, "test")
    with pytest.raises(ArgumentError, match="'train' or 'test'"):
        rightly.data.cifar10_images({}, "all")


# --- the room ---------------------------------------------------------------------------------------------------

SOURCES = sorted(Path(rightly.data.__file__).parent.glob("*.py"))


def test_importing_the_room_loads_no_optional_library():
    code = "import sys, rightly.data; print(*({'pandas', 'sklearn', 'PIL', 'pyarrow', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_error_says_what_was_expected_and_got_and_how_to_mend_it(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    for call in calls:
        if isinstance(call.func, ast.Name) and call.func.id.endswith("Error"):
            if call.func.id in ("ValueError",):
                continue  # raised and caught in the same function
            assert {keyword.arg for keyword in call.keywords} == {"expected", "got", "mend"}, call.lineno


def test_the_reference_page_lists_every_name_and_licence():
    page = Path(__file__).parents[2] / "docs" / "reference" / "data.md"
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    for entry in ENTRIES.values():
        assert any(f"`{entry.name}`" in row and entry.licence in row and entry.title in row for row in rows), entry
    text = page.read_text(encoding="utf-8")
    assert [
        name
        for name in rightly.data.__all__
        if name not in text and name not in ("ENTRIES", "Entry", "DecoyDigits", "DecoyPart")
    ] == []


@pytest.mark.parametrize(
    ("library", "use", "extra"),
    [
        ("pandas", lambda path: rightly.data.read_table(path, "y"), "tables"),
        ("pandas", lambda _: load_frame("nhefs"), "tables"),
        ("PIL", lambda path: rightly.data.read_images(path.parent), "images"),
        ("sklearn", lambda _: rightly.data.decoy_digits(0), "sklearn"),
    ],
)
def test_an_absent_library_is_named_with_its_extra(monkeypatch, tmp_path, library, use, extra):
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    (tmp_path / "t.csv").write_text("x,y\n1,2\n")
    with pytest.raises(MissingExtraError, match=rf"{library} is needed") as caught:
        use(tmp_path / "t.csv")
    assert f"rightly[{extra}]" in caught.value.mend
