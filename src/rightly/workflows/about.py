"""What a record says about the data and the command, before there are results."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np

from rightly.data import Images, Table
from rightly.workflows.request import Request


def about_job(request: Request, prior: str, question: str, command: str = "fit") -> dict[str, Any]:
    """The record's parts that do not depend on the results."""
    rerun = ["rightly", command, request.source]
    for name, value in request.given.items():
        flag = "--" + name.replace("_", "-")
        rerun += [flag, ",".join(value) if isinstance(value, list | tuple) else str(value)]
    return {
        "title": f"{Path(request.source).name}: plain against {prior}",
        "question": question,
        "command": command,
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
        about["notes"] += _unbalanced(counts)
    return about


def about_images(images: Images, name: str, source: str) -> dict[str, Any]:
    """The record's ``data`` of a folder of images."""
    counts = {label: int((images.labels == i).sum()) for i, label in enumerate(images.classes)}
    notes = list(images.notes)
    if images.annotation is not None:
        drawn = int(np.isfinite(images.annotation).any(axis=(1, 2, 3)).sum())
        notes.append(f"{drawn} of {len(images.labels)} pictures have a drawn region, marked as {images.kind}")
    return {
        "name": name,
        "kind": "images",
        "source": Path(source).name,
        "rows": len(images.labels),
        "label": "folder",
        "task": "classification",
        "classes": list(images.classes),
        "class_counts": counts,
        "notes": notes + _unbalanced(counts),
    }


def _unbalanced(counts: dict[str, int]) -> list[str]:
    """A warning when a class has less than a fifth of its fair share."""
    smallest = min(counts, key=lambda key: counts[key])
    share = counts[smallest] / sum(counts.values())
    if share >= 0.2 / max(1, len(counts) - 1):
        return []
    return [
        f"The classes are unbalanced: {smallest!r} is {100 * share:.1f} % of the rows. Accuracy says little here; "
        "read the AUC and the balanced accuracy."
    ]
