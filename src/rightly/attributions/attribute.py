"""The post-hoc door: explain any model by a method's name."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor

from rightly.attributions.base import Attribution
from rightly.core import registry, seeding
from rightly.core.batch import Inputs, Model, rows, tensors
from rightly.core.errors import ArgumentError
from rightly.core.progress import bar
from rightly.core.scalar import Target
from rightly.core.types import AttributionResult, Reference

#: coordinates a pass when no chunk size is given: about what fits a processor's cache
_NUMBERS_A_PASS = 2**17


def attribute(
    model: Model,
    inputs: Inputs,
    method: str | Attribution = "expected_gradients",
    *,
    reference: Reference | None = None,
    target: Target | None = None,
    labels: Tensor | None = None,
    n_samples: int | None = None,
    seed: int = 0,
    chunk_size: int | None = None,
    create_graph: bool = False,
    progress: bool = False,
    **arguments: Any,
) -> AttributionResult:
    """Explain ``model`` at ``inputs``.

    Args:
        model: a module or a callable; it is not changed.
        inputs: a tensor (B, ...), or a tuple or dict of such tensors.
        method: a registered name (``rightly list``) or an attribution.
        reference, n_samples: for the methods that compare with references.
        target: which class; by default the labels if they are given, the predicted class if not.
        labels: (B,) for ``output="loss"``; also the target if none is given.
        seed: of the draws.
        chunk_size: points a pass; chosen from the size of an example if not given. It never changes a value.
        create_graph: keep the graph to the parameters.
        progress: show a bar.
        **arguments: further arguments of the method (``space=``, ``output=``, ``n_steps=``, ...).

    Returns:
        Attributions with outputs, completeness gap and, for sampling methods, standard error.
    """
    batch = rows(inputs)
    given = {"reference": reference, "n_samples": n_samples, "target": target}
    arguments |= {name: value for name, value in given.items() if value is not None}
    if target is None and isinstance(method, str):
        arguments["target"] = "predicted" if labels is None else "label"
    chosen = build(method, arguments)
    if chunk_size is None and not create_graph:
        numbers = sum(part.numel() for part in tensors(inputs)) // batch
        chunk_size = max(16, _NUMBERS_A_PASS // max(1, numbers))
    with bar(type(chosen).__name__, enabled=progress) as report:
        return chosen(
            model,
            inputs,
            labels,
            create_graph=create_graph,
            chunk_size=chunk_size,
            generator=seeding.generator("attribute", seed),
            progress=report,
        )


def build(method: str | Attribution, arguments: dict[str, Any]) -> Attribution:
    """An attribution from its name and arguments; one that is built already takes none."""
    if isinstance(method, Attribution):
        if arguments:
            raise ArgumentError(
                "this attribution has its arguments already",
                expected="arguments in its constructor",
                got=", ".join(arguments),
            )
        return method
    cls = registry.find("attribution", method).cls
    known = inspect.signature(cls).parameters
    if unknown := [name for name in arguments if name not in known]:
        raise ArgumentError(
            f"{cls.__name__} does not take {', '.join(unknown)}",
            expected=", ".join(known),
            got=", ".join(unknown),
        )
    missing = [n for n, p in known.items() if p.default is p.empty and n not in arguments]
    if missing:
        raise ArgumentError(f"{cls.__name__} needs {', '.join(missing)}", expected=", ".join(known))
    return cls(**arguments)  # type: ignore[no-any-return]
