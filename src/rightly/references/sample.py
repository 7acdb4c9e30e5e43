"""References drawn from data: all of it, or the part that makes the comparison one asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rightly.core.batch import Inputs, convert, rows, take, tensors
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.registry import register
from rightly.core.types import Centre, Draw, View


@register(
    "reference",
    citation="erion2021",
    traits=("sampled",),
    example=lambda shape: {"data": torch.linspace(-1, 1, 7).reshape(7, *[1] * len(shape)).expand(7, *shape)},
)
class Sample:
    """Examples drawn from a data set, by index.

    Args:
        data: a tensor (N, ...), a tuple or dict of such tensors, or a map-style dataset whose items are inputs or
            ``(inputs, label, ...)`` tuples. Inputs, not coordinates: they are encoded into the space.
        replacement: False (the default) gives every example K different references as long as K <= N; True draws
            each one independently.
    """

    # the remembered mean is no part of what a reference is: vars() describes it without
    __slots__ = ("__dict__", "__weakref__", "_known")

    def __init__(self, data: Any, *, replacement: bool = False) -> None:
        self.data, self.replacement = data, replacement
        if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
            raise ArgumentError(
                "references cannot be drawn from this",
                expected="tensors, or a dataset with a length and items",
                got=type(data).__name__,
            )
        self._n = rows(data) if _in_memory(data) else len(data)
        self._known: tuple[Tensor, int | None, Tensor] | None = None
        if self._n == 0:
            raise ArgumentError("there is nothing to draw from", expected="at least one example", got=0)

    def __len__(self) -> int:
        return self._n

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._n} examples, replacement={self.replacement})"

    def draw(self, view: View, n_samples: int, generator: torch.Generator) -> Draw:
        """See ``Reference.draw``."""
        index = _indices(len(view.coordinates), n_samples, self._n, self.replacement, generator)
        mean = self.mean(view)
        if mean is None:
            return self.pick(view, index)
        if self.replacement:
            return self.pick(view, index, Centre.independent(mean, n_samples))
        return self.pick(view, index, Centre.without_replacement(mean, n_samples, self._n))

    def pick(self, view: View, index: Tensor, centre: Centre | None = None) -> Draw:
        """The references of these numbers, (B, K) on the CPU, as a draw."""
        floating = next((part for part in tensors(view.inputs) if part.is_floating_point()), view.coordinates)

        def gather(rows: Tensor, samples: Tensor) -> Tensor:
            drawn = self._read(index[rows.cpu(), samples.cpu()])
            drawn = convert(drawn, lambda part: part.to(floating if part.is_floating_point() else floating.device))
            coordinates = view.encode(drawn).to(view.coordinates.dtype)
            if coordinates.shape[1:] != view.coordinates.shape[1:]:
                raise ShapeError(
                    "the references do not look like the inputs",
                    expected=tuple(view.coordinates.shape[1:]),
                    got=tuple(coordinates.shape[1:]),
                )
            return coordinates

        return Draw(index.shape[1], gather, centre)

    def mean(self, view: View) -> Callable[[], Tensor] | None:
        """How to get the mean of all references, (1, *F); None where that would take a pass over data or model."""
        if not _in_memory(self.data) or all(part is not view.coordinates for part in tensors(view.inputs)):
            return None
        return lambda: self._mean_of(view.encode(self.data)).to(view.coordinates)

    def _mean_of(self, part: Tensor) -> Tensor:
        """The mean of one part of the data, remembered until another one is asked for or this one is written to."""
        version = None if part.is_inference() else part._version
        if self._known is None or self._known[0] is not part or self._known[1] != version:
            dtype = torch.promote_types(part.dtype, torch.float32)
            self._known = part, version, part.detach().mean(0, keepdim=True, dtype=dtype)
        return self._known[2]

    def _read(self, index: Tensor) -> Inputs:
        if _in_memory(self.data):
            return take(self.data, index)  # type: ignore[no-any-return]
        items = [self.data[int(i)] for i in index]
        return torch.stack([torch.as_tensor(item[0] if isinstance(item, tuple | list) else item) for item in items])


@register(
    "reference",
    citation="erion2021",
    traits=("sampled",),
    example=lambda shape: {
        "data": torch.linspace(-1, 1, 7).reshape(7, *[1] * len(shape)).expand(7, *shape),
        "predicate": lambda inputs: inputs.flatten(1)[:, 0] > 0,
    },
)
class Where(Sample):
    """References from a subgroup only: "why a 7 rather than a 1", "compared with other eighty-year-olds".

    Args:
        data: tensors as in ``Sample``.
        labels: (N,), with ``label``: keep the examples that have it.
        label: the label to keep.
        predicate: inputs -> boolean (N,): keep where it holds (as well).
        replacement: as in ``Sample``.
    """

    def __init__(
        self,
        data: Inputs,
        *,
        labels: Tensor | None = None,
        label: int | None = None,
        predicate: Callable[[Any], Tensor] | None = None,
        replacement: bool = False,
    ) -> None:
        if (labels is None) != (label is None) or (labels is None and predicate is None):
            raise ArgumentError(
                "a subgroup has to be described",
                expected="labels= together with label=, or predicate=, or all three",
                got={"labels": labels is not None, "label": label, "predicate": predicate is not None},
            )
        keep = torch.ones(rows(data), dtype=torch.bool, device=tensors(data)[0].device)
        if labels is not None:
            keep = keep & (_one_each("labels", labels, len(keep)).to(keep.device) == label)
        if predicate is not None:
            keep = keep & _one_each("predicate", predicate(data), len(keep)).to(keep.device)
        if not bool(keep.any()):
            raise ArgumentError(
                "no example belongs to the subgroup",
                expected="at least one",
                got=f"0 of {len(keep)}" + ("" if label is None else f" with label {label}"),
            )
        super().__init__(take(data, keep.nonzero()[:, 0]), replacement=replacement)


def _one_each(name: str, values: Any, n: int) -> Tensor:
    """``values``, checked to be a tensor (n,)."""
    if isinstance(values, Tensor) and values.shape == (n,):
        return values
    got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
    raise ShapeError(f"{name} must give one value an example", expected=f"a tensor ({n},)", got=got)


def _in_memory(data: Any) -> bool:
    return isinstance(data, Tensor | tuple | list | dict)


def _indices(batch: int, k: int, n: int, replacement: bool, generator: torch.Generator) -> Tensor:
    """(batch, k) numbers below n; without replacement the k of one row differ as far as k <= n.

    Rows share permutations (as many rows a permutation as fit): a permutation of the data set per row would cost
    more than the gradients.
    """
    if replacement or k == 1:
        return torch.randint(n, (batch, k), generator=generator)
    if k > n:
        rounds = [_indices(batch, min(n, k - start), n, False, generator) for start in range(0, k, n)]
        return torch.cat(rounds, 1)
    per_round = n // k
    rounds = [
        torch.randperm(n, generator=generator)[: per_round * k].reshape(per_round, k)
        for _ in range(-(-batch // per_round))
    ]
    return torch.cat(rounds)[:batch]
