"""Mistakes in what is typed, and in where the run shall go."""

from __future__ import annotations

from pathlib import Path

from cli.mistakes import CASES, Bad, Make, bad, fit, saved
from workflows.made import pictures

# arguments


def _weight(text: str) -> Make:
    return lambda folder: [*fit(saved(folder)), "--weight", text]


for _text in ("nan", "-1", "inf", "strong", ""):
    CASES.append(Bad(f"weight_{_text or 'empty'}", ("--weight", "auto, balance, or a finite number"), _weight(_text)))


def _number(flag: str, value: str) -> Make:
    return lambda folder: [*fit(saved(folder)), flag, value]


for _flag, _value in (
    ("--seeds", "0"),
    ("--seed", "-1"),
    ("--epochs", "0"),
    ("--epochs", "-5"),
    ("--batch-size", "0"),
    ("--lr", "0"),
    ("--lr", "-0.1"),
    ("--lr", "nan"),
    ("--lr", "inf"),
):
    CASES.append(Bad(f"{_flag[2:]}_{_value}", (f"{_flag} cannot be used",), _number(_flag, _value)))


@bad("Usage", "seeds", usage=True)
def seeds_in_words(folder: Path) -> list[str]:
    return [*fit(saved(folder)), "--seeds", "many"]


@bad("Usage", "task", usage=True)
def task_unknown(folder: Path) -> list[str]:
    return fit(saved(folder), "--task", "ranking")


@bad("Usage", "No such option", usage=True)
def option_unknown(folder: Path) -> list[str]:
    return fit(saved(folder), "--lamda", "3")


@bad("Usage", "No such command", usage=True)
def command_unknown(folder: Path) -> list[str]:
    return ["train", str(saved(folder))]


@bad("no prior 'gini'", "sparsity")
def prior_unknown(folder: Path) -> list[str]:
    return fit(saved(folder), "--prior", "gini")


@bad("no prior 'smoothness' for tables")
def prior_of_images_for_a_table(folder: Path) -> list[str]:
    return fit(saved(folder), "--prior", "smoothness")


@bad("no prior 'sparsity' for images")
def prior_of_tables_for_images(folder: Path) -> list[str]:
    return fit(pictures(folder / "images"), "--prior", "sparsity", label=None)


@bad("which columns must not matter", "--irrelevant")
def right_reasons_without_columns(folder: Path) -> list[str]:
    return fit(saved(folder), "--prior", "right-reasons")


@bad("reads no annotation")
def irrelevant_for_sparsity(folder: Path) -> list[str]:
    return fit(saved(folder), "--prior", "sparsity", "--irrelevant", "a")


@bad("--annotations", "--irrelevant COLUMN")
def annotations_for_a_table(folder: Path) -> list[str]:
    return fit(saved(folder), "--annotations", "regions")


@bad("--size")
def size_for_a_table(folder: Path) -> list[str]:
    return fit(saved(folder), "--size", "32")


@bad("--label", "sub-folders are the labels")
def label_for_images(folder: Path) -> list[str]:
    return fit(pictures(folder / "images"))


@bad("regions", "--annotations DIR")
def right_reasons_without_annotations(folder: Path) -> list[str]:
    return fit(pictures(folder / "images"), "--prior", "right-reasons", label=None)


@bad("--regions")
def regions_without_annotations(folder: Path) -> list[str]:
    return fit(pictures(folder / "images"), "--regions", "relevant", label=None)


# the run folder


@bad("not empty", "--resume")
def out_not_empty(folder: Path) -> list[str]:
    (folder / "run").mkdir()
    (folder / "run" / "letter.txt").write_text("keep me", encoding="utf-8")
    return fit(saved(folder))


@bad("cannot be made", "a file")
def out_is_a_file(folder: Path) -> list[str]:
    (folder / "run").write_text("keep me", encoding="utf-8")
    return fit(saved(folder))


@bad("cannot be made", "--out")
def out_below_a_file(folder: Path) -> list[str]:
    (folder / "file").write_text("keep me", encoding="utf-8")
    return [*fit(saved(folder)), "--out", "file/run"]


@bad("cannot be made", "--out")
def out_unwritable(folder: Path) -> list[str]:
    return [*fit(saved(folder)), "--out", "/proc/run"]


@bad("holds no run")
def resume_of_something_else(folder: Path) -> list[str]:
    (folder / "run").mkdir()
    (folder / "run" / "letter.txt").write_text("keep me", encoding="utf-8")
    return fit(saved(folder), "--resume")
