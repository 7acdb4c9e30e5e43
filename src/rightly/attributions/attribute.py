"""The post-hoc door: explain any model by a method's name."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, overload

from torch import Tensor

from rightly.attributions.adaptive import attribute_until
from rightly.attributions.base import Attribution
from rightly.attributions.bulk import attribute_into
from rightly.attributions.sources import Source
from rightly.attributions.store import StoredAttributions
from rightly.core import registry, seeding
from rightly.core.batch import Inputs, Model, rows, tensors
from rightly.core.errors import ArgumentError
from rightly.core.progress import bar
from rightly.core.scalar import Target
from rightly.core.types import AttributionResult, Reference

#: coordinates a pass when no chunk size is given: about what fits a processor's cache
_NUMBERS_A_PASS = 2**17
#: draws a round when a tolerance is given and no number of draws
_A_ROUND = 32


@overload
def attribute(
    model: Model, inputs: Inputs, method: str | Attribution = ..., *, out: None = None, **arguments: Any
) -> AttributionResult: ...


@overload
def attribute(
    model: Model, inputs: Any, method: str | Attribution = ..., *, out: str | Path, **arguments: Any
) -> StoredAttributions: ...


def attribute(
    model: Model,
    inputs: Any,
    method: str | Attribution = "expected_gradients",
    *,
    reference: Reference | None = None,
    target: Target | None = None,
    labels: Tensor | None = None,
    n_samples: int | None = None,
    tolerance: float | None = None,
    max_samples: int | None = None,
    seed: int = 0,
    chunk_size: int | None = None,
    create_graph: bool = False,
    progress: bool = False,
    diagnostics: bool = True,
    out: str | Path | None = None,
    resume: bool = False,
    **arguments: Any,
) -> AttributionResult | StoredAttributions:
    """Explain ``model`` at ``inputs``.

    Args:
        model: a module or a callable; it is not changed.
        inputs: a tensor (B, ...), or a tuple or dict of such tensors. With ``out`` also what is larger than memory: a
            memory-mapped array or the path of a .npy file, a dataset, a ``DataLoader`` or another iterable of batches;
            labels that come with them count as given.
        method: a registered name (``rightly list``) or an attribution.
        reference, n_samples: for the methods that compare with references.
        tolerance: draw until the standard error of every feature is at most this share of the example's largest
            absolute attribution. Then ``n_samples`` (32 by default) is the size of a round; rounds are independent, an
            example takes 6 of them at least, and the spread between them is the standard error that is returned.
        max_samples: most draws an example with ``tolerance``; 64 rounds by default.
        target: which class; by default the labels if they are given, the predicted class if not.
        labels: (B,) for ``output="loss"``; also the target if none is given.
        seed: of the draws.
        chunk_size: points a pass; chosen from the size of an example if not given. It never changes a value.
        create_graph: keep the graph to the parameters.
        progress: show a bar.
        diagnostics: also outputs, completeness gap and standard error, which cost extra passes.
        out: a folder to write to, block by block (docs/how-to/explain-large-data.md); the chunk size is then chosen by
            measuring, and the result is read from disk as it is needed.
        resume: go on with what ``out`` holds, to the same bits as without the interruption.
        **arguments: further arguments of the method (``space=``, ``output=``, ``n_steps=``, ...).

    Returns:
        Attributions with outputs, completeness gap and, for sampling methods, standard error.
    """
    _check_out(out, resume, create_graph)
    _check_tolerance(tolerance, max_samples, out, create_graph)
    source = None if out is None else Source(inputs, labels)
    given = {"reference": reference, "n_samples": n_samples, "target": target}
    arguments |= {name: value for name, value in given.items() if value is not None}
    if target is None and isinstance(method, str):
        labelled = labels is not None if source is None else source.labelled
        arguments["target"] = "label" if labelled else "predicted"
    if tolerance is not None and n_samples is None and _draws(method):
        arguments["n_samples"] = _A_ROUND
    chosen = build(method, arguments)
    if source is not None and out is not None:
        return attribute_into(
            Path(out),
            model,
            source,
            chosen,
            seed=seed,
            chunk_size=chunk_size,
            usual_chunk=_usual_chunk(source.numbers),
            diagnostics=diagnostics,
            resume=resume,
            progress=progress,
        )
    batch = rows(inputs)
    if chunk_size is None and not create_graph:
        chunk_size = _usual_chunk(sum(part.numel() for part in tensors(inputs)) // batch)
    with bar(type(chosen).__name__, enabled=progress) as report:
        if tolerance is not None:
            return attribute_until(
                model,
                inputs,
                labels,
                chosen,
                tolerance=tolerance,
                max_samples=max_samples,
                seed=seed,
                chunk_size=chunk_size,
                diagnostics=diagnostics,
                progress=report,
            )
        return chosen(
            model,
            inputs,
            labels,
            create_graph=create_graph,
            diagnostics=diagnostics,
            chunk_size=chunk_size,
            generator=seeding.generator("attribute", seed),
            progress=report,
        )


def _usual_chunk(numbers: int) -> int:
    """Points a pass for examples of so many numbers."""
    return max(16, _NUMBERS_A_PASS // max(1, numbers))


def _check_out(out: object, resume: bool, create_graph: bool) -> None:
    if out is None and resume:
        raise ArgumentError("there is nothing to resume", expected="out=, the folder of the former run", got="no out=")
    if out is None:
        return
    if not isinstance(out, str | Path):
        raise ArgumentError("explanations go to a folder", expected="out= as text or a path", got=repr(out))
    if create_graph:
        raise ArgumentError("what is on disk has no graph", expected="out= or create_graph=True", got="both")


def _draws(method: str | Attribution) -> bool:
    """Whether a method given by its name takes a number of draws."""
    return (
        isinstance(method, str)
        and "n_samples" in inspect.signature(registry.find("attribution", method).cls).parameters
    )


def _check_tolerance(tolerance: object, max_samples: object, out: object, create_graph: bool) -> None:
    if tolerance is None and max_samples is not None:
        raise ArgumentError(
            "the most draws are for explaining up to a tolerance",
            expected="tolerance= with max_samples=",
            got="no tolerance=",
            mend="n_samples= is the number of draws without a tolerance",
        )
    if tolerance is not None and (create_graph or out is not None):
        raise ArgumentError(
            "explaining up to a tolerance stays in memory and keeps no graph",
            expected="tolerance= without create_graph=True or out=",
            got=f"create_graph={create_graph}, out={out!r}",
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
