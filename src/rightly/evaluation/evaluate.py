"""The table of methods and measures: ``rt.evaluate``."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rightly.attributions import Attribution
from rightly.core import registry
from rightly.core.annotation import Annotation
from rightly.core.batch import Inputs, Model, rows
from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.progress import bar
from rightly.core.scalar import Target, single
from rightly.core.types import Reference
from rightly.evaluation.explainer import Explainer, read
from rightly.evaluation.measures import MEASURES, Measure
from rightly.evaluation.statistics import interval
from rightly.evaluation.subject import SCALES, Subject

Method = str | Attribution | Tensor


@dataclass(frozen=True)
class Cell:
    """One measure of one method.

    Attributes:
        method, metric: their names.
        mean, low, high: over the examples, with the 95 % interval of the mean (Student's t); the ends are the mean
            itself where the measure gives one number for all of them. None where it could not be taken.
        n: examples that have a value.
        seconds: that it took; explaining is counted in ``seconds`` of the table.
        higher_is_better: None where neither is better.
        missing: why it could not be taken; empty if it could.
    """

    method: str
    metric: str
    mean: float | None
    low: float | None
    high: float | None
    n: int
    seconds: float
    higher_is_better: bool | None
    missing: str = ""


@dataclass(frozen=True)
class EvaluationTable:
    """Methods against measures; ``print`` shows it.

    Attributes:
        rows: a cell for each method and each measure, method by method.
        seconds: method -> seconds it took to explain the examples; 0 for attributions that came from elsewhere.
        attributions: method -> (B, *F).
    """

    rows: tuple[Cell, ...]
    seconds: Mapping[str, float]
    attributions: Mapping[str, Tensor]

    def __getitem__(self, at: tuple[str, str]) -> Cell:
        """``table[method, metric]``."""
        for cell in self.rows:
            if (cell.method, cell.metric) == at:
                return cell
        raise KeyError(at)

    @property
    def metrics(self) -> list[str]:
        """Names of the measures, in order."""
        return list(dict.fromkeys(cell.metric for cell in self.rows))

    def as_dict(self) -> dict[str, Any]:
        """For a record: ``{"rows": [...], "seconds": {...}}``."""
        return {"rows": [asdict(cell) for cell in self.rows], "seconds": dict(self.seconds)}

    def __str__(self) -> str:
        arrows = {True: " (higher is better)", False: " (lower is better)", None: ""}
        body = [["measure", *self.seconds]]
        for metric in self.metrics:
            cells = [self[method, metric] for method in self.seconds]
            body.append([metric + arrows[cells[0].higher_is_better], *map(_shown, cells)])
        body.append(["seconds to explain", *(f"{value:.3g}" for value in self.seconds.values())])
        widths = [max(len(row[k]) for row in body) for k in range(len(body[0]))]
        lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in body]
        absent = dict.fromkeys(f"{cell.metric} of {cell.method}: {cell.missing}" for cell in self.rows if cell.missing)
        return "\n".join([*lines, *absent])


def evaluate(
    model: Model,
    data: Any,
    methods: Sequence[Method] | Mapping[str, Method] = ("expected_gradients", "integrated_gradients", "gradient"),
    metrics: Sequence[str] | None = None,
    *,
    reference: Reference | None = None,
    target: Target | None = None,
    background: Tensor | None = None,
    seeds: Sequence[Model] = (),
    relabelled: Model | None = None,
    n_samples: int = 100,
    seed: int = 0,
    chunk_size: int | None = None,
    progress: bool = False,
) -> EvaluationTable:
    """Measure explanations of a model, whoever trained it.

    Args:
        model: a module or a callable; it is not changed.
        data: ``inputs``, ``(inputs, labels)`` or ``(inputs, labels, annotation)``: inputs (B, ...), labels (B,) or
            None. Inputs that are a tuple go inside one: ``((a, b), labels)``.
        methods: names (``rightly list attributions``), attributions, or tensors (B, *F) of attributions that came from
            elsewhere, as a list or as a dict that names them. Measures that explain again skip the latter.
        metrics: names of ``rt.evaluation.MEASURES``; by default those that can be taken here: places only with an
            annotation, ablation (``*_mask``) only for tables. Of several outputs it follows the explained class: its
            logit, or its probability where that is explained; the ``absolute`` ones then measure accuracy.
        reference: for methods that are given by name and compare with references; their own by default.
        target: the class that methods given by name explain; by default the labelled one, without labels the
            predicted one.
        background: (T, *F), rows that stand for the data in ablation; the inputs by default.
        seeds: models that differ from this one by their seed alone, for ``seed_agreement``.
        relabelled: one trained alike on labels in random order (until it fits them), for ``label_randomisation``.
        n_samples: references or noises of methods that are given by name, and changes of an input (infidelity; ten of
            them at most where each is explained).
        seed: of all draws: methods see the same ones.
        chunk_size: points a pass; memory only.
        progress: show a bar.

    Returns:
        A table; a measure that a method cannot have is an empty cell with its reason.

    Raises:
        ArgumentError: an unknown method or measure, or a measure that was asked for and no method can have.
        ShapeError: inputs, labels and attributions do not fit.
    """
    inputs, labels, annotation = _parts(data)
    check_count("n_samples", n_samples)
    wanted = _wanted(metrics)
    named = _named(methods)
    several = not single(read(model, inputs))
    base = {"reference": reference, "n_samples": n_samples, "target": target}
    cells: list[Cell] = []
    seconds: dict[str, float] = {}
    found: dict[str, Tensor] = {}
    with bar("evaluate", enabled=progress) as report:
        for name, method in named.items():
            started = time.perf_counter()
            given = method if isinstance(method, Tensor) else None
            asked = "gradient" if isinstance(method, Tensor) else method
            arguments = _arguments(asked, base) if isinstance(asked, str) else {}
            explainer = Explainer.of(asked, model, inputs, labels, seed=seed, chunk_size=chunk_size, **arguments)
            found[name] = explainer(model, inputs) if given is None else _fitting(given, rows(inputs))
            seconds[name] = time.perf_counter() - started if given is None else 0.0
            subject = Subject(
                model=model,
                inputs=inputs,
                labels=labels,
                annotation=annotation,
                attributions=found[name],
                explainer=explainer if given is None else None,
                background=background if background is not None else _rows_of(inputs),
                values=partial(explainer.values, model),
                output=explainer.method.output,
                target=explainer.labels if several and explainer.method.output in SCALES else None,
                n_samples=n_samples,
                seed=seed,
                seeds=seeds,
                relabelled=relabelled,
            )
            for measure in wanted:
                cells.append(_cell(name, measure, subject))
                if report:
                    report(len(cells), len(named) * len(wanted))
    return EvaluationTable(_kept(cells, asked=metrics is not None), seconds, found)


def _cell(name: str, measure: Measure, subject: Subject) -> Cell:
    empty = Cell(name, measure.name, None, None, None, 0, 0.0, measure.higher_is_better)
    if missing := measure.missing(subject):
        return replace(empty, missing=missing)
    started = time.perf_counter()
    try:
        values = measure.take(subject)
    except ArgumentError as problem:
        # what only the attempt can tell must not cost the rest of the table
        return replace(empty, missing=problem.what)
    seconds = time.perf_counter() - started
    every = torch.as_tensor(values, dtype=torch.float64).reshape(-1)
    numbers = every[every.isfinite()].tolist()
    if not numbers:
        return replace(empty, seconds=seconds, missing="no example has a value")
    shown = interval(numbers, measure.bounds)
    n = rows(subject.inputs) if isinstance(values, float) else len(numbers)
    return replace(empty, mean=shown.mean, low=shown.low, high=shown.high, n=n, seconds=seconds)


def _kept(cells: list[Cell], *, asked: bool) -> tuple[Cell, ...]:
    """Without the measures that no method can have; when they were asked for, that is an error."""
    known = {cell.metric for cell in cells if not cell.missing}
    absent = {cell.metric: cell.missing for cell in cells if cell.metric not in known}
    if asked and absent:
        raise ArgumentError(
            "a measure cannot be taken",
            expected="measures that the data, the model and a method allow",
            got="; ".join(f"{metric}: {why}" for metric, why in absent.items()),
            mend="leave it out, or give what it needs",
        )
    return tuple(cell for cell in cells if cell.metric in known)


def _shown(cell: Cell) -> str:
    if cell.mean is None or cell.low is None or cell.high is None:
        return "-"
    ends = "" if cell.low == cell.high else f" ({cell.low:.3g} to {cell.high:.3g})"
    return f"{cell.mean:.3g}{ends}"


def _parts(data: Any) -> tuple[Inputs, Tensor | None, Annotation | None]:
    """Inputs, labels and annotation, checked against one another."""
    given = data if isinstance(data, tuple) else (data,)
    if not 1 <= len(given) <= 3:
        raise ArgumentError(
            "the data cannot be read",
            expected="inputs, (inputs, labels) or (inputs, labels, annotation)",
            got=f"a tuple of {len(given)}",
        )
    inputs, labels, annotation = (*given, None, None)[:3]
    batch = rows(inputs)
    if labels is not None and not isinstance(labels, Tensor):
        raise ArgumentError(
            "labels cannot be read",
            expected="a tensor (B,), or None",
            got=type(labels).__name__,
            mend="torch.as_tensor(labels)",
        )
    if labels is not None and labels.shape != (batch,):
        raise ShapeError("every example needs a label", expected=(batch,), got=tuple(labels.shape))
    if annotation is not None and not isinstance(annotation, Annotation):
        raise ArgumentError(
            "the annotation cannot be read",
            expected="rt.Annotation(relevant=...), or None",
            got=type(annotation).__name__,
        )
    return inputs, labels, annotation


def _wanted(metrics: Sequence[str] | None) -> list[Measure]:
    if metrics is None:
        return [measure for measure in MEASURES.values() if measure.default]
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    if not names or (unknown := [name for name in names if name not in MEASURES]):
        raise ArgumentError(
            "unknown measure", expected=", ".join(MEASURES), got=", ".join(map(str, unknown)) if names else "none"
        )
    return [MEASURES[name] for name in dict.fromkeys(names)]


def _named(methods: Sequence[Method] | Mapping[str, Method]) -> dict[str, Method]:
    """By name; several of one kind have to be told apart by the caller."""
    if isinstance(methods, str | Attribution | Tensor):
        methods = [methods]
    if not isinstance(methods, Mapping):
        pairs = [(_name(method), method) for method in methods]
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            raise ArgumentError(
                "two methods have one name",
                expected="a dict that names them",
                got=", ".join(names),
                mend='methods={"ten draws": rt.ExpectedGradients(...), ...}',
            )
        methods = dict(pairs)
    if not methods:
        raise ArgumentError("nothing is to be measured", expected="at least one method", got="none")
    if wrong := [name for name, method in methods.items() if not isinstance(method, str | Attribution | Tensor)]:
        raise ArgumentError(
            "a method cannot be read",
            expected="a registered name, an attribution, or a tensor (B, *F) of attributions",
            got=", ".join(f"{name}: {type(methods[name]).__name__}" for name in wrong),
        )
    return dict(methods)


def _name(method: Method) -> str:
    if isinstance(method, str):
        return registry.find("attribution", method).name
    return "attributions" if isinstance(method, Tensor) else registry.name_of(method)


def _arguments(method: str, base: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the table's arguments that a named method takes; without references or noise, draws are waste."""
    entry = registry.find("attribution", method)
    known = inspect.signature(entry.cls).parameters
    given = {key: value for key, value in base.items() if key in known and value is not None}
    if "reference" not in given and "sampled" not in entry.traits:
        given.pop("n_samples", None)
    return given


def _fitting(attributions: Tensor, batch: int) -> Tensor:
    if attributions.ndim < 2 or len(attributions) != batch or not bool(attributions.isfinite().all()):
        raise ShapeError(
            "attributions from elsewhere do not fit the data",
            expected=f"finite numbers ({batch}, *F)",
            got=tuple(attributions.shape),
        )
    return attributions.detach()


def _rows_of(inputs: Inputs) -> Tensor | None:
    return inputs if isinstance(inputs, Tensor) and torch.is_floating_point(inputs) else None
