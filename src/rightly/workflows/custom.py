"""Cases from a user's own model, data and terms: ``module:function``.

An exception that the user's own code raises is not caught: its traceback is what helps to mend it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rightly.core import autodiff
from rightly.core.batch import call, outputs_of, rows, take, tensors
from rightly.core.errors import ArgumentError, DataError, ShapeError
from rightly.objectives import Objective, Term
from rightly.spaces import Input
from rightly.training.batches import unpack
from rightly.workflows.case import Arm, Case, Part, Settings, Task

Made = tuple[Objective, Part, Part, Part]
EXPECTED = "make_objective(seed) -> (rt.Objective, train, validation, test), each data (inputs, labels[, annotation])"


def find_maker(name: str) -> Callable[[int], Any]:
    """The function ``module:function``, looked up from the current folder first."""
    module, _, function = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        # it stays there: the function may import its neighbours when it is called
        sys.path.insert(0, here)
    try:
        if not module or module.startswith("."):
            raise ModuleNotFoundError(name=module)
        found = getattr(importlib.import_module(module), function, None)
    except ModuleNotFoundError as error:
        parents = {".".join(module.split(".")[: i + 1]) for i in range(module.count(".") + 1)}
        if error.name not in parents:
            raise
        raise ArgumentError(
            f"there is no module {module!r}",
            expected="a module in this folder or installed, as in my_model:make_objective",
            got=name,
            mend="leave out the .py" if module.endswith(".py") else "check the spelling, and the folder you are in",
        ) from None
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
    if not objective.terms:
        raise ArgumentError("the objective has no term", expected="at least one rt.Term", got="none")
    names = ("training", "validation", "test")
    train, validation, test = (_part(name, part) for name, part in zip(names, parts, strict=True))
    return objective, train, validation, test


def custom_case(maker: Callable[[int], Any], seed: int, settings: Settings) -> Case:
    """A plain arm (the same objective without its terms) and an arm with all of them."""
    objective, train, validation, test = make(maker, seed)
    labels = test[1]
    task: Task = "regression" if labels.is_floating_point() and not _binary(labels) else "classification"
    names = ", ".join(term.name for term in objective.terms)
    priors = "; ".join(term.about for term in objective.terms)
    about = {"name": names, "description": priors}
    return Case(
        arms=(
            Arm("plain", "without the terms", (train, validation, test)),
            Arm("prior", f"with {names}", (train, validation, test), terms=objective.terms, about=about),
        ),
        make_model=lambda: make(maker, seed)[0].model,
        loss=objective.loss,
        task=task,
        settings=settings,
        classes=_classes(objective.model, test, task),
        space=next((term.attribution.space for term in objective.terms if isinstance(term, Term)), Input()),
    )


def _part(name: str, given: Any) -> Part:
    """One part of the data, checked: as many labels as inputs, one number each, all of them finite."""
    inputs, labels, annotation = unpack(given)
    if len(labels) != rows(inputs) or labels.ndim > 2 or labels.numel() != len(labels):
        raise ShapeError(
            f"the {name} labels do not fit the inputs",
            expected=f"({rows(inputs)},), one for each example",
            got=tuple(labels.shape),
        )
    for what, tensor in [("inputs", part) for part in tensors(inputs)] + [("labels", labels)]:
        if not torch.isfinite(tensor).all():
            raise DataError(
                f"the {name} {what} hold numbers that are not finite",
                expected="finite numbers",
                got=f"{int((~torch.isfinite(tensor)).sum())} that are NaN or infinite",
            )
    return inputs, labels, annotation


def _binary(labels: Tensor) -> bool:
    return bool(((labels == 0) | (labels == 1)).all())


def _classes(model: torch.nn.Module, test: Part, task: Task) -> tuple[str, ...]:
    """The classes that the model tells apart, all of which the test part must hold; checks its outputs' shape."""
    inputs, labels, _ = test
    with autodiff.reading(model, trainable=False), torch.no_grad():
        shape = outputs_of(call(model, take(inputs, torch.arange(1)))).shape
    single = shape in ((1,), (1, 1))
    if not single and (len(shape) != 2 or task == "regression"):
        raise ShapeError(
            "the model's outputs cannot be judged",
            expected="one number an example" + ("" if task == "regression" else ", or one for each class"),
            got=f"{tuple(shape[1:])} for one example",
            mend="floating-point labels mean a regression, whole numbers classes",
        )
    if task == "regression":
        return ()
    count = 2 if single else shape[1]
    seen = sorted({int(label) for label in labels.flatten().tolist()})
    if seen != list(range(count)):
        raise DataError(
            "the test labels do not fit the model's outputs",
            expected=f"every class from 0 to {count - 1}",
            got=", ".join(map(str, seen[:20])),
            mend="give the model one output a class, and put every class in the test part",
        )
    return tuple(map(str, range(count)))
