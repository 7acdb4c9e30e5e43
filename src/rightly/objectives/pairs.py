"""Example-based priors: examples that a person finds alike, near to each other in the model's representation."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from rightly.core import autodiff
from rightly.core.batch import Inputs, convert, rows, take, tensors
from rightly.core.checks import check_count, check_number
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.types import Space
from rightly.objectives.model_term import Batch, ModelTerm
from rightly.objectives.term import Schedule, Weight, check_weight
from rightly.priors.base import Level


@dataclass(frozen=True, eq=False)
class PairTerm(ModelTerm):
    """``weight * penalty`` of pairs that are not as near, or as far, in a representation as they should be.

    Ross (2018, 4.3): near pairs cost d^2, far ones relu(margin - d)^2 (Hadsell, Chopra, LeCun 2006), means over the
    pairs of each kind, added up. The distance d is relative: 1 is the root mean square distance between two of the
    examples at hand (the batch, and the pairs), so that nothing is gained by making the whole representation smaller.

    The term holds its examples and draws pairs of them at every step: however few there are, both halves of a pair
    are always seen together, and batches stay what they are. The representation is read with dropout off and batch
    norm frozen. Of several processes each draws pairs of its own, and measures by its own part of the batch.

    Args:
        inputs: N examples as the model takes them, such as the training inputs.
        space: the representation: ``rt.spaces.Layer(...)``, or one that depends on the parameters otherwise.
        near: (P, 2) rows of ``inputs`` that should be near each other.
        far: (Q, 2) rows that should be apart.
        margin: distance from which on far pairs are left alone.
        n_pairs: of each kind, drawn anew at every step; None takes all.
        weight, name, schedule: as in ``rt.Term``.
    """

    inputs: Inputs
    space: Space
    near: Tensor | None = None
    far: Tensor | None = None
    margin: float = 1.0
    n_pairs: int | None = None
    weight: Weight = 1.0
    name: str = "pairs"
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        if not callable(getattr(self.space, "open", None)) or isinstance(self.space, type):
            raise ArgumentError(
                "a representation is a space", expected="such as rt.spaces.Layer('0')", got=repr(self.space)
            )
        if self.near is None and self.far is None:
            raise ArgumentError("there are no pairs", expected="near=..., far=... or both", got=None)
        for name, pairs in (("near", self.near), ("far", self.far)):
            if pairs is not None:
                object.__setattr__(self, name, _checked(name, pairs, rows(self.inputs)))
        check_number("margin", self.margin, positive=True)
        if self.n_pairs is not None:
            check_count("n_pairs", self.n_pairs)
        check_weight(self.weight)

    @property
    def level(self) -> Level:
        """No quantity of the batch's own examples."""
        return "batch"

    @property
    def about(self) -> str:
        """In words."""
        given = (("near", self.near), ("far", self.far))
        counts = " and ".join(f"{len(pairs)} {name}" for name, pairs in given if pairs is not None)
        return f"distances of {counts} pairs in {self.space!r}"

    def of(self, model: nn.Module, batch: Batch) -> Tensor:
        """The penalty ()."""
        drawn = [None if pairs is None else self._drawn(pairs, batch.generator) for pairs in (self.near, self.far)]
        index = torch.cat([pairs.flatten() for pairs in drawn if pairs is not None])
        like = next(part for part in tensors(batch.inputs) if part.is_floating_point() or part.ndim)
        examples = convert(take(self.inputs, index), lambda part: _as(part, like))
        keep = torch.is_grad_enabled()
        with autodiff.reading(model, trainable=False), torch.set_grad_enabled(keep):
            own = self.space.open(model, examples).coordinates.flatten(1)
            others = self.space.open(model, batch.inputs).coordinates.flatten(1)
        own = own if own.element_size() > 2 else own.float()
        pairs = own.reshape(-1, 2, own.shape[1])
        apart = relative_distances(pairs[:, 0], pairs[:, 1], torch.cat([own, others.to(own)]))
        near, far = apart.split([0 if part is None else len(part) for part in drawn])
        return pair_penalty(near, far, self.margin)

    def _drawn(self, pairs: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.n_pairs is None or self.n_pairs >= len(pairs):
            return pairs
        if generator is None:
            return pairs[: self.n_pairs]
        return pairs[torch.randperm(len(pairs), generator=generator)[: self.n_pairs]]


def relative_distances(first: Tensor, second: Tensor, everyone: Tensor) -> Tensor:
    """Distances (P,) between points (P, D), over the root mean square distance between two of ``everyone`` (N, D)."""
    typical = 2 * everyone.var(0).sum()
    apart = (first - second).square().sum(1) / typical.clamp_min(torch.finfo(first.dtype).tiny)
    # the root has no slope at zero
    return apart.clamp_min(torch.finfo(first.dtype).eps ** 2).sqrt()


def pair_penalty(near: Tensor, far: Tensor, margin: float = 1.0) -> Tensor:
    """Mean of d^2 over near pairs (P,) plus mean of relu(margin - d)^2 over far ones (Q,): ()."""
    parts = [near.square(), torch.relu(margin - far).square()]
    return torch.stack([part.mean() for part in parts if len(part)]).sum()


def _checked(name: str, pairs: Tensor, count: int) -> Tensor:
    try:
        pairs = torch.as_tensor(pairs)
    except (TypeError, ValueError, RuntimeError):
        raise ArgumentError(f"{name} pairs are row numbers", expected="(P, 2)", got=repr(pairs)) from None
    whole = not pairs.is_floating_point() and pairs.dtype != torch.bool
    if not whole or pairs.ndim != 2 or pairs.shape[1] != 2 or not len(pairs):
        raise ShapeError(
            f"{name} pairs are row numbers", expected="whole numbers (P, 2)", got=f"{pairs.dtype} {tuple(pairs.shape)}"
        )
    if int(pairs.min()) < 0 or int(pairs.max()) >= count:
        raise ArgumentError(
            f"{name} pairs name rows that there are not", expected=f"0 to {count - 1}", got=pairs.unique().tolist()[-3:]
        )
    if bool((pairs[:, 0] == pairs[:, 1]).any()):
        raise ArgumentError(f"a {name} pair is one example twice", expected="two rows", got=pairs.tolist()[:3])
    return pairs.cpu()


def _as(part: Tensor, like: Tensor) -> Tensor:
    """On the batch's device, and as precise."""
    return part.to(like) if part.is_floating_point() and like.is_floating_point() else part.to(like.device)
