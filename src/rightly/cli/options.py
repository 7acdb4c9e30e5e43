"""What several commands take: choices, and options under one name and one explanation."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Task(StrEnum):
    """What kind of label."""

    classification = "classification"
    regression = "regression"


class Regions(StrEnum):
    """What drawn regions mean."""

    irrelevant = "irrelevant"
    relevant = "relevant"


class Engine(StrEnum):
    """How a term's input gradients are taken; the same as ``EngineName``, which must not be imported just for help."""

    auto = "auto"
    double_backward = "double-backward"
    frozen_masks = "frozen-masks"
    two_phase = "two-phase"
    finite_differences = "finite-differences"


class Search(StrEnum):
    """How other explanations are looked for."""

    sequential = "sequential"
    simultaneous = "simultaneous"


class Pruner(StrEnum):
    """How hopeless trainings are found."""

    median = "median"
    halving = "halving"


Out = Annotated[Path | None, typer.Option(help="Folder of the run; a new numbered one under runs/ by default.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, only the result.")]
Seed = Annotated[int, typer.Option(help="First seed.")]
Seeds = Annotated[int, typer.Option(help="How many seeds, each with a split of its own.")]
Epochs = Annotated[int | None, typer.Option(help="Epochs at most.")]
BatchSize = Annotated[int | None, typer.Option(help="Examples a step.")]
Rate = Annotated[float, typer.Option(help="Learning rate of Adam.")]
OfTask = Annotated[Task | None, typer.Option(help="Guessed from the label by default.")]
Drop = Annotated[str, typer.Option(help="Columns to leave out, separated by commas.")]
Irrelevant = Annotated[str, typer.Option(help="Columns that must not matter (right-reasons).")]
