"""Mistakes with ``rightly evaluate``."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd

from cli.mistakes import bad, saved, written
from workflows.made import classes, pictures

# ``trained`` is a folder with finished runs, put there by the test


def _evaluate(folder: Path, run: str, data: str | Path, *arguments: str) -> list[str]:
    return ["evaluate", str(folder / "trained" / run), str(data), "--samples", "4", "--out", "ev", *arguments]


@bad("no finished run")
def evaluate_without_run(folder: Path) -> list[str]:
    return ["evaluate", "nowhere", str(saved(folder))]


@bad("cannot be read", "fit again")
def evaluate_damaged_plain(folder: Path) -> list[str]:
    written(folder / "trained" / "table" / "plain", b"\x08\x00\x00\x00 no", "model.safetensors")
    return _evaluate(folder, "table", saved(folder))


@bad("is not a whole JSON file")
def evaluate_damaged_record(folder: Path) -> list[str]:
    written(folder / "trained" / "table", b'{"schema"', "record.json")
    return _evaluate(folder, "table", saved(folder))


@bad("lacks 1 of the", "'b'")
def evaluate_column_missing(folder: Path) -> list[str]:
    return _evaluate(folder, "table", saved(folder, classes(60).drop(columns="b")))


@bad("classes that the model does not know", "no, yes", "maybe")
def evaluate_unknown_class(folder: Path) -> list[str]:
    frame = classes(60)
    frame.loc[3, "y"] = "maybe"
    return _evaluate(folder, "table", saved(folder, frame))


@bad("every entry of the label", "'y'")
def evaluate_label_empty(folder: Path) -> list[str]:
    return _evaluate(folder, "table", saved(folder, classes(60).assign(y=pd.Series([None] * 60, dtype=object))))


@bad("no file")
def evaluate_data_missing(folder: Path) -> list[str]:
    return _evaluate(folder, "table", "absent.csv")


@bad("no folder of pictures")
def evaluate_table_with_an_image_model(folder: Path) -> list[str]:
    return _evaluate(folder, "images", saved(folder))


@bad("no attribution called 'gradients'", "expected_gradients")
def evaluate_unknown_method(folder: Path) -> list[str]:
    return _evaluate(folder, "table", saved(folder), "--methods", "gradients")


@bad("no method is asked for")
def evaluate_no_method(folder: Path) -> list[str]:
    return _evaluate(folder, "table", saved(folder), "--methods", ",")


@bad("needs space")
def evaluate_method_that_needs_a_layer(folder: Path) -> list[str]:
    return _evaluate(folder, "images", folder / "trained-images", "--methods", "grad_cam")


@bad("unknown measure", "completeness")
def evaluate_unknown_metric(folder: Path) -> list[str]:
    return _evaluate(folder, "table", saved(folder), "--metrics", "complete")


@bad("a measure cannot be taken", "no annotation")
def evaluate_places_without_regions(folder: Path) -> list[str]:
    return _evaluate(folder, "table", saved(folder), "--metrics", "iou")


@bad("--examples")
def evaluate_one_example(folder: Path) -> list[str]:
    return _evaluate(folder, "table", saved(folder), "--examples", "1")


@bad("--samples")
def evaluate_without_samples(folder: Path) -> list[str]:
    return _evaluate(folder, "table", saved(folder), "--samples", "0")


@bad("no such feature column", "height")
def evaluate_unknown_irrelevant(folder: Path) -> list[str]:
    return _evaluate(folder, "table", saved(folder), "--irrelevant", "height")


@bad("tables have no drawn regions", "--irrelevant")
def evaluate_regions_of_a_table(folder: Path) -> list[str]:
    return _evaluate(folder, "table", saved(folder), "--annotations", "trained")


@bad("images have no columns", "--annotations")
def evaluate_columns_of_images(folder: Path) -> list[str]:
    return _evaluate(folder, "images", folder / "trained-images", "--irrelevant", "a")


@bad("there is no folder absent")
def evaluate_regions_that_are_absent(folder: Path) -> list[str]:
    return _evaluate(folder, "images", folder / "trained-images", "--annotations", "absent")


@bad("not empty", "--out")
def evaluate_out_in_use(folder: Path) -> list[str]:
    return _evaluate(folder, "table", saved(folder), "--out", "trained")


@bad("cannot be made", "file")
def evaluate_out_is_a_file(folder: Path) -> list[str]:
    return _evaluate(folder, "table", saved(folder), "--out", str(written(folder, b"x", "taken")))


@bad("cannot be written", "--out")
def evaluate_out_below_a_file(folder: Path) -> list[str]:
    return _evaluate(folder, "table", saved(folder), "--out", str(written(folder, b"x", "taken") / "ev"))


@bad("do not fit the model", "grey")
def evaluate_coloured_images(folder: Path) -> list[str]:
    return _evaluate(folder, "images", pictures(folder / "coloured", colour=True))


@bad("holds no pictures")
def evaluate_no_images(folder: Path) -> list[str]:
    (folder / "nothing").mkdir()
    shutil.copy(saved(folder), folder / "nothing")
    return _evaluate(folder, "images", folder / "nothing")
