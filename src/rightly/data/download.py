"""Downloads, checked and put in place whole or not at all. MNIST's four official files become one ``.npz``."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from rightly.core.errors import DataError

#: array -> official file and its SHA-256
MNIST_FILES = {
    "x_train": (
        "train-images-idx3-ubyte.gz",
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    "y_train": (
        "train-labels-idx1-ubyte.gz",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    "x_test": (
        "t10k-images-idx3-ubyte.gz",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    "y_test": (
        "t10k-labels-idx1-ubyte.gz",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
}

TIMEOUT_S = 30
#: no file of the catalogue is larger; a server that sends more sends something else
MAX_BYTES = 256 * 2**20


def fetch_bytes(url: str, sha256: str, *, timeout_s: float = TIMEOUT_S) -> bytes:
    """Download one file into memory.

    Errors:
        DataError: the address cannot be reached, or what came has another SHA-256.
    """
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as response:
            content: bytes = response.read(MAX_BYTES)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        raise DataError(
            f"{url} cannot be downloaded",
            expected="an answer",
            got=str(getattr(error, "reason", error)) or type(error).__name__,
            mend="check the network connection, or put the file into a data folder",
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(
            f"what came from {url} is not the file that was asked for; it was thrown away",
            expected=f"SHA-256 {sha256}",
            got=f"SHA-256 {found} ({len(content)} bytes)",
            mend="try again; if it stays so, put the file into a data folder",
        )
    return content


def fetch_mnist(base: str, destination: Path, files: Mapping[str, tuple[str, str]] = MNIST_FILES) -> None:
    """Download MNIST's files from the folder ``base`` and write their arrays to ``destination`` (``.npz``)."""
    arrays = {name: read_idx(fetch_bytes(base + file, digest), file) for name, (file, digest) in files.items()}
    with written_aside(destination) as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]


def read_idx(packed: bytes, name: str) -> np.ndarray:
    """Parse a gzipped IDX file of bytes (0, 0, 8, dimensions, then each length as four bytes, big end first).

    Errors:
        DataError: it is no such file.
    """
    try:
        raw = gzip.decompress(packed)
        if raw[:3] != b"\x00\x00\x08":
            raise ValueError(f"begins with {raw[:3].hex()}")
        shape = np.frombuffer(raw, dtype=">u4", count=raw[3], offset=4).astype(int)
        return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * raw[3]).reshape(shape).copy()
    except (OSError, EOFError, zlib.error, ValueError, IndexError) as error:
        raise DataError(
            f"{name} is not an IDX file of bytes",
            expected="a gzipped IDX file",
            got=str(error),
            mend="download it again",
        ) from error


@contextmanager
def written_aside(destination: Path) -> Iterator[BinaryIO]:
    """A stream into a temporary file beside ``destination``, renamed to it at the end; after an error nothing stays.

    Errors:
        DataError: the folder cannot be written to.
    """
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=destination.parent, prefix=f".{destination.name}.")
    except OSError as error:
        raise DataError(
            f"the folder {destination.parent} cannot be written to",
            expected="a writable folder",
            got=error.strerror,
            mend="set XDG_CACHE_HOME (LOCALAPPDATA on Windows) to another folder",
        ) from error
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
        os.replace(aside, destination)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
