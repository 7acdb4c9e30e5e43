"""What an evaluation is asked for, what it finds about a model, and how the report room is told of it."""

from __future__ import annotations

import datetime
import platform
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from rightly.data import TableEncoder
from rightly.evaluation import MEASURES, METRICS, Cell, Curve, EvaluationTable, Interval, global_importance, lorenz
from rightly.report import results_table
from rightly.report.numerals import ABSENT, interval
from rightly.report.runs import title_of
from rightly.report.words import word_of
from rightly.workflows.given import Given

#: measures that are told in a sentence where there is no comparison to read out
_TOLD = ("completeness", "infidelity", "max_sensitivity", "model_randomisation")


@dataclass(frozen=True)
class EvaluationRequest:
    """What the user typed.

    Attributes:
        run, data: folders or files.
        methods, metrics: names; all measures that fit, by default.
        annotations, regions: drawn regions of images, and what they mean.
        irrelevant: columns that must not matter.
        examples: rows explained, at most; predictions are judged on all of them.
        samples: references an example.
        seed: of every draw.
    """

    run: Path
    data: Path
    methods: tuple[str, ...] = ("expected_gradients", "gradient", "input_x_gradient")
    metrics: tuple[str, ...] = ()
    annotations: Path | None = None
    regions: Literal["irrelevant", "relevant"] = "irrelevant"
    irrelevant: tuple[str, ...] = ()
    examples: int = 200
    samples: int = 50
    seed: int = 0


@dataclass(frozen=True)
class Measured:
    """One model.

    Attributes:
        metrics: of its predictions, over all rows; empty without labels. Of a single value where there is no interval.
        predictions: what they were taken from.
        table: of its explanations.
        curves: title -> what noise does to predictions and explanations.
    """

    metrics: Mapping[str, Interval]
    predictions: np.ndarray
    table: EvaluationTable
    curves: Mapping[tuple[str, str], Curve]


