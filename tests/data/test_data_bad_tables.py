"""Bad tables give one clear error each, and a large table needs little memory."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rightly.core.errors import ArgumentError, DataError
from rightly.data import read_table

pd = pytest.importorskip("pandas", reason="tables need pandas")

ROWS = 60


def plain(rows: int = ROWS) -> pd.DataFrame:
    """Two numbers and a label of two classes."""
    generator = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": generator.integers(20, 80, rows),
            "dose": generator.normal(size=rows).round(3),
            "died": np.arange(rows) % 2,
        }
    )


def saved(folder: Path, frame: pd.DataFrame, name: str = "table.csv") -> Path:
    path = folder / name
    if name.endswith(".parquet"):
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if ".tsv" in name else ",")
    return path


def text(folder: Path, content: str | bytes, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# --- bad files --------------------------------------------------------------------------------------------------


def csv_of(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False)


def nothing(folder: Path) -> Path:
    return folder / "absent.csv"


def a_folder(folder: Path) -> Path:
    (folder / "table.csv").mkdir()
    return folder / "table.csv"


def cut_parquet(folder: Path) -> Path:
    path = saved(folder, plain(), "t.parquet")
    path.write_bytes(path.read_bytes()[:-200])
    return path


def twice_parquet(folder: Path) -> Path:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table([[1], [2]], names=["a", "a"]), folder / "t.parquet")
    return folder / "t.parquet"


JUNK = np.random.default_rng(0).bytes(20_000)
ONE_LETTER = plain().assign(died=["a", *["b"] * (ROWS - 1)])

#: what is wrong -> the file, the arguments, what the error must say
BAD = {
    "absent": (nothing, {}, ["there is no file", "check the path"]),
    "folder": (a_folder, {}, ["is a folder", "read_images"]),
    "suffix": (lambda d: text(d, "a,b\n1,2\n", "t.xlsx"), {}, ["not known", ".xlsx", "save the table as CSV"]),
    "no suffix": (lambda d: text(d, "a,b\n1,2\n", "table"), {}, ["not known", "no suffix"]),
    "empty": (lambda d: text(d, ""), {}, ["is empty", "0 bytes"]),
    "blank": (lambda d: text(d, " \n\n  \n"), {}, ["is empty", "blank lines"]),
    "empty gzip": (lambda d: text(d, gzip.compress(b""), "t.csv.gz"), {}, ["is empty"]),
    "header only": (lambda d: text(d, "age,died\n"), {}, ["a header and no rows", "0 rows"]),
    "binary": (lambda d: text(d, JUNK), {}, ["cannot be read as CSV", "binary"]),
    "workbook": (lambda d: text(d, b"PK\x03\x04\0\0" + JUNK), {}, ["cannot be read as CSV", "Excel"]),
    "no gzip": (lambda d: text(d, csv_of(plain()), "t.csv.gz"), {}, ["cannot be unpacked", "undamaged gzip"]),
    "cut gzip": (
        lambda d: text(d, gzip.compress(csv_of(plain(3000)).encode())[:9000], "t.csv.gz"),
        {},
        ["cannot be unpacked"],
    ),
    "latin-1": (lambda d: text(d, "größe,died\n1,0\n".encode("latin-1")), {}, ["not UTF-8", "0xf6", "Latin-1"]),
    "latin-1 later": (
        lambda d: text(d, csv_of(plain()).encode() + "4,é,1\n".encode("latin-1")),
        {},
        ["not UTF-8", "0xe9", "with the encoding UTF-8"],
    ),
    "utf-16": (lambda d: text(d, csv_of(plain()).encode("utf-16")), {}, ["not UTF-8", "UTF-16"]),
    "long row": (lambda d: text(d, csv_of(plain()) + "1,2,3,4\n"), {}, ["cannot be read as CSV", "line 62"]),
    "all rows long": (lambda d: text(d, "age,died\n" + "1,2,0\n" * 60), {}, ["cannot be read as CSV", "same number"]),
    "open quote": (lambda d: text(d, csv_of(plain()) + '"1,2,3\n'), {}, ["cannot be read as CSV", "EOF inside string"]),
    "corrupt parquet": (cut_parquet, {}, ["cannot be read as Parquet", "write the file again"]),
    "no parquet": (lambda d: text(d, JUNK, "t.parquet"), {}, ["cannot be read as Parquet", "undamaged"]),
    "names twice": (lambda d: text(d, "age,age,died\n1,2,0\n"), {}, ["more than one column named 'age'", "rename"]),
    "names twice in parquet": (twice_parquet, {}, ["more than one column named 'a'", "rename"]),
    "label misspelt": (lambda d: saved(d, plain()), {"label": "Dead"}, ["no column 'Dead'", "did you mean 'died'?"]),
    "label unlike any": (lambda d: saved(d, plain()), {"label": "xyzzy"}, ["no column 'xyzzy'", "'age', 'dose'"]),
    "drop misspelt": (lambda d: saved(d, plain()), {"drop": ["dosis"]}, ["no column 'dosis'", "did you mean 'dose'?"]),
    "label dropped": (lambda d: saved(d, plain()), {"drop": ["died"]}, ["both the label and a column to drop"]),
    "no feature": (lambda d: saved(d, plain()[["died"]]), {}, ["no column left to learn from", "only 'died'"]),
    "no usable feature": (
        lambda d: saved(d, plain()[["died"]].assign(id=range(ROWS), same=1)),
        {},
        ["no column left", "'id' was dropped", "'same' was dropped"],
    ),
    "constant label": (lambda d: saved(d, plain().assign(died=1)), {}, ["the same in every row", "only '1'"]),
    "constant number": (
        lambda d: saved(d, plain().assign(died=1.5)),
        {"task": "regression"},
        ["the same in every row", "only '1.5'"],
    ),
    "small class": (lambda d: saved(d, ONE_LETTER), {}, ["too few rows", "at least 5", "'a': 1", "unite rare"]),
    "no label": (lambda d: saved(d, plain().assign(died=np.nan)), {}, ["every entry of the label 'died'", "missing"]),
    "few rows": (lambda d: saved(d, plain(29)), {}, ["too few rows", "at least 30", "29 rows"]),
    "words to regress": (
        lambda d: saved(d, plain().assign(died=["yes", "no"] * 30)),
        {"task": "regression"},
        ["not a number", "'yes'", "task='classification'"],
    ),
    "many classes": (
        lambda d: saved(d, plain(505).assign(died=[i % 101 for i in range(505)])),
        {"task": "classification"},
        ["too many different values", "at most 100", "101 values", "task='regression'"],
    ),
    "many words": (
        lambda d: saved(d, plain(505).assign(died=[f"n{i % 101}" for i in range(505)])),
        {},
        ["too many different values", "101 values", "choose another label"],
    ),
    "dates to predict": (
        lambda d: saved(d, plain().assign(died=["2020-01-01", "2020-01-02"] * 30)),
        {},
        ["cannot be predicted", "dates"],
    ),
    "huge numbers": (
        lambda d: saved(d, plain().assign(died=np.linspace(0, 1e300, ROWS))),
        {},
        ["too large for single precision", "1.0e+300"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_gives_one_clear_error(tmp_path, case):
    make, arguments, said = BAD[case]
    path = make(tmp_path)
    with pytest.raises(DataError) as caught:
        read_table(path, **{"label": "died", **arguments})
    error = caught.value
    assert error.mend
    for part in said:
        assert part in str(error)


def test_an_unknown_task_is_an_argument_error(tmp_path):
    with pytest.raises(ArgumentError, match="regression"):
        read_table(saved(tmp_path, plain()), "died", task="ranking")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_file_that_may_not_be_read(tmp_path):
    path = saved(tmp_path, plain())
    path.chmod(0)
    with pytest.raises(DataError, match="cannot be opened"):
        read_table(path, "died")


# --- memory -----------------------------------------------------------------------------------------------------

MEASURE = """
import resource, sys
import pandas, pyarrow
from rightly.data import read_table
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
before = peak()
table = read_table(sys.argv[1], "y")
assert table.features.shape == (100_000, 49)
print(peak() - before)
"""


@pytest.mark.skipif(os.name == "nt", reason="the peak memory of a process is measured by a Unix call")
def test_a_large_csv_needs_far_less_than_a_gibibyte(tmp_path, record_property):
    generator = np.random.default_rng(0)
    path = tmp_path / "large.csv"
    with path.open("w") as stream:
        stream.write(",".join([*(f"x{i}" for i in range(49)), "y"]) + "\n")
        for _ in range(100):
            block = generator.normal(size=(1000, 50))
            block[:, -1] = block[:, 0] > 0
            np.savetxt(stream, block, fmt="%.12g", delimiter=",")
    done = subprocess.run([sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    extra = int(done.stdout)
    record_property("extra_peak_mib", extra / 2**20)
    assert extra < 2**30, f"reading 100,000 x 50 took {extra / 2**20:.0f} MiB"
