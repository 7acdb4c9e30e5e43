"""Explaining more examples than fit in memory: read block by block, written row by row, resumable."""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rightly.attributions.base import Attribution
from rightly.attributions.sources import Source
from rightly.attributions.store import Array, StoredAttributions, grow
from rightly.core import seeding
from rightly.core.batch import Inputs, Model, device_of, placed, rows, tensors
from rightly.core.checks import check_count
from rightly.core.errors import DataError, ShapeError
from rightly.core.progress import bar
from rightly.core.types import AttributionResult

#: examples that are explained together; fewer where they are so large that their inputs exceed _NUMBERS_A_BLOCK
_ROWS_A_BLOCK = 64
_NUMBERS_A_BLOCK = 2**22
_FEWEST_ROWS = 8

#: seconds between two commits: what a kill can lose
_COMMIT_EVERY = 1.0

#: what is tried as chunk size, as multiples of the size that fits a processor's cache
_FACTORS = {"cpu": (0.25, 0.5, 1.0, 2.0, 4.0), "cuda": (1.0, 4.0, 16.0, 64.0)}


def attribute_into(
    folder: Path,
    model: Model,
    source: Source,
    method: Attribution,
    *,
    seed: int,
    chunk_size: int | None,
    usual_chunk: int,
    diagnostics: bool,
    resume: bool,
    progress: bool,
) -> StoredAttributions:
    """Explain every example of ``source`` into ``folder``; see ``rt.attribute`` for the arguments.

    Examples are explained in blocks of 64 (fewer if an example is very large), a number that depends on the shape of
    an example alone. Block b draws from a generator seeded by (seed, its first row). So no draw depends on the chunk
    size, on the batches that a loader happens to give, or on where a run was interrupted. ``InBatch`` references are
    the other examples of the block.

    Args:
        usual_chunk: the chunk size to try around when none is given. The first blocks are explained with a candidate
            each and timed, the fastest is kept: nothing is computed twice.
    """
    if isinstance(method.target, Tensor) and source.rows not in (None, len(method.target)):
        raise ShapeError("target does not fit the inputs", expected=f"({source.rows},)", got=tuple(method.target.shape))
    size = max(_FEWEST_ROWS, min(_ROWS_A_BLOCK, _NUMBERS_A_BLOCK // max(1, source.numbers)))
    device = device_of(model)
    with grow(Path(folder), _identity(model, source, method, seed, diagnostics, size), resume=resume) as store:
        if store.facts["complete"]:
            return StoredAttributions(folder)
        chunk = ChunkSize.restore(store.facts.get("chunk_size"), chunk_size, usual_chunk, device)
        begun, saved = store.rows, time.monotonic()
        with bar(type(method).__name__, enabled=progress and source.rows is not None) as report:
            for inputs, labels in source.blocks(size, start=begun):
                first, count = store.rows, rows(inputs)
                _check_numbers("the inputs", tensors(inputs), first)
                inputs = placed(inputs, device)
                part = _at(method, first, count)
                found = chunk.timed(partial(_explained, model, part, inputs, labels, (seed, first), diagnostics), count)
                _check_numbers("the attributions", [found.attributions], first)
                store.append(_arrays(found, count))
                if chunk.measuring or time.monotonic() - saved > _COMMIT_EVERY:
                    store.commit(chunk_size=chunk.facts())
                    saved = time.monotonic()
                if report and source.rows is not None:
                    report(store.rows - begun, source.rows - begun)
        store.commit(chunk_size=chunk.facts(), complete=True)
    return StoredAttributions(folder)


def _explained(
    model: Model,
    method: Attribution,
    inputs: Inputs,
    labels: Tensor | None,
    seed: tuple[int, int],
    diagnostics: bool,
    chunk_size: int,
) -> AttributionResult:
    draws = seeding.generator("attribute", *seed)
    return method(model, inputs, labels, diagnostics=diagnostics, chunk_size=chunk_size, generator=draws)


class ChunkSize:
    """Points a pass, chosen by timing the candidates on a block each, after one block of warm-up.

    Memory only: another chunk size changes a value by rounding at most. It is saved with the rows, so that a resumed
    run goes on with the same one and gives the same bits.
    """

    def __init__(self, candidates: tuple[int, ...], seconds: list[float | None]) -> None:
        #: the usual one first: the warm-up, and all there is of a short run, is made with it
        self.candidates = candidates
        #: seconds an example, of the warm-up and then of each candidate; None where memory did not suffice
        self.seconds = seconds

    @classmethod
    def restore(
        cls, saved: Mapping[str, Any] | None, given: int | None, usual: int, device: torch.device | None
    ) -> ChunkSize:
        """What was given, else what a former run found, else candidates around ``usual``."""
        if given is not None:
            return cls((check_count("chunk_size", given),), [])
        if saved is not None:
            return cls(tuple(saved["candidates"]), list(saved["seconds"]))
        kind = "cpu" if device is None else device.type
        factors = _FACTORS.get(kind, _FACTORS["cuda"])
        others = {max(1, int(usual * factor)) for factor in factors} - {usual}
        return cls((usual, *sorted(others)), [])

    @property
    def measuring(self) -> bool:
        """Whether a candidate is still to be timed."""
        return len(self.candidates) > 1 and len(self.seconds) <= len(self.candidates)

    @property
    def current(self) -> int:
        """The size for the next block."""
        if self.measuring or len(self.candidates) == 1:
            return self.candidates[max(0, len(self.seconds) - 1)]
        times = [math.inf if s is None else s for s in self.seconds[1:]]
        return min(zip(times, self.candidates, strict=True))[1]

    def facts(self) -> dict[str, Any]:
        """What ``restore`` reads."""
        chosen = None if self.measuring else self.current
        return {"chosen": chosen, "candidates": list(self.candidates), "seconds": self.seconds}

    def timed(self, explain: Callable[[int], AttributionResult], count: int) -> AttributionResult:
        """Explain a block of ``count`` examples, and remember how long it took while that is asked."""
        while True:
            began = time.perf_counter()
            try:
                found = explain(self.current)
            except torch.OutOfMemoryError:
                if not self.measuring:
                    raise
                self.seconds.append(None)
                continue
            if self.measuring:
                found.attributions.sum().item()  # an accelerator has only been asked so far
                self.seconds.append((time.perf_counter() - began) / count)
            return found


def _at(method: Attribution, first: int, count: int) -> Attribution:
    """The method for some of the rows: a target given for all examples is cut to theirs."""
    if not isinstance(method.target, Tensor):
        return method
    part = copy.copy(method)
    part.target = method.target[first : first + count]
    return part


def _arrays(found: AttributionResult, count: int) -> dict[str, Array]:
    """Everything in the result that counts examples, for NumPy, which has no bfloat16."""
    values = {field.name: getattr(found, field.name) for field in fields(found)}
    kept = {k: v.detach().cpu() for k, v in values.items() if isinstance(v, Tensor) and v.shape[:1] == (count,)}
    return {k: (v.float() if v.dtype == torch.bfloat16 else v).numpy() for k, v in kept.items()}


def _check_numbers(what: str, parts: list[Tensor], first: int) -> None:
    for part in parts:
        wrong = part.isnan().reshape(len(part), -1).any(1) if part.ndim and part.is_floating_point() else None
        if wrong is not None and bool(wrong.any()):
            raise DataError(
                f"{what} of row {first + int(wrong.nonzero()[0])} hold NaN",
                expected="numbers",
                mend="fill or leave out what is missing; the rows before are kept",
            )


# ---- what has to be the same for a resumed run to give the same bits


def _identity(
    model: Model, source: Source, method: Attribution, seed: int, diagnostics: bool, block: int
) -> dict[str, Any]:
    state = model.state_dict() if isinstance(model, nn.Module) else {}
    inputs, labels = source.example
    return {
        "method": described(method),
        "model": {"class": _name(model), "state": _digest(v for v in state.values() if isinstance(v, Tensor))},
        "inputs": {"rows": source.rows, "first": _digest(tensors(inputs))},
        "labels": None if labels is None else _digest([labels]),
        "seed": seed,
        "diagnostics": diagnostics,
        "rows_a_block": block,
    }


def described(value: Any) -> Any:
    """Arguments as JSON: tensors by their checksum, our own objects by their arguments, anything else by its type."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)} {_digest([value])}"
    if isinstance(value, list | tuple):
        return [described(part) for part in value]
    if isinstance(value, Mapping):
        return {str(key): described(part) for key, part in value.items()}
    if type(value).__module__.split(".")[0] == "rightly":
        # arguments are stored under their own names; what starts with an underscore is worked out from them
        arguments = {key: described(part) for key, part in vars(value).items() if not key.startswith("_")}
        return {"class": _name(value), **arguments}
    return _name(value)


def _name(value: Any) -> str:
    return str(getattr(value, "__qualname__", type(value).__qualname__))


def _digest(parts: Iterator[Tensor] | list[Tensor]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(f"{part.dtype} {tuple(part.shape)}".encode())
        found.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]