def record_of(
    request: EvaluationRequest,
    facts: Mapping[str, Any],
    data: Given,
    found: Mapping[str, Measured],
    comparison: dict[str, Any],
    explained: int,
    seconds: float,
) -> dict[str, Any]:
    """The record (schema 1); a model's intervals are over rows."""
    name, noun = request.data.name.split(".")[0], "image" if "shape" in facts else "row"
    notes = [*data.notes, f"{explained} of {len(data.inputs)} {noun}s were explained, drawn at random."]
    if data.labels is None:
        notes.append("The data have no labels, so predictions were not judged.")
    if lone := sorted({key for one in found.values() for key, value in one.metrics.items() if alone(value)}):
        names = ", ".join(word_of(key).label for key in lone)
        notes.append(f"No interval can be given for {names}: rows drawn with replacement mostly lack a class.")
    return {
        "schema": 1,
        "command": "evaluate",
        "title": f"{request.run.name} on {name}",
        "question": "How well do the models predict these data, and can their explanations be trusted?",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "rerun": _typed(request),
        "versions": {
            "rightly": metadata.version("rightly"),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "data": {
            "name": name,
            "kind": "images" if "shape" in facts else "table",
            "source": request.data.name,
            "rows": len(data.inputs),
            "label": facts.get("label", "folder"),
            "task": facts["task"],
            "classes": list(facts["classes"]),
            "split": {"given": len(data.inputs)},
            "notes": list(data.notes),
        },
        "runs": {key: _run(key, one, facts) for key, one in found.items()},
        "comparison": comparison,
        "conclusion": _conclusion(found, comparison),
        "attribution": f"They are {request.methods[0].replace('_', ' ')} of the prediction; where a method compares, "
        f"it compares with the {noun}s given.",
        "intervals": "95% intervals are over the rows (bootstrap for predictions, Student's t for explanations); they "
        "do not say what another training would give.",
        "notes": notes,
        "seconds": seconds,
    }


def _typed(request: EvaluationRequest) -> str:
    """The line that does it again."""
    words = ["rightly", "evaluate", str(request.run), str(request.data)]
    plain = EvaluationRequest(request.run, request.data)
    for name, value in vars(request).items():
        if value != getattr(plain, name):
            words += [f"--{name}", ",".join(value) if isinstance(value, tuple) else str(value)]
    return shlex.join(words)


def _run(name: str, one: Measured, facts: Mapping[str, Any]) -> dict[str, Any]:
    """A model's entry: what the record of its training says of it, and what was measured."""
    trained = facts["runs"].get(name, {})
    return {
        **{key: trained[key] for key in ("title", "prior", "engines") if trained.get(key) is not None},
        # the saved model is the first seed's; the record tells the time of all
        "seeds": trained.get("seeds", [0])[:1],
        "weight": trained.get("weight"),
        "metrics": {"test": {key: _entry(value) for key, value in one.metrics.items()}},
        "explanations": _reliance(one, facts),
        "seconds": trained.get("seconds", 0.0) / len(trained.get("seeds", [0])),
    }


def alone(found: Interval) -> bool:
    """Whether it is a number without an interval."""
    return len(found.values) == 1


def _entry(found: Interval) -> dict[str, Any]:
    """The values of an interval over rows are resamples; a record holds one value for each training."""
    low, high = (None, None) if alone(found) else (found.low, found.high)
    return {"mean": found.mean, "low": low, "high": high, "values": [found.mean]}


def _reliance(one: Measured, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the first method's explanations say the model relies on as a whole."""
    first = next(iter(one.table.attributions.values()))
    groups = TableEncoder.from_json(facts["encoder"]).groups if "encoder" in facts else None
    importance = global_importance(first, groups)
    found: dict[str, Any] = {
        "gini": {"mean": importance.gini, "low": None, "high": None},
        "lorenz": lorenz(importance.values),
    }
    if groups is not None:
        pairs = zip(facts["features"], importance.values.tolist(), strict=True)
        found["importance"] = [{"feature": key, "mean": value, "low": None, "high": None} for key, value in pairs]
    return found


def _conclusion(found: Mapping[str, Measured], comparison: Mapping[str, Any]) -> list[str]:
    """Empty where predictions were compared: the page then reads the comparison. Else where explanations stand."""
    if comparison:
        return []
    told = []
    for name, one in found.items():
        method = next(iter(one.table.seconds))
        parts = [
            f"{cell.metric.replace('_', ' ')} {cell.mean:.2g}"
            for cell in one.table.rows
            if cell.method == method and cell.metric in _TOLD and cell.mean is not None
        ]
        if parts:
            told.append(f"{title_of(name)}, explained by {method.replace('_', ' ')}: {', '.join(parts)}.")
    return told


def figures_of(found: Mapping[str, Measured], record: Mapping[str, Any]) -> dict[str, Any]:
    """A table for each method, a column a model, and the curves under noise."""
    runs = record["runs"]
    some = next(iter(found.values()))
    titles = [title_of(name, runs[name]) for name in found]
    tables = [
        {
            "title": f"Explanations by {method.replace('_', ' ')}, means over examples with 95% intervals.",
            "columns": ["Measure", "Better", *titles, "What it says"],
            "rows": _measures(method, found),
        }
        for method in some.table.seconds
    ]
    curves = [
        {
            "title": f"{_title(what)}: {noise.split(' (')[0]}",
            "x_label": noise,
            "y_label": _title(what),
            "series": [_series(name, one.curves[what, noise]) for name, one in found.items()],
        }
        for what, noise in some.curves
    ]
    return {"curves": curves, "tables": tables}


def told(found: Mapping[str, Measured], record: dict[str, Any]) -> str:
    """For the console: how well the models predict, and the table of each model's explanations."""
    parts = [results_table(record)] if any(one.metrics for one in found.values()) else list(record["data"]["notes"])
    for name, one in found.items():
        parts.append(f"explanations of: {title_of(name, record['runs'][name])}\n{one.table}")
    return "\n\n".join(parts)


def _measures(method: str, found: Mapping[str, Measured]) -> list[list[str]]:
    rows = []
    for metric in next(iter(found.values())).table.metrics:
        cells = [one.table[method, metric] for one in found.values()]
        if all(cell.mean is None for cell in cells):
            continue
        better = {True: "higher", False: "lower", None: ""}[cells[0].higher_is_better]
        rows.append([metric.replace("_", " "), better, *map(_written, cells), MEASURES[metric].summary])
    return rows


def _written(cell: Cell) -> str:
    if cell.mean is None:
        return ABSENT
    middle, ends = interval({"mean": cell.mean, "low": cell.low, "high": cell.high})
    return f"{middle} ({ends})" if ends else middle


def _series(name: str, curve: Curve) -> dict[str, Any]:
    return {
        "name": name,
        "x": list(curve.severities),
        "y": list(curve.means),
        "low": [found.low for found in curve.intervals],
        "high": [found.high for found in curve.intervals],
    }


def _title(what: str) -> str:
    label = word_of(what).label if what in METRICS else what
    return label[:1].upper() + label[1:]
