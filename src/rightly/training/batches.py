"""Batches from anywhere: tensors in memory, a dataset, a loader, any iterable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

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
        always: rows (R,) that are in every batch, beside ``batch_size`` of the others.
    """

    def __init__(
        self,
        data: Data,
        *,
        batch_size: int,
        shuffle: bool,
        seed: int,
        device: torch.device | str | None = None,
        always: Tensor | None = None,
    ) -> None:
        self.batch_size, self.shuffle, self.seed, self.device = batch_size, shuffle, seed, device
        self.memory: Batch | None = None
        self.dataset: Any = None
        self.source: Iterable[Any] = ()
        if isinstance(data, tuple):
            self.memory = _checked(unpack(data))
        elif isinstance(data, Dataset) and not isinstance(data, IterableDataset) and hasattr(data, "__len__"):
            self.dataset = data
        elif isinstance(data, Iterator):
            raise ArgumentError(
                "an iterator can be read only once, training reads it every epoch",
                expected="a list, a DataLoader, or an object whose __iter__ starts anew",
                got=type(data).__name__,
            )
        elif isinstance(data, Iterable):
            self.source = data
        else:
            raise ArgumentError(
                "this is not data to train on",
                expected="(inputs, labels), a dataset, a DataLoader, or an iterable of batches",
                got=type(data).__name__,
            )
        self.always = None if always is None else self._rows(always)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch."""
        draws = seeding.generator(self.seed, "order", epoch)
        if self.memory is not None:
            inputs, labels, annotation = self.memory
            for index in self._order(rows(inputs), draws):
                part = take(inputs, index), labels[index.to(labels.device)], annotation and annotation.take(index)
                yield self._move(part)
            return
        source = self.source
        if self.dataset is not None:
            order = [index.tolist() for index in self._order(len(self.dataset), draws)]
            source = DataLoader(self.dataset, batch_sampler=order, generator=draws)
        for batch in source:
            yield self._move(_checked(unpack(batch)))

    def _order(self, n: int, draws: torch.Generator) -> list[Tensor]:
        """The row numbers of every batch. A last batch of one joins the one before it.

        Batch norm cannot train on a single example, and it would have no other to be compared with.
        """
        if n == 0:
            return []
        order = torch.randperm(n, generator=draws) if self.shuffle else torch.arange(n)
        if self.always is not None:
            order = order[~torch.isin(order, self.always)]
        parts = list(order.split(self.batch_size))
        if len(parts) > 1 and len(parts[-1]) == 1 and self.batch_size > 1:
            parts[-2:] = [torch.cat(parts[-2:])]
        return parts if self.always is None else [torch.cat([self.always, part]) for part in parts]

    def _rows(self, always: Tensor) -> Tensor:
        """The rows of every batch, checked."""
        if self.memory is None and self.dataset is None:
            raise ArgumentError(
                "batches that come ready cannot have rows added",
                expected="data in memory, or a dataset",
                got=type(self.source).__name__,
                mend="leave out always=, or let the loader put those rows in every batch",
            )
        n = rows(self.memory[0]) if self.memory is not None else len(self.dataset)
        chosen = always.nonzero()[:, 0] if always.dtype == torch.bool and always.shape == (n,) else always
        if chosen.ndim != 1 or chosen.is_floating_point() or chosen.dtype == torch.bool or not chosen.numel():
            got = f"{always.dtype} {tuple(always.shape)}"
            raise ArgumentError("always names rows", expected=f"whole numbers (R,), or a mask ({n},)", got=got)
        twice, all_of_them = len(chosen.unique()) < len(chosen), len(chosen) >= n
        if twice or all_of_them or int(chosen.min()) < 0 or int(chosen.max()) >= n:
            raise ArgumentError(
                "always names rows that cannot be in every batch",
                expected=f"some of 0 to {n - 1}, each once, and others left",
                got=f"{len(chosen)} from {int(chosen.min())} to {int(chosen.max())}",
            )
        return chosen.long().cpu()

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
    if labels.shape[:1] != (n,):
        raise ShapeError("labels do not fit the inputs", expected=f"({n}, ...)", got=tuple(labels.shape))
    if annotation is not None and len(annotation) not in (0, 1, n):
        raise ShapeError("annotations do not fit the inputs", expected=f"{n} rows (or 1)", got=len(annotation))
    return batch
