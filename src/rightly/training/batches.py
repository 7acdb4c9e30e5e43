"""Batches from anywhere: tensors in memory, a dataset, a loader, any iterable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rightly.core import seeding
from rightly.core.annotation import Annotation
from rightly.core.batch import Inputs, convert, rows, take
from rightly.core.errors import ArgumentError, ShapeError

Batch = tuple[Inputs, Tensor, Annotation | None]
Data = tuple[Any, ...] | Dataset[Any] | Iterable[Any]


class Batches:
    """A source of batches that gives the same ones for the same epoch, whenever it is asked.

    Args:
        data: ``(inputs, labels)`` or ``(inputs, labels, annotation)`` in memory; a map-style dataset of such
            examples; or an iterable of such batches (a ``DataLoader``, a list), which keeps its own batch size and
            order. An annotation is an ``rt.Annotation`` or a dict of its fields.
        batch_size: of data in memory and datasets.
        shuffle: a new order every epoch.
        seed: of the order.
        device: where batches go; None leaves them where they are.
    """

    def __init__(
        self, data: Data, *, batch_size: int, shuffle: bool, seed: int, device: torch.device | str | None = None
    ) -> None:
        if batch_size < 1:
            raise ArgumentError("batch_size counts examples", expected="at least 1", got=batch_size)
        self.batch_size, self.shuffle, self.seed, self.device = batch_size, shuffle, seed, device
        self.memory: Batch | None = None
        self.source: Any = data
        if isinstance(data, tuple):
            self.memory = _checked(unpack(data))
        elif isinstance(data, Dataset) and hasattr(data, "__len__"):
            self.source = None
            self.dataset = data
        elif not isinstance(data, Iterable):
            raise ArgumentError(
                "this is not data to train on",
                expected="(inputs, labels), a dataset, a DataLoader, or an iterable of batches",
                got=type(data).__name__,
            )
        elif iter(data) is data:
            raise ArgumentError(
                "an iterator can be read only once, training reads it every epoch",
                expected="a list, a DataLoader, or an object whose __iter__ starts anew",
                got=type(data).__name__,
            )

    def __len__(self) -> int:
        if self.memory is not None:
            return -(-rows(self.memory[0]) // self.batch_size)
        if self.source is None:
            return -(-len(self.dataset) // self.batch_size)
        return len(self.source) if hasattr(self.source, "__len__") else 0

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch."""
        draws = seeding.generator(self.seed, "order", epoch)
        if self.memory is not None:
            yield from (self._move(batch) for batch in self._from_memory(self.memory, draws))
            return
        source = self.source
        if source is None:
            source = DataLoader(self.dataset, self.batch_size, shuffle=self.shuffle, generator=draws)
        for batch in source:
            yield self._move(_checked(unpack(batch)))

    def _from_memory(self, data: Batch, draws: torch.Generator) -> Iterator[Batch]:
        inputs, labels, annotation = data
        n = rows(inputs)
        order = torch.randperm(n, generator=draws) if self.shuffle else torch.arange(n)
        for index in torch.split(order, self.batch_size):
            yield take(inputs, index), labels[index.to(labels.device)], annotation and annotation.take(index)

    def _move(self, batch: Batch) -> Batch:
        if self.device is None:
            return batch
        inputs, labels, annotation = batch
        device = self.device
        return convert(inputs, lambda t: t.to(device)), labels.to(device), annotation and annotation.to(device)


def unpack(batch: Any) -> Batch:
    """(inputs, labels[, annotation]) from a tuple or list, the annotation made from a dict if it is one."""
    if not isinstance(batch, tuple | list) or not 2 <= len(batch) <= 3 or not isinstance(batch[1], Tensor):
        raise ArgumentError(
            "a batch cannot be read",
            expected="(inputs, labels) or (inputs, labels, annotation), labels a tensor",
            got=type(batch).__name__ + (f" of {len(batch)}" if isinstance(batch, tuple | list) else ""),
        )
    annotation = batch[2] if len(batch) == 3 else None
    if isinstance(annotation, Mapping):
        annotation = Annotation(**annotation)
    if annotation is not None and not isinstance(annotation, Annotation):
        raise ArgumentError(
            "the third part of a batch is its annotation",
            expected="rt.Annotation(...) or a dict of its fields",
            got=type(annotation).__name__,
        )
    return batch[0], batch[1], annotation


def _checked(batch: Batch) -> Batch:
    inputs, labels, annotation = batch
    n = rows(inputs)
    if len(labels) != n:
        raise ShapeError("labels do not fit the inputs", expected=f"{n} labels", got=len(labels))
    if annotation is not None and len(annotation) not in (0, 1, n):
        raise ShapeError("annotations do not fit the inputs", expected=f"{n} rows (or 1)", got=len(annotation))
    return batch
