"""Examples from anywhere, in blocks of a fixed number of rows: arrays on disk, datasets, loaders, tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, SubsetRandomSampler, WeightedRandomSampler, default_collate

from rightly.core.batch import Inputs, convert, rows, tensors
from rightly.core.errors import ArgumentError, DataError, ShapeError

_Batch = tuple[Any, Tensor | None]
_SHUFFLED = RandomSampler | SubsetRandomSampler | WeightedRandomSampler


class Source:
    """Where examples come from.

    Args:
        data: a tensor, or a tuple or dict of tensors; a NumPy array, also a memory-mapped one, or the path of a .npy
            file; a map-style dataset; a ``DataLoader`` or any other iterable of batches. An item of a dataset and a
            batch is the inputs, or a tuple of inputs, labels and what else there may be.
        labels: (N,), instead of those that come with the data.

    Raises:
        ArgumentError, DataError, ShapeError: the data cannot be read, or not in one order.
    """

    def __init__(self, data: Any, labels: Tensor | None) -> None:
        self.labels = labels
        #: examples, None where only reading to the end tells
        self.rows: int | None = None
        self._data: Any = None
        self._stream: Iterator[_Batch] | None = None
        if isinstance(data, str | Path):
            data = _opened(Path(data))
        if isinstance(data, np.ndarray) or _in_memory(data):
            self._data, self.rows = data, len(data) if isinstance(data, np.ndarray) else rows(data)
        elif hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, tuple | list):
            self._data, self.rows = data, len(data)
        elif isinstance(data, Iterable):
            self.rows = _loader_rows(data) if isinstance(data, DataLoader) else None
            batches = iter(data)
            self._first = _unpacked(next(batches, ()))
            self._stream = chain([self._first], map(_unpacked, batches))
        else:
            raise ArgumentError(
                "there are no examples in this",
                expected="tensors, an array or the path of a .npy file, a dataset, or an iterable of batches",
                got=type(data).__name__,
            )
        if self.rows == 0:
            raise ShapeError("there is nothing to explain", expected="at least one example", got=0)
        if labels is not None and self.rows is not None and labels.shape[:1] != (self.rows,):
            raise ShapeError("labels do not fit the inputs", expected=f"({self.rows},)", got=tuple(labels.shape))
        inputs, found = self._slice(0, 1) if self._stream is None else _part(self._first, 0, 1)
        #: the first example, with all labels where they were given apart
        self.example: _Batch = inputs, found if labels is None else labels

    @property
    def numbers(self) -> int:
        """How many numbers an example has."""
        return sum(part.numel() for part in tensors(self.example[0]))

    @property
    def labelled(self) -> bool:
        """Whether the labels are known."""
        return self.example[1] is not None

    def blocks(self, size: int, *, start: int) -> Iterator[_Batch]:
        """(inputs, labels) of ``size`` rows each from row ``start`` on, the last one shorter; once only."""
        if self._stream is not None:
            blocks = _cut(self._stream, size, start)
        else:
            stop = self.rows or 0
            blocks = (self._slice(first, min(first + size, stop)) for first in range(start, stop, size))
        for inputs, labels in blocks:
            if self.labels is not None:
                labels = self.labels[start : start + rows(inputs)]
            yield inputs, labels
            start += rows(inputs)

    def _slice(self, first: int, stop: int) -> _Batch:
        data = self._data
        if isinstance(data, np.ndarray):
            try:
                return torch.from_numpy(np.array(data[first:stop])), None
            except TypeError as error:
                raise DataError(
                    "the array does not hold numbers that PyTorch knows", expected="float32, say", got=str(data.dtype)
                ) from error
        if _in_memory(data):
            return convert(data, lambda part: part[first:stop] if part.ndim else part), None
        return _unpacked(default_collate([data[i] for i in range(first, stop)]))


def _in_memory(data: Any) -> bool:
    if isinstance(data, Tensor):
        return True
    parts = data.values() if isinstance(data, Mapping) else data
    return isinstance(data, tuple | list | Mapping) and any(isinstance(part, Tensor) for part in parts)


def _opened(path: Path) -> Any:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(found, np.ndarray) or found.ndim == 0:
            raise ValueError("not one array with examples")
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            "the inputs cannot be read",
            expected="the path of a .npy file, examples first",
            got=f"{path}: {str(error).splitlines()[0]}",
            mend="numpy.save(path, array) writes one; open other files yourself and pass the array",
        ) from error
    return found


def _loader_rows(loader: DataLoader[Any]) -> int | None:
    if isinstance(loader.sampler, _SHUFFLED):
        raise ArgumentError(
            "a shuffled loader would leave nobody knowing which row is which",
            expected="a loader that keeps the order",
            got=type(loader.sampler).__name__,
            mend="DataLoader(..., shuffle=False)",
        )
    exact = hasattr(loader.dataset, "__len__") and loader.batch_size is not None and not loader.drop_last
    return len(loader.sampler) if exact else None  # type: ignore[arg-type]


def _unpacked(batch: Any) -> _Batch:
    """(inputs, labels) from a batch; labels None where it is the inputs alone."""
    if isinstance(batch, Tensor | Mapping):
        return batch, None
    if not isinstance(batch, tuple | list) or not batch:
        raise DataError(
            "a batch cannot be read",
            expected="inputs, or a tuple (inputs, labels, ...), inputs first",
            got=type(batch).__name__ if batch != () else "no batch at all",
        )
    labels = batch[1] if len(batch) > 1 and isinstance(batch[1], Tensor) else None
    return batch[0], labels


def _cut(batches: Iterator[_Batch], size: int, start: int) -> Iterator[_Batch]:
    """Batches of any sizes as blocks of ``size``, after the first ``start`` rows."""
    waiting: list[_Batch] = []
    skip, held = start, 0
    for batch in batches:
        count = rows(batch[0])
        used = min(skip, count)
        skip -= used
        if used < count:
            waiting.append(_part(batch, used, count))
            held += count - used
        while held >= size:
            whole = _joined(waiting)
            yield _part(whole, 0, size)
            held -= size
            waiting = [_part(whole, size, size + held)] if held else []
    if skip:
        raise DataError("there are fewer rows than before", expected=f"more than {start}", got=start - skip)
    if waiting:
        yield _joined(waiting)


def _part(batch: _Batch, first: int, stop: int) -> _Batch:
    inputs, labels = batch
    cut: Inputs = convert(inputs, lambda part: part[first:stop] if part.ndim else part)
    return cut, None if labels is None else labels[first:stop]


def _joined(batches: list[_Batch]) -> _Batch:
    if len(batches) == 1:
        return batches[0]
    inputs = [list(tensors(batch[0])) for batch in batches]
    if len({tuple((part.dtype, part.shape[1:]) for part in parts) for parts in inputs}) > 1:
        raise ShapeError(
            "the batches do not fit together",
            expected="examples of one shape and type",
            got=sorted({str([(str(p.dtype), tuple(p.shape[1:])) for p in parts]) for parts in inputs}),
        )
    columns = iter([torch.cat(parts) if parts[0].ndim else parts[0] for parts in zip(*inputs, strict=True)])
    labels = [batch[1] for batch in batches]
    known = [part for part in labels if part is not None]
    return convert(batches[0][0], lambda part: next(columns)), torch.cat(known) if len(known) == len(labels) else None
