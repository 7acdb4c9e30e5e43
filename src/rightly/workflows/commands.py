"""What ``rightly fit`` runs, from the user's arguments to a job."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rightly.core.errors import ArgumentError
from rightly.data import Images, Table, read_images, read_table
from rightly.objectives.term import Weight
from rightly.workflows.case import Settings
from rightly.workflows.choices import choose
from rightly.workflows.custom import custom_case, find_maker, make
from rightly.workflows.job import Job
from rightly.workflows.pictures import check_annotation, image_case
from rightly.workflows.tables import check_irrelevant, table_case

#: gradient steps that a training is given at least, unless ``epochs`` is
_STEPS = 2000


@dataclass(frozen=True)
class Request:
    """The arguments of ``rightly fit``."""

    source: str
    label: str | None = None
    prior: str | None = None
    weight: str | None = None
    seed: int = 0
    seeds: int = 5
    epochs: int | None = None
    batch_size: int | None = None
    lr: float = 1e-3
    task: Literal["classification", "regression"] | None = None
    drop: Sequence[str] = ()
    irrelevant: Sequence[str] = ()
    annotations: str | None = None
    regions: Literal["irrelevant", "relevant"] = "irrelevant"
    size: int | None = None


def job_for(request: Request) -> tuple[Job, str]:
    """The job, and a short name for its folder.

    Raises:
        ArgumentError, DataError, AnnotationError: something cannot be used; nothing has been written.
    """
    if request.seeds < 1 or request.seed < 0:
        raise ArgumentError(
            "seeds are counted", expected="--seeds >= 1, --seed >= 0", got=(request.seeds, request.seed)
        )
    if (request.epochs or 1) < 1 or (request.batch_size or 1) < 1 or not request.lr > 0:
        got = (request.epochs, request.batch_size, request.lr)
        raise ArgumentError("training cannot run so", expected="--epochs >= 1, --batch-size >= 1, --lr > 0", got=got)
    weight = parse_weight(request.weight)
    if ":" in request.source and not Path(request.source).exists():
        return _custom_job(request)
    if Path(request.source).is_dir():
        return _image_job(request, weight)
    return _table_job(request, weight)


def parse_weight(text: str | None) -> Weight | None:
    """``auto``, ``balance`` or a number; None for the prior's default."""
    if text is None or text == "auto" or text == "balance":
        return text  # type: ignore[return-value]
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ArgumentError("unusable weight", expected="auto, balance, or a number >= 0", got=text)
    return value


