"""Groups of features grown and joined by their scores: the clustering of agglomerative decomposition."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Score = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Node:
    """A group of atoms in the hierarchy.

    Attributes:
        atoms: (A,) bool, which it is made of.
        score: its contribution to the explained number.
        parts: numbers of the nodes it was joined of, earlier in the list; empty for a single atom. Atoms that joined
            without having been a group of their own come as nodes just before it.
        round: in which it was made, from 0.
    """

    atoms: Tensor
    score: float
    parts: tuple[int, ...]
    round: int


def agglomerate(
    score: Score,
    singles: Tensor,
    edges: Tensor,
    *,
    percentile: float,
    rounds: int | None,
    signed: bool,
    progress: Callable[[int, int], None] | None = None,
) -> list[Node]:
    """Singh et al. (2019), algorithm 1: see ``rightly.hierarchy``.

    Args:
        score: groups (R, A) bool -> (R,), all at once.
        singles: (A,), the scores of the atoms alone.
        edges: (E, 2), atoms that touch, each pair once.
        percentile, rounds, signed, progress: as in ``rightly.hierarchy``.
    """
    state = _State(score, singles, edges, signed)
    done = 0
    while (rounds is None or done < rounds) and (candidates := state.candidates()):
        priorities = np.array([candidate.priority for candidate in candidates])
        least = np.quantile(priorities, percentile / 100)
        state.join([c for c, priority in zip(candidates, priorities, strict=True) if priority >= least], done)
        done += 1
        if progress:
            progress(int((state.group >= 0).sum()), len(singles))
    return state.nodes


@dataclass(frozen=True)
class _Candidate:
    """What could become a group: a single atom, or two neighbours, each a group (>= 0) or an atom (~atom)."""

    priority: float
    members: tuple[int, ...]


class _State:
    """Groups as they are: each atom belongs to the newest node that holds it, or to none yet (-1)."""

    def __init__(self, score: Score, singles: Tensor, edges: Tensor, signed: bool) -> None:
        self.score, self.signed = score, signed
        self.singles = [float(value) for value in singles]
        self.edges = edges.cpu().numpy().reshape(-1, 2)
        self.group = np.full(len(singles), -1)
        self.nodes: list[Node] = []
        self.known: dict[tuple[int, int], float] = {}

    def candidates(self) -> list[_Candidate]:
        """All atoms without a group, and every group with each of its neighbours."""
        alone = [_Candidate(self._size(self.singles[a]), (~a,)) for a in np.flatnonzero(self.group < 0).tolist()]
        pairs = self._pairs()
        new = [pair for pair in pairs if pair not in self.known]
        if new:
            groups = torch.stack([self._atoms(pair) for pair in new])
            self.known |= dict(zip(new, self.score(groups).tolist(), strict=True))
        together = [_Candidate(self._gain(pair), pair) for pair in pairs]
        return alone + together

    def join(self, chosen: Sequence[_Candidate], round: int) -> None:
        """Make the candidates groups; those that overlap become one."""
        made: list[tuple[list[int], Tensor]] = []
        for members in _connected([c.members for c in chosen]):
            atoms = self._atoms(members)
            parts = [self._node_of(member, round) for member in members]
            if len(parts) > 1:
                made.append((parts, atoms))
            else:
                self.group[~members[0]] = parts[0]
        if not made:
            return
        scores = self.score(torch.stack([atoms for _, atoms in made])).tolist()
        for (parts, atoms), value in zip(made, scores, strict=True):
            self.nodes.append(Node(atoms, value, tuple(parts), round))
            self.group[atoms.numpy()] = len(self.nodes) - 1

    def _pairs(self) -> list[tuple[int, int]]:
        first, second = self.group[self.edges[:, 0]], self.group[self.edges[:, 1]]
        first, second = (
            np.where(group >= 0, group, ~atoms)
            for group, atoms in ((first, self.edges[:, 0]), (second, self.edges[:, 1]))
        )
        met = (first != second) & ((first >= 0) | (second >= 0))
        pairs = np.stack([np.minimum(first, second)[met], np.maximum(first, second)[met]], 1)
        return [(int(a), int(b)) for a, b in np.unique(pairs, axis=0)]

    def _gain(self, pair: tuple[int, int]) -> float:
        """The interaction score: what the two are worth together beyond the group, or the better of two groups."""
        own = [self.nodes[member].score for member in pair if member >= 0]
        return self._size(self.known[pair] - max(own, key=self._size))

    def _size(self, value: float) -> float:
        return value if self.signed else abs(value)

    def _atoms(self, members: Iterable[int]) -> Tensor:
        atoms = torch.zeros(len(self.singles), dtype=torch.bool)
        for member in members:
            if member >= 0:
                atoms |= self.nodes[member].atoms
            else:
                atoms[~member] = True
        return atoms

    def _node_of(self, member: int, round: int) -> int:
        if member >= 0:
            return member
        self.nodes.append(Node(self._atoms([member]), self.singles[~member], (), round))
        return len(self.nodes) - 1


def _connected(members: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Members of candidates that share one, together; in order of their first appearance."""
    root: dict[int, int] = {}

    def find(member: int) -> int:
        while root.setdefault(member, member) != member:
            root[member] = root[root[member]]
            member = root[member]
        return member

    for first, *others in members:
        for other in (first, *others):
            root[find(other)] = find(first)
    found: dict[int, list[int]] = {}
    for member in root:
        found.setdefault(find(member), []).append(member)
    return list(found.values())
