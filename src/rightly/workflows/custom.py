"""Cases from a user's own model, data and terms: ``module:function``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rightly.core.errors import ArgumentError, DataError
from rightly.objectives import Objective
from rightly.training.batches import unpack
from rightly.workflows.case import Arm, Case, Part, Settings

Made = tuple[Objective, Part, Part, Part]
EXPECTED = "make_objective(seed) -> (rt.Objective, train, validation, test), each data (inputs, labels[, annotation])"


def find_maker(name: str) -> Callable[[int], Any]:
    """The function ``module:function``, looked up from the current folder first."""
    module, _, function = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), function, None)
    except ModuleNotFoundError as error:
        if error.name != module.split(".")[0] and error.name != module:
            raise
        raise ArgumentError(
            f"there is no module {module!r}", expected="a module in this folder or installed", got=name
        ) from None
    finally:
        sys.path.pop(0)
    if not callable(found):
        raise ArgumentError(f"{module} has no function {function!r}", expected=EXPECTED, got=name)
    return found  # type: ignore[no-any-return]


def make(maker: Callable[[int], Any], seed: int) -> Made:
    """Call the user's function and check what it returns."""
    made = maker(seed)
    if not isinstance(made, tuple) or len(made) != 4 or not isinstance(made[0], Objective):
        got = type(made).__name__ + (f" of {len(made)}" if isinstance(made, tuple) else "")
        raise ArgumentError("the function returns something else", expected=EXPECTED, got=got)
    objective, *parts = made
    train, validation, test = (unpack(part) for part in parts)
    return objective, train, validation, test


def custom_case(maker: Callable[[int], Any], seed: int, settings: Settings) -> Case:
    """A plain arm (the same objective without its terms) and an arm with all of them."""
    objective, train, validation, test = make(maker, seed)
    if not objective.terms:
        raise ArgumentError("the objective has no term to compare with", expected="at least one rt.Term", got="none")
    names = ", ".join(term.name for term in objective.terms)
    if not torch.isfinite(test[1].float()).all():
        raise DataError("labels must be finite", got="NaN or infinity in the test labels")
    about = {"name": names, "description": "; ".join(repr(term) for term in objective.terms)}
    return Case(
        arms=(
            Arm("plain", "without the terms", (train, validation, test)),
            Arm("prior", f"with {names}", (train, validation, test), terms=objective.terms, about=about),
        ),
        make_model=lambda: make(maker, seed)[0].model,
        loss=objective.loss,
        task="regression" if test[1].is_floating_point() and not _binary(test[1]) else "classification",
        settings=settings,
        classes=_classes(test[1]),
        space=objective.terms[0].attribution.space,
    )


def _binary(labels: torch.Tensor) -> bool:
    return bool(((labels == 0) | (labels == 1)).all())


def _classes(labels: torch.Tensor) -> tuple[str, ...]:
    return (
        tuple(str(i) for i in range(int(labels.max()) + 1)) if _binary(labels) or not labels.is_floating_point() else ()
    )