def settings_for(request: Request, rows: int, base: Settings) -> Settings:
    """Batches grow with the data and epochs shrink, so that a training is about as many steps on any table."""
    train = max(1, int(0.6 * rows))
    batch_size = request.batch_size or min(1024, max(base.batch_size, train // 50))
    epochs = request.epochs or max(5, min(base.epochs, -(-_STEPS * batch_size // train)))
    return replace(base, epochs=epochs, batch_size=batch_size, lr=request.lr)


def _table_job(request: Request, weight: Weight | None) -> tuple[Job, str]:
    if request.label is None:
        raise ArgumentError("a table needs its label column", expected="--label COLUMN", got="none")
    if request.annotations is not None:
        raise ArgumentError(
            "drawn annotations belong to images", expected="--irrelevant COLUMN for tables", got=request.annotations
        )
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
        ),
        range(request.seed, request.seed + request.seeds),
        about,
        _identity(request, prior, settings),
        ("plain", prior),
    ), f"{name}-{prior}"


def _image_job(request: Request, weight: Weight | None) -> tuple[Job, str]:
    if request.irrelevant or request.drop:
        raise ArgumentError(
            "images have no columns", expected="--annotations DIR", got=[*request.irrelevant, *request.drop]
        )
    prior = request.prior or (
        "smoothness"
        if request.annotations is None
        else "right-reasons"
        if request.regions == "irrelevant"
        else "energy"
    )
    needs = choose(prior, images=True).needs
    images = read_images(request.source, annotations=request.annotations, kind=request.regions, size=request.size)
    check_annotation(images, needs)
    settings = settings_for(request, len(images.labels), Settings(explain_samples=50, explain_rows=100))
    name = Path(request.source).resolve().name
    about = about_job(request, prior, "Where does the model look, and can it look where it should?")
    about["data"] = about_images(images, name, request.source)
    return Job(
        lambda seed: image_case(images, seed, prior=prior, weight=weight, settings=settings),
        range(request.seed, request.seed + request.seeds),
        about,
        _identity(request, prior, settings),
        ("plain", prior),
        threads=2,
    ), f"{name}-{prior}"


def _custom_job(request: Request) -> tuple[Job, str]:
    if request.prior or request.weight or request.label:
        raise ArgumentError(
            "a function brings its own terms and labels", expected="no --prior, --weight, --label", got="some of them"
        )
    maker = find_maker(request.source)
    _, train, _, _ = make(maker, request.seed)
    settings = settings_for(request, 2 * len(train[1]), Settings())
    about = about_job(request, "the objective's terms", f"What do the terms of {request.source} change?")
    about["data"] = {"name": request.source, "kind": "custom", "source": request.source, "rows": len(train[1])}
    return Job(
        lambda seed: custom_case(maker, seed, settings),
        range(request.seed, request.seed + request.seeds),
        about,
        _identity(request, "own", settings),
        ("plain", "prior"),
    ), request.source.replace(":", "-")


def about_job(request: Request, prior: str, question: str) -> dict[str, Any]:
    """The record's parts that do not depend on the results."""
    rerun = ["rightly", "fit", request.source]
    for name, value in vars(request).items():
        if name == "source" or value is None or value == getattr(Request("x"), name):
            continue
        flag = "--" + name.replace("_", "-")
        rerun += [flag, ",".join(value) if isinstance(value, list | tuple) else str(value)]
    return {
        "title": f"{Path(request.source).name}: plain against {prior}",
        "question": question,
        "command": "fit",
        "rerun": shlex.join(rerun),
    }


def about_table(table: Table, name: str) -> dict[str, Any]:
    """The record's ``data`` of a table."""
    about: dict[str, Any] = {
        "name": name,
        "kind": "table",
        "source": Path(table.source).name,
        "rows": len(table.labels),
        "features": len(table.columns),
        "label": table.label,
        "task": table.task,
        "notes": list(table.notes),
        "columns": [
            {"name": c.name, "kind": c.kind, "missing": c.missing, "levels": list(c.levels)} for c in table.columns
        ],
    }
    if table.task == "classification":
        counts = {name: int((table.labels == i).sum()) for i, name in enumerate(table.classes)}
        about |= {"classes": list(table.classes), "class_counts": counts}
        smallest = min(counts, key=lambda key: counts[key])
        if counts[smallest] < 0.2 * len(table.labels) / max(1, len(counts) - 1):
            share = 100 * counts[smallest] / len(table.labels)
            about["notes"].append(
                f"The classes are unbalanced: {smallest!r} is {share:.1f} % of the rows. Accuracy says little here; "
                "read the AUC and the balanced accuracy."
            )
    return about


def about_images(images: Images, name: str, source: str) -> dict[str, Any]:
    """The record's ``data`` of a folder of images."""
    counts = {label: int((images.labels == i).sum()) for i, label in enumerate(images.classes)}
    return {
        "name": name,
        "kind": "images",
        "source": Path(source).name,
        "rows": len(images.labels),
        "label": "folder",
        "task": "classification",
        "classes": list(images.classes),
        "class_counts": counts,
        "notes": list(images.notes),
    }


def _identity(request: Request, prior: str, settings: Settings) -> dict[str, Any]:
    asked = {name: list(v) if isinstance(v, list | tuple) else v for name, v in vars(request).items()}
    return asked | {"prior": prior, **vars(settings)}
