"""Models to choose from: what a discovery found, side by side, and how different their reasons are."""

from __future__ import annotations

from rightly.report.blocks import Block, Bullets, Cell, Folded, Prose, Section, Table
from rightly.report.cleaning import Record
from rightly.report.numerals import ABSENT, number, percent
from rightly.report.runs import Run, runs_of

_TOP = 3


def discovery(record: Record) -> Section | None:
    """A row a model, then how alike they are."""
    found = record.get("discovery")
    if not found:
        return None
    runs = runs_of(record)
    blocks: list[Block] = [
        Prose([_LEAD]),
        _choices(record, found, runs),
        _matrix(
            "How alike the models' gradients are: mean absolute cosine.",
            found["similarity"],
            runs,
            "1: the same reasons. 0: reasons that have nothing to do with each other. Compared on training rows.",
        ),
        Folded(
            "How much their largest gradients overlap",
            _matrix(
                f"Components above {found['cutoff']:g} of an example's largest gradient: marked by both, of those "
                "marked by either.",
                found["overlap"],
                runs,
                "1: the same components. 0: none in common.",
            ),
        ),
        Bullets(_NEXT),
    ]
    return Section("choose", "Models to choose from", blocks)


_LEAD = (
    "These models solve the same task, and the training looked for ones that do so for different reasons. Compare what "
    "they rely on below, and choose the one whose reasons make sense."
)
_NEXT = [
    "Each model has a folder of its own in this run's folder, named like it: rightly explain RUN/model-2 DATA and "
    "rightly evaluate RUN/model-2 DATA use it.",
    "Where one model is right for a wrong reason that can be named, rightly fit --prior right-reasons trains it away.",
]


def _choices(record: Record, found: Record, runs: list[Run]) -> Table:
    metric = "accuracy" if record["data"].get("task") != "regression" else "r2"
    named = any(run.explanations.get("importance") for run in runs)
    columns = ["Model", "Training", "Validation", "Test", *(["Leans on"] if named else []), "A reason of its own"]
    rows = []
    for run in runs:
        told = found["models"][run.name]
        test = (run.record["metrics"]["test"].get(metric) or {}).get("mean")
        cells = [Cell(run.title), *(_cell(told[key]) for key in ("train", "validation")), _cell(test)]
        cells += [Cell(_leans_on(run))] if named else []
        own = "yes" if run.name in found["distinct"] else "no"
        rows.append([*cells, Cell(own, "no better than one answer for all" if told.get("better") is False else "")])
    caption = f"The models side by side: {'accuracy' if metric == 'accuracy' else 'R2'}."
    note = (
        f"A reason of its own: accurate, within {found['tolerance']:g} of the best, better than one answer for all, "
        "and not like a model above it."
    )
    return Table(caption, columns, rows, frozenset({1, 2, 3}), stacked=True, note=note)


def _leans_on(run: Run) -> str:
    entries = sorted(run.explanations.get("importance") or [], key=lambda entry: (-entry["mean"], entry["feature"]))
    total = sum(entry["mean"] for entry in entries) or 1.0
    return ", ".join(f"{entry['feature']} {percent(entry['mean'] / total)}" for entry in entries[:_TOP])


def _matrix(caption: str, values: list[list[float]], runs: list[Run], note: str) -> Table:
    rows = [[Cell(run.title), *map(_cell, row)] for run, row in zip(runs, values, strict=True)]
    return Table(caption, ["", *(run.title for run in runs)], rows, frozenset(range(1, len(runs) + 1)), note=note)


def _cell(value: float | None) -> Cell:
    return Cell(ABSENT) if value is None else Cell(number(float(value)), order=float(value))
