"""Hierarchies of feature groups, each with its contribution: agglomerative contextual decomposition (ACD)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rightly.attributions.base import Attribution
from rightly.attributions.hierarchy.agglomeration import Node, agglomerate
from rightly.attributions.hierarchy.layout import Layout, LayoutName, correlated, layout_of
from rightly.attributions.hierarchy.scores import ScoreName, Scores, method_of
from rightly.core.batch import Inputs, Model
from rightly.core.checks import check_count, check_number
from rightly.core.errors import ArgumentError
from rightly.core.scalar import Output, Target
from rightly.core.types import Reference, Space

__all__ = ["Hierarchy", "Node", "correlated", "hierarchy", "phrase_scores"]

#: rows of at most so many atoms have all their spans scored at once
_SPANS_AT_ONCE = 64


@dataclass(frozen=True)
class Hierarchy:
    """Groups of one example's features, from single ones to the largest, each with its score.

    Attributes:
        nodes: groups; parts come before what they were joined to.
        singles: (A,), the scores of the atoms alone.
        layout: what an atom is, and which touch.
    """

    nodes: tuple[Node, ...]
    singles: Tensor
    layout: Layout

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def roots(self) -> list[int]:
        """Numbers of the nodes that were joined to nothing else."""
        joined = {part for node in self.nodes for part in node.parts}
        return [number for number in range(len(self.nodes)) if number not in joined]

    def region(self, node: int) -> Tensor:
        """The node in the example's shape (*F), bool, dimensions of size 1 standing for all of theirs."""
        return self.layout.regions(self.nodes[node].atoms[None])[0]

    def level(self, round: int) -> Tensor:
        """The groups as they stood after a round: the atoms' shape, int, the node that each belongs to, or -1."""
        found = torch.full((len(self.singles),), -1)
        for number, node in enumerate(self.nodes):
            if node.round <= round:
                found[node.atoms] = number
        return found.reshape(self.layout.shape)

    def drawn(self, round: int) -> tuple[Tensor, Tensor]:
        """``level`` as it is drawn on the example: numbers of groups counted from 0, and (G,) the groups' scores.

        Returns:
            The example's shape (*F), dimensions of size 1 standing for all of theirs, int, -1 where there is no group.
        """
        level = self.level(round)
        present = level[level >= 0].unique().tolist()
        whole = self.layout.regions(torch.ones(1, level.numel(), dtype=torch.bool))[0]
        groups = torch.full_like(whole, -1, dtype=torch.long)
        for number, node in enumerate(present):
            groups[self.region(node)] = number
        return groups, torch.tensor([self.nodes[node].score for node in present])

    def phrases(self, words: Sequence[str]) -> list[tuple[str, float]]:
        """The groups of a row of words, in the order in which they were made, as (phrase, score).

        Raises:
            ArgumentError: there are not as many words as atoms, or the atoms are no row.
        """
        if len(self.layout.shape) != 1 or len(words) != len(self.singles):
            raise ArgumentError(
                "the words do not fit the hierarchy", expected=f"{self.layout.shape} words", got=len(words)
            )
        return [(" ".join(words[a] for a in node.atoms.nonzero()[:, 0]), node.score) for node in self.nodes]


