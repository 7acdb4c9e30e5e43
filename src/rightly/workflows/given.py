"""Data that a finished run's model is measured on: read as the model reads it, with labels and regions if they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rightly.core.annotation import Annotation
from rightly.core.errors import AnnotationError, ArgumentError, DataError
from rightly.data import TableEncoder, known_labels, read_frame, read_images
from rightly.workflows.loose import loose_pictures


@dataclass(frozen=True)
class Given:
    """Examples for a model.

    Attributes:
        inputs: (N, ...).
        labels: (N,), class numbers, or values in the model's scale; None where the data have none.
        truth: (N,), the labels in their own unit, for metrics.
        annotation: None where no region is marked.
        notes: for the user.
    """

    inputs: Tensor
    labels: Tensor | None = None
    truth: np.ndarray | None = None
    annotation: Annotation | None = None
    notes: tuple[str, ...] = ()


def given_table(facts: Mapping[str, Any], data: Path, irrelevant: Sequence[str]) -> Given:
    """A table with the columns of the run's; the label column may be missing.

    Args:
        facts: beside the model.
        irrelevant: columns that must not matter.
    """
    reading = read_frame(data)
    encoder = TableEncoder.from_json(facts["encoder"])
    notes, frame, truth = list(reading.notes), reading.frame, None
    if unknown := [name for name in irrelevant if name not in facts["features"]]:
        raise ArgumentError(
            "no such feature column", expected=", ".join(facts["features"][:20]), got=", ".join(unknown)
        )
    if facts.get("label") in frame.columns:
        label = facts["label"]
        truth, keep = known_labels(frame[label], label, tuple(facts["classes"]), str(data), notes)
        frame = frame.loc[keep].reset_index(drop=True)
    annotation = None
    if irrelevant:
        marked = np.isin(encoder.groups, [facts["features"].index(name) for name in irrelevant])
        annotation = Annotation(irrelevant=torch.from_numpy(marked)[None])
    mean, sd = facts.get("label_scale", (0.0, 1.0))
    labels = truth if truth is None or facts["classes"] else ((truth - mean) / sd).astype(np.float32)
    inputs = torch.from_numpy(encoder.transform(frame))
    return Given(inputs, None if labels is None else torch.from_numpy(labels), truth, annotation, tuple(notes))


def given_images(
    facts: Mapping[str, Any], data: Path, annotations: Path | None, regions: Literal["irrelevant", "relevant"]
) -> Given:
    """A folder of pictures; they are labelled if each lies in a folder that is named like a class.

    Args:
        annotations: a folder of drawn regions, as for ``rightly fit``.
        regions: what they mean.
    """
    shape, classes = tuple(facts["shape"]), list(facts["classes"])
    inputs, names, notes = loose_pictures(data, shape)
    folders = [name.split("/")[0] for name in names]
    truth = np.array([classes.index(name) for name in folders]) if set(folders) <= set(classes) else None
    annotation = None
    if annotations is not None:
        drawn = read_images(data, annotations=annotations, kind=regions, size=(shape[1], shape[2]))
        if list(drawn.names) != names or drawn.annotation is None:
            raise AnnotationError(
                "the drawn regions cannot be matched",
                expected="a folder for each class, with all the pictures in these folders",
                got=f"{len(names)} pictures, {len(drawn.names)} of them in class folders",
            )
        annotation = Annotation(**{regions: torch.from_numpy(drawn.annotation)})
    labels = None if truth is None else torch.from_numpy(truth)
    return Given(inputs, labels, truth, annotation, tuple(notes))


def check_kind(facts: Mapping[str, Any], annotations: Path | None, irrelevant: Sequence[str]) -> bool:
    """Whether the run's model reads tables; raises where an option is for the other kind."""
    table = "encoder" in facts
    if table and annotations is not None:
        raise ArgumentError("tables have no drawn regions", expected="--irrelevant COLUMN", got="--annotations")
    if not table and irrelevant:
        raise ArgumentError("images have no columns", expected="--annotations DIR", got="--irrelevant")
    if not table and "shape" not in facts:
        raise DataError("the run's data cannot be told", expected="a run on a table or on images", got="neither")
    return table
