"""What ``rightly fit`` runs, from the user's arguments to a job."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from rightly.core.batch import rows, tensors
from rightly.core.errors import ArgumentError
from rightly.data import read_images, read_table
from rightly.objectives.term import Weight
from rightly.rules import parse
from rightly.workflows.about import about_images, about_job, about_table
from rightly.workflows.case import Settings
from rightly.workflows.choices import choose
from rightly.workflows.custom import custom_case, find_maker, make
from rightly.workflows.job import Job
from rightly.workflows.pictures import check_annotation, image_case
from rightly.workflows.request import Request, check_request, parse_weight, settings_for
from rightly.workflows.tables import check_irrelevant, ruled_case, table_case


def job_for(request: Request) -> tuple[Job, str]:
    """The job, and a short name for its folder.

    Raises:
        ArgumentError, DataError, AnnotationError: something cannot be used; nothing has been written.
    """
    check_request(request)
    weight = parse_weight(request.weight)
    if request.kind == "custom":
        return _custom_job(request)
    if request.kind == "images":
        return _image_job(request, weight)
    return _table_job(request, weight)


def _table_job(request: Request, weight: Weight | None) -> tuple[Job, str]:
    if request.label is None:
        raise ArgumentError("a table needs its label column", expected="--label COLUMN", got="none")
    if request.rules is not None:
        return _ruled_job(request, request.label, Path(request.rules))
    prior = request.prior or ("right-reasons" if request.irrelevant else "sparsity")
    needs = choose(prior, images=False).needs
    table = read_table(request.source, request.label, task=request.task, drop=request.drop)
    check_irrelevant(table, needs, request.irrelevant)
    settings = settings_for(request, len(table.labels), Settings())
    name = Path(request.source).name.split(".")[0]
    about = about_job(
        request, prior, f"What does a model of {table.label!r} rely on, and can it rely on better reasons?"
    )
    about["data"] = about_table(table, name)
    return Job(
        lambda seed: table_case(
            table, seed, prior=prior, weight=weight, irrelevant=request.irrelevant, settings=settings
        ).with_engine(request.engine),
        range(request.seed, request.seed + request.seeds),
        about,
        identity_of(request, prior, settings, file_digest(request.source)),
        ("plain", prior),
    ), f"{name}-{prior}"


def _ruled_job(request: Request, label: str, file: Path) -> tuple[Job, str]:
    rules = parse(file)
    table = read_table(request.source, label, task=request.task, drop=request.drop)
    settings = settings_for(request, len(table.labels), Settings())
    name = Path(request.source).name.split(".")[0]
    question = f"Does a model of {label!r} keep the rules in {file.name}, and what does keeping them cost?"
    identity = identity_of(request, "rules", settings, file_digest(request.source))
    return Job(
        lambda seed: ruled_case(table, seed, rules=rules, settings=settings).with_engine(request.engine),
        range(request.seed, request.seed + request.seeds),
        about_job(request, "rules", question) | {"data": about_table(table, name)},
        identity | {"rules_sha256": file_digest(str(file))},
        ("plain", "rules"),
    ), f"{name}-rules"


def _image_job(request: Request, weight: Weight | None) -> tuple[Job, str]:
    annotated = "right-reasons" if request.regions == "irrelevant" else "energy"
    prior = request.prior or ("smoothness" if request.annotations is None else annotated)
    needs = choose(prior, images=True).needs
    images = read_images(request.source, annotations=request.annotations, kind=request.regions, size=request.size)
    check_annotation(images, needs)
    settings = settings_for(request, len(images.labels), Settings(explain_samples=50, explain_rows=100))
    name = Path(request.source).resolve().name
    about = about_job(request, prior, "Where does the model look, and can it look where it should?")
    about["data"] = about_images(images, name, request.source)
    regions = () if images.annotation is None else (images.annotation,)
    return Job(
        lambda seed: image_case(images, seed, prior=prior, weight=weight, settings=settings).with_engine(
            request.engine
        ),
        range(request.seed, request.seed + request.seeds),
        about,
        identity_of(request, prior, settings, digest_of(images.inputs, images.labels, *regions)),
        ("plain", prior),
        threads=2,
    ), f"{name}-{prior}"


def _custom_job(request: Request) -> tuple[Job, str]:
    maker = find_maker(request.source)
    _, *parts = make(maker, request.seed)
    sizes = [rows(inputs) for inputs, _, _ in parts]
    settings = settings_for(request, sum(sizes), Settings())
    about = about_job(request, "the objective's terms", f"What do the terms of {request.source} change?")
    about["data"] = {"name": request.source, "kind": "custom", "source": request.source, "rows": sum(sizes)}
    arrays = [part.detach().cpu().float().numpy() for inputs, labels, _ in parts for part in (*tensors(inputs), labels)]
    return Job(
        lambda seed: custom_case(maker, seed, settings),
        range(request.seed, request.seed + request.seeds),
        about,
        identity_of(request, "own", settings, digest_of(*arrays)),
        ("plain", "prior"),
    ), request.source.replace(":", "-")


def file_digest(path: str) -> str:
    """SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(*arrays: np.ndarray) -> str:
    """SHA-256 of arrays."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def identity_of(request: Request, prior: str, settings: Settings, digest: str) -> dict[str, Any]:
    """What a resumed run must share with the one that was stopped: arguments, settings and data."""
    asked = {name: list(v) if isinstance(v, list | tuple) else v for name, v in vars(request).items()}
    return asked | {"prior": prior, **vars(settings), "data_sha256": digest}
