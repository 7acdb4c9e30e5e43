"""Mistakes with finished runs, and with names."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from cli.mistakes import CASES, Bad, Make, bad, saved, written
from workflows.made import classes, module, pictures

# explain, show, list, check, reproduce; ``trained`` is a folder with finished runs, put there by the test


def _explain(folder: Path, run: str, data: str | Path, *arguments: str) -> list[str]:
    return ["explain", str(folder / "trained" / run), str(data), "--samples", "4", *arguments]


@bad("no finished run")
def explain_without_run(folder: Path) -> list[str]:
    return ["explain", "nowhere", str(saved(folder))]


@bad("cannot be read", "fit again")
def explain_damaged_json(folder: Path) -> list[str]:
    written(folder / "trained" / "table", b'{"architecture": {"kind"', "model.json")
    return _explain(folder, "table", saved(folder))


@bad("cannot be read", "fit again")
def explain_other_json(folder: Path) -> list[str]:
    written(folder / "trained" / "table", b"[1, 2]", "model.json")
    return _explain(folder, "table", saved(folder))


@bad("cannot be read", "fit again")
def explain_damaged_weights(folder: Path) -> list[str]:
    written(folder / "trained" / "table", b"\x08\x00\x00\x00 no", "model.safetensors")
    return _explain(folder, "table", saved(folder))


@bad("cannot be read", "fit again")
def explain_foreign_weights(folder: Path) -> list[str]:
    trained = folder / "trained"
    shutil.copy(trained / "images" / "model.safetensors", trained / "table" / "model.safetensors")
    return _explain(folder, "table", saved(folder))


@bad("lacks 2 of the", "'b'", "'c'")
def explain_columns_missing(folder: Path) -> list[str]:
    return _explain(folder, "table", saved(folder, classes(60).drop(columns=["b", "c"])))


@bad("must hold numbers", "'a'")
def explain_words_for_numbers(folder: Path) -> list[str]:
    return _explain(folder, "table", saved(folder, classes(60).assign(a="tall")))


@bad("no file")
def explain_data_missing(folder: Path) -> list[str]:
    return _explain(folder, "table", "absent.csv")


@bad("no folder of pictures")
def explain_table_with_an_image_model(folder: Path) -> list[str]:
    return _explain(folder, "images", saved(folder))


@bad("do not fit the model", "grey")
def explain_coloured_images(folder: Path) -> list[str]:
    return _explain(folder, "images", pictures(folder / "coloured", colour=True))


@bad("holds no pictures")
def explain_no_images(folder: Path) -> list[str]:
    (folder / "nothing").mkdir()
    return _explain(folder, "images", folder / "nothing")


@bad("cannot be written", "--out")
def explain_out_is_a_folder(folder: Path) -> list[str]:
    return _explain(folder, "table", saved(folder), "--out", "trained")


@bad("cannot be written", "--out")
def explain_out_unwritable(folder: Path) -> list[str]:
    return _explain(folder, "table", saved(folder), "--out", "nowhere/found.csv")


@bad("--samples")
def explain_without_samples(folder: Path) -> list[str]:
    return _explain(folder, "table", saved(folder), "--samples", "0")


@bad("holds another run", "same arguments")
def resume_with_other_arguments(folder: Path) -> list[str]:
    return ["fit", str(folder / "trained.csv"), *_TRAINED, "--lr", "0.5", "--out", "trained/table", "--resume"]


@bad("holds another run", "data_sha256")
def resume_with_other_data(folder: Path) -> list[str]:
    classes(80, seed=5).to_csv(folder / "trained.csv", index=False)
    return ["fit", "trained.csv", *_TRAINED, "--out", "trained/table", "--resume"]


def _damaged(content: bytes) -> Make:
    def make(folder: Path) -> list[str]:
        written(folder / "trained" / "table" / "trials", content, "plain-0.json")
        return ["fit", "trained.csv", *_TRAINED, "--out", "trained/table", "--resume"]

    return make


for _name, _content in (("cut", b'{"seed": 0, "arm"'), ("list", b"[]"), ("other", b'{"seed": 0, "arm": "plain"}')):
    CASES.append(Bad(f"resume_trial_{_name}", ("cannot be read", "delete it and resume"), _damaged(_content)))


@bad("no component 'sparseness'", "sparsity")
def show_unknown(folder: Path) -> list[str]:
    return ["show", "sparseness"]


@bad("unknown family")
def list_unknown(folder: Path) -> list[str]:
    return ["list", "colours"]


@bad("atlantis")
def reproduce_unknown(folder: Path) -> list[str]:
    return ["reproduce", "atlantis", "--out", "run"]


@bad("no module 'absent'")
def check_absent(folder: Path) -> list[str]:
    return ["check", "absent:make"]


@bad("no term")
def check_without_terms(folder: Path) -> list[str]:
    return ["check", module(folder, "bad_check", terms="[]")]


#: how the runs in ``trained`` were made
_TRAINED = ("--label", "y", "--seeds", "1", "--epochs", "1", "--weight", "1", "--quiet")


def train(folder: Path, run: Callable[[list[str]], object]) -> None:
    """Make ``trained.csv`` and the finished runs ``trained/table`` and ``trained/images`` in the current folder."""
    classes(80).to_csv(folder / "trained.csv", index=False)
    run(["fit", "trained.csv", *_TRAINED, "--out", "trained/table"])
    pictures(folder / "trained-images")
    run(["fit", "trained-images", *_TRAINED[2:], "--out", "trained/images"])