def hierarchy(
    model: Model,
    inputs: Inputs,
    *,
    score: ScoreName | Attribution = "contextual_decomposition",
    target: Target = "predicted",
    labels: Tensor | None = None,
    output: Output = "logit",
    space: Space | None = None,
    reference: Reference | None = None,
    layout: LayoutName | None = None,
    neighbours: Tensor | None = None,
    tile: int = 1,
    percentile: float = 95.0,
    rounds: int | None = None,
    signed: bool = True,
    chunk_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Hierarchy:
    """Which groups of features a prediction is built of: agglomerative contextual decomposition (ACD).

    Every round ranks what could become a group: a feature alone by its score, a feature beside a group by the
    interaction score, how much more the two are worth together than the group alone, and two groups that touch by how
    much more they are worth than the better of them. All within the ``percentile`` of the best become groups. Until
    everything has been joined, or for so many ``rounds``.

    Args:
        model: a module or a callable.
        inputs: one example, as the model takes it: (1, ...).
        score: of a group: the part that ``"contextual_decomposition"`` gives it; what the output loses without it
            (``"occlusion"``) or gains by it alone (``"build_up"``); or any attribution, added up over the group. One
            that is given as an instance comes with its own space, output and target.
        target, labels, output, space: as in attributions. For token numbers ``space=rt.spaces.Layer("embedding")``.
        reference: what "not there" means to occlusion and build-up; zero by default.
        layout: ``"sequence"`` (T, E), positions first; ``"signal"`` (C, T), positions last; ``"image"`` (C, H, W);
            ``"table"`` (F,). By default by the number of dimensions.
        neighbours: (F, F) bool, which columns of a table belong together, such as ``correlated(x_train)``.
        tile: features a side of an atom.
        percentile: of the candidates; published: 99.5 for text, 95 (ImageNet) and 99 (MNIST) for images.
        rounds: at most so many; the published code stops images after 5.
        signed: what speaks for the class ranks high. False ranks by size, so that a negation is found as well.
        chunk_size: points or regions a pass; memory only.
        progress: called with (atoms that have a group, atoms in all).

    Raises:
        ArgumentError, ShapeError: an argument cannot be used, or there are several examples.
        DecompositionError: an operation of the model has no rule.

    Source: Singh, Murdoch, Yu (2019), algorithm 1; Singh, Ha, Yu (2022), section 2.2.
    """
    check_number("percentile", percentile, positive=False)
    if percentile > 100:
        raise ArgumentError("unusable percentile", expected="0 to 100", got=percentile)
    if rounds is not None:
        check_count("rounds", rounds)
    scores = Scores(method_of(score, space, output, target, reference), model, inputs, labels, chunk_size)
    laid = layout_of(scores.shape, layout, tile, neighbours)
    count = math.prod(laid.shape)

    def of(groups: Tensor) -> Tensor:
        return scores(laid.regions(groups))

    if laid.name in ("sequence", "signal") and count <= _SPANS_AT_ONCE:
        table = _spans(of, count)
        looked_up = _from(table)
        nodes = agglomerate(
            looked_up, table.diagonal(), laid.edges,
            percentile=percentile, rounds=rounds, signed=signed, progress=progress,
        )  # fmt: skip
        return Hierarchy(tuple(nodes), table.diagonal().clone(), laid)
    singles = of(torch.eye(count, dtype=torch.bool))
    nodes = agglomerate(of, singles, laid.edges, percentile=percentile, rounds=rounds, signed=signed, progress=progress)
    return Hierarchy(tuple(nodes), singles, laid)


def phrase_scores(
    model: Model,
    inputs: Inputs,
    *,
    score: ScoreName | Attribution = "contextual_decomposition",
    target: Target = "predicted",
    labels: Tensor | None = None,
    output: Output = "logit",
    space: Space | None = None,
    reference: Reference | None = None,
    layout: Literal["sequence", "signal"] = "sequence",
    chunk_size: int | None = None,
) -> Tensor:
    """The score of every span of a sequence, all in one call: (T, T), entry [i, j] of the words i to j, NaN for j < i.

    The arguments are those of ``hierarchy``.
    """
    scores = Scores(method_of(score, space, output, target, reference), model, inputs, labels, chunk_size)
    laid = layout_of(scores.shape, layout, 1, None)
    return _spans(lambda groups: scores(laid.regions(groups)), laid.shape[0])


def _spans(score: Callable[[Tensor], Tensor], count: int) -> Tensor:
    first, last = torch.triu_indices(count, count)
    place = torch.arange(count)
    groups = (place >= first[:, None]) & (place <= last[:, None])
    found = score(groups)
    table = found.new_full((count, count), torch.nan)
    table[first, last] = found
    return table


def _from(table: Tensor) -> Callable[[Tensor], Tensor]:
    def looked_up(groups: Tensor) -> Tensor:
        """Groups of a row of which neighbours only were joined are spans."""
        places = groups.long()
        first, last = places.argmax(1), len(table) - 1 - places.flip(1).argmax(1)
        return table[first, last]

    return looked_up
