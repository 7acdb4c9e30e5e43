"""Mistakes in tables: the file and its columns."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from cli.mistakes import bad, fit, saved, written
from workflows.made import classes, table

# files


@bad("no file")
def file_missing(folder: Path) -> list[str]:
    return fit("absent.csv")


@bad("the folder table.csv is empty")
def file_is_an_empty_folder(folder: Path) -> list[str]:
    (folder / "table.csv").mkdir()
    return fit("table.csv", label=None)


@bad("is empty")
def file_empty(folder: Path) -> list[str]:
    return fit(written(folder, b""))


@bad("cannot be read as CSV")
def file_binary(folder: Path) -> list[str]:
    return fit(written(folder, b"\x00\x01\x02" * 500))


@bad("no rows")
def file_header_only(folder: Path) -> list[str]:
    return fit(written(folder, b"a,b,y\n"))


@bad("Parquet")
def file_parquet_corrupt(folder: Path) -> list[str]:
    return fit(written(folder, b"PAR1 and then nonsense", "table.parquet"))


@bad("unpacked")
def file_gz_corrupt(folder: Path) -> list[str]:
    return fit(written(folder, b"this was never packed", "table.csv.gz"))


@bad("unpacked")
def file_gz_cut_short(folder: Path) -> list[str]:
    packed = gzip.compress(classes(400).to_csv(index=False).encode())
    return fit(written(folder, packed[: len(packed) // 2], "table.csv.gz"))


@bad("more than one column", "'a'")
def file_columns_twice(folder: Path) -> list[str]:
    return fit(written(folder, b"a,a,y\n" + b"1,2,no\n" * 40))


@bad("UTF-8")
def file_latin1(folder: Path) -> list[str]:
    return fit(written(folder, "a,y\n1,Zürich\n".encode("latin-1") * 40))


@bad("kind of table", "not known")
def file_suffix_unknown(folder: Path) -> list[str]:
    return fit(written(folder, b"a,y\n1,no\n", "table.xlsx"))


@bad("same number of columns")
def file_ragged(folder: Path) -> list[str]:
    return fit(written(folder, b"a,y\n" + b"1,no\n" * 20 + b"1,no,7,8\n"))


# columns


@bad("label", "--label")
def label_not_given(folder: Path) -> list[str]:
    return fit(saved(folder), label=None)


@bad("no column 'yy'", "did you mean 'y'")
def label_absent(folder: Path) -> list[str]:
    return fit(saved(folder), label="yy")


@bad("same in every row")
def label_constant(folder: Path) -> list[str]:
    return fit(saved(folder, classes(60).assign(y="no")))


@bad("every entry of the label", "missing")
def label_all_missing(folder: Path) -> list[str]:
    return fit(saved(folder, classes(60).assign(y=None)))


@bad("too few rows", "'rare': 2")
def label_class_too_rare(folder: Path) -> list[str]:
    frame = classes(60)
    frame.loc[:1, "y"] = "rare"
    return fit(saved(folder, frame))


@bad("too many different values", "classification")
def label_too_many_classes(folder: Path) -> list[str]:
    return fit(saved(folder, classes(120).assign(y=[f"word {i}" for i in range(120)])))


@bad("every entry of the label")
def label_all_infinite(folder: Path) -> list[str]:
    return fit(saved(folder, table(60).assign(y=np.inf)))


@bad("every entry of the label")
def label_all_nan(folder: Path) -> list[str]:
    return fit(saved(folder, table(60).assign(y=np.nan)))


@bad("too few rows", "at least 30")
def table_too_short(folder: Path) -> list[str]:
    return fit(saved(folder, classes(20)))


@bad("no column left")
def features_none_usable(folder: Path) -> list[str]:
    return fit(saved(folder, classes(60)[["y"]].assign(same=1, empty=None)))


@bad("no column 'nothing'", "drop")
def drop_unknown(folder: Path) -> list[str]:
    return fit(saved(folder), "--drop", "a,nothing")


@bad("both the label and a column to drop")
def drop_label(folder: Path) -> list[str]:
    return fit(saved(folder), "--drop", "y")


@bad("no such feature column", "nothing")
def irrelevant_unknown(folder: Path) -> list[str]:
    return fit(saved(folder), "--irrelevant", "nothing")


@bad("no such feature column", "y")
def irrelevant_is_label(folder: Path) -> list[str]:
    return fit(saved(folder), "--irrelevant", "y")


@bad("no such feature column", "a")
def irrelevant_was_dropped(folder: Path) -> list[str]:
    return fit(saved(folder), "--irrelevant", "a", "--drop", "a")


@bad("is not a number")
def task_regression_of_words(folder: Path) -> list[str]:
    return fit(saved(folder), "--task", "regression")


@bad("too many different values", "regression")
def task_classification_of_measurements(folder: Path) -> list[str]:
    return fit(saved(folder, table(120)), "--task", "classification", label="score")
