"""Cases from images: a folder of the user's, or digits with a planted decoy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from rightly.core.annotation import Annotation
from rightly.core.batch import rows
from rightly.core.errors import AnnotationError
from rightly.data import DecoyPart, Images, decoy_digits, split_indices
from rightly.objectives.term import Weight
from rightly.references import InBatch
from rightly.workflows import networks
from rightly.workflows.case import Arm, Case, Data, Part, Settings
from rightly.workflows.choices import Question, choose

_QUESTION = Question(InBatch(), "logit", "label")
#: images smaller than this go to a multilayer perceptron: pooling would leave nothing of them
_SMALL = 16


def image_case(images: Images, seed: int, *, prior: str, weight: Weight | None, settings: Settings) -> Case:
    """A split of a folder of images with a plain arm and an arm with the prior."""
    choice = choose(prior, images=True)
    check_annotation(images, choice.needs)
    parts = split_indices(len(images.labels), seed=seed, labels=images.labels)
    data = [_part(images, rows) for rows in parts]
    term = choice.make(_QUESTION, choice.weight if weight is None else weight)
    return _case(
        (
            Arm("plain", "without the prior", _three(data)),
            Arm(prior, f"with the prior: {choice.title}", _three(data), terms=(term,), about=choice.about(prior, term)),
        ),
        images.inputs.shape[1:],
        images.classes,
        seed,
        settings,
    )


def decoy_case(seed: int, settings: Settings) -> Case:
    """Digits whose corners give the label away in training only: plain, right reasons, and without any decoy."""
    digits = decoy_digits(seed, corners="all")
    parts = (digits.train, digits.validation, digits.test)
    decoyed = [_decoy_part(part, clean=False) for part in parts]
    clean = [_decoy_part(part, clean=True) for part in parts]
    choice = choose("right-reasons", images=True)
    term = choice.make(_QUESTION, choice.weight)
    return _case(
        (
            Arm("plain", "plain training", _three(decoyed)),
            Arm(
                "right-reasons",
                "with right reasons",
                _three(decoyed),
                terms=(term,),
                about=choice.about("right-reasons", term),
            ),
            Arm("no-decoy", "never saw a decoy", _three(clean)),
        ),
        digits.train.inputs.shape[1:],
        tuple(str(digit) for digit in range(digits.classes)),
        seed,
        settings,
    )


def check_annotation(images: Images, needs: str) -> None:
    """The prior's regions have to be there, and to mean what it reads."""
    if needs and (images.annotation is None or images.kind != needs):
        got = "no annotations" if images.annotation is None else f"regions marked as {images.kind}"
        raise AnnotationError(
            f"this prior needs drawn regions that are {needs}",
            expected=f"--annotations DIR --regions {needs}",
            got=got,
        )


def _case(
    arms: tuple[Arm, ...], shape: tuple[int, ...], classes: tuple[str, ...], seed: int, settings: Settings
) -> Case:
    architecture: dict[str, Any]
    if min(shape[1:]) < _SMALL:
        architecture = {"kind": "mlp", "n_in": int(np.prod(shape)), "hidden": [50, 30], "n_out": len(classes)}
    else:
        size = [int(side) for side in shape[1:]]
        architecture = {"kind": "cnn", "channels": shape[0], "size": size, "n_out": len(classes), "width": 128}
        settings = replace(settings, batch_size=_batch_size(settings.batch_size, rows(arms[0].train[0])))
    return Case(
        arms=arms,
        make_model=partial(networks.build, architecture, seed),
        loss=F.cross_entropy,
        task="classification",
        settings=settings,
        architecture=architecture,
        classes=classes,
        attached={"shape": list(shape)},
        resplit=True,
    )


def _batch_size(wanted: int, examples: int) -> int:
    """The next size that leaves no batch of a single example, whose statistics batch norm could not take."""
    size = max(2, wanted)
    while examples % size == 1:
        size += 1
    return size


def _part(images: Images, rows: np.ndarray) -> Part:
    annotation = None
    if images.annotation is not None:
        annotation = Annotation(**{images.kind: torch.from_numpy(images.annotation[rows])})
    return torch.from_numpy(images.inputs[rows]), torch.from_numpy(images.labels[rows]), annotation


def _decoy_part(part: DecoyPart, *, clean: bool) -> Part:
    annotation = Annotation(irrelevant=torch.from_numpy(part.irrelevant))
    return torch.from_numpy(part.clean if clean else part.inputs), torch.from_numpy(part.labels), annotation


def _three(parts: Sequence[Part]) -> Data:
    train, validation, test = parts
    return train, validation, test
