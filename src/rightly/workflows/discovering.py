"""What ``rightly discover`` runs: models that are right for different reasons, side by side for a person to choose."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rightly import report
from rightly.core.errors import ArgumentError
from rightly.data import read_images, read_table
from rightly.discovery import Discovery, Finding, find_another_explanation
from rightly.objectives.term import Weight
from rightly.workflows import networks
from rightly.workflows.about import about_images, about_job, about_table
from rightly.workflows.case import Arm, Case, Settings
from rightly.workflows.commands import digest_of, file_digest, identity_of
from rightly.workflows.job import check_folder, run_folder, save_model, torch_threads
from rightly.workflows.pictures import image_case
from rightly.workflows.request import Request, check_request, parse_weight, settings_for
from rightly.workflows.summary import figures_of, record_of
from rightly.workflows.tables import table_case
from rightly.workflows.trial import judged

#: as many as a report can tell apart
_MOST = 9

_QUESTION = "Which different reasons would do, and which of them is right?"
_ABOUT = {
    "sequential": "Kept off the largest input gradients of all models before it.",
    "simultaneous": "Trained at once with the others, its input gradients at right angles to theirs.",
}
_CITATION = (
    "Ross (2018). Training machine learning models by regularizing their explanations. Thesis, Harvard "
    "(section 2.2.2, appendix 2.C)."
)


@dataclass(frozen=True)
class DiscoverRequest(Request):
    """The arguments of ``rightly discover``.

    Attributes:
        method: ``sequential`` or ``simultaneous``.
        models: at most (sequential), or at once.
        cutoff: share of an example's largest gradient above which a component counts as used.
        tolerance: how much validation accuracy (R2 for a number) a model may lose against the first.
    """

    method: Literal["sequential", "simultaneous"] = "sequential"
    models: int | None = None
    cutoff: float = 0.67
    tolerance: float = 0.05


@dataclass(frozen=True)
class Search:
    """What to run: the request, read and checked."""

    request: DiscoverRequest
    case: Case
    about: dict[str, Any]
    identity: dict[str, Any]
    name: str


def search_for(request: DiscoverRequest) -> Search:
    """Read and check; nothing has been written.

    Raises:
        ArgumentError, DataError: something cannot be used.
    """
    check_request(request)
    if request.models is not None and not 2 <= request.models <= _MOST:
        raise ArgumentError("--models cannot be used", expected=f"2 to {_MOST}", got=request.models)
    parse_weight(request.weight)
    if request.weight == "auto":
        raise ArgumentError("--weight cannot be used", expected="balance, or a number", got="auto")
    if request.kind == "custom":
        raise ArgumentError("discovery reads a table or images", expected="TABLE.csv or a folder", got=request.source)
    about = about_job(request, "", _QUESTION, "discover")
    if request.kind == "images":
        images = read_images(request.source, size=request.size)
        settings = settings_for(request, len(images.labels), Settings(explain_samples=50, explain_rows=100))
        # the arm with a prior is not used: a case has one
        case = image_case(images, request.seed, prior="l2", weight=0.0, settings=settings)
        name = Path(request.source).resolve().name
        about["data"] = about_images(images, name, request.source)
        digest = digest_of(images.inputs, images.labels)
    else:
        if request.label is None:
            raise ArgumentError("a table needs its label column", expected="--label COLUMN", got="none")
        table = read_table(request.source, request.label, task=request.task, drop=request.drop)
        settings = settings_for(request, len(table.labels), Settings())
        case = table_case(table, request.seed, prior="l2", weight=0.0, irrelevant=(), settings=settings)
        name = Path(request.source).name.split(".")[0]
        about["data"] = about_table(table, name)
        digest = file_digest(request.source)
    about["title"] = f"{Path(request.source).name}: other explanations"
    identity = identity_of(request, "discover", settings, digest)
    return Search(request, case, about, identity, f"{name}-discover")


def run_search(search: Search, out: Path, *, resume: bool, progress: bool) -> dict[str, Any]:
    """Train, write the record, the report and a folder for each model, which ``rightly explain`` reads; the record."""
    check_folder(out, search.identity, resume)
    with run_folder(out, search.identity), torch_threads(1):
        start = time.monotonic()
        found = _find(search, out / "trials" / "discovery", resume=resume, progress=progress)
        case = replace(search.case, arms=tuple(_arms(search, found)))
        trials = []
        for arm, finding in zip(case.arms, found.findings, strict=True):
            trials.append(judged(case, arm, search.request.seed, finding.model, finding.run, finding.run.seconds))
            save_model(out / arm.name, finding.model, _facts(case))
        names = [arm.name for arm in case.arms]
        record = record_of(case, trials, search.about, (names[0], names[1]), time.monotonic() - start)
        record |= {"comparison": {}, "discovery": _told(search.request, found, names)}
        record["conclusion"] = _conclusion(record)
        record["intervals"] = "Each model was trained once, so there are no intervals."
        figures = figures_of(trials)
        report.write_record(out, record, figures)
        report.write_report(out, record, figures)
    return record


def _find(search: Search, folder: Path, *, resume: bool, progress: bool) -> Discovery:
    request, case = search.request, search.case
    weight: Weight = parse_weight(request.weight) or ("balance" if request.method == "sequential" else 1.0)
    (inputs, labels, _), (held, truth, _) = case.arms[0].train, case.arms[0].validation
    settings = case.settings
    return find_another_explanation(
        partial(networks.build, case.architecture or {}),
        case.loss,
        (inputs, labels),
        validation=(held, truth),
        method=request.method,
        models=request.models,
        weight=weight,
        # a regression has no probabilities: its own gradient is penalised
        output="logit" if case.task == "regression" else None,
        cutoff=request.cutoff,
        tolerance=request.tolerance,
        seed=request.seed,
        folder=folder,
        resume=resume,
        progress=progress,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        patience=settings.patience,
    )


def _arms(search: Search, found: Discovery) -> Iterator[Arm]:
    """A name and a description for each model; all have the data of the plain one."""
    method, data = search.request.method, search.case.arms[0].data
    for number, finding in enumerate(found.findings, 1):
        plain = finding.weight == 0
        about = {
            "name": "none" if plain else "another explanation",
            "description": "Trained for the task alone." if plain else _ABOUT[method],
            "attribution": "" if plain else "Gradient",
            "citation": _CITATION,
        }
        yield Arm(f"model-{number}", f"Model {number}", data, about=about)


def _facts(case: Case) -> dict[str, Any]:
    return (
        {"architecture": case.architecture, "task": case.task, "classes": list(case.classes)}
        | case.attached
        | {"features": list(case.features)}
    )


def _told(request: DiscoverRequest, found: Discovery, names: Sequence[str]) -> dict[str, Any]:
    """For the record: what the report's section of choices shows."""
    return {
        "method": request.method,
        "stopped": found.stopped,
        "distinct": [names[number] for number in found.distinct],
        "cutoff": request.cutoff,
        "tolerance": request.tolerance,
        "models": {name: _scores(finding) for name, finding in zip(names, found.findings, strict=True)},
        "similarity": found.similarity.tolist(),
        "overlap": found.overlap.tolist(),
    }


def _scores(finding: Finding) -> dict[str, float | bool | None]:
    keys = ("weight", "train", "validation", "better", "marked", "repeated")
    return {key: getattr(finding, key) for key in keys}


def _conclusion(record: dict[str, Any]) -> list[str]:
    found = record["discovery"]
    distinct, count = found["distinct"], len(found["models"])
    names = ", ".join(name.replace("-", " ") for name in distinct)
    regression = record["data"].get("task") == "regression"
    score, constant = ("R2", "the mean") if regression else ("accuracy", "the most frequent class")
    ended = f"The search ended because: {found['stopped']}."
    if not distinct and not any(model["better"] for model in found["models"].values()):
        return [
            f"None of {count} models is shown to be better than always saying {constant} of the training rows (by two "
            "standard errors on the validation rows): there are no reasons to choose from.",
            ended,
        ]
    kept = "models is accurate for a reason" if len(distinct) == 1 else "models are accurate for reasons"
    return [
        f"{len(distinct)} of {count} {kept} of {'its' if len(distinct) == 1 else 'their'} own: {names}. Counted are "
        f"models whose {score} on the validation rows is within {found['tolerance']:g} of the best and better than "
        f"always saying {constant}, and whose gradients point elsewhere than those of the ones before them.",
        ended,
        "No number can say which of these reasons is right: that is for someone who knows the data to choose.",
    ]
