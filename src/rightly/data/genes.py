"""Gene graphs from edge lists, with randomised ones as control, and gene sets from files."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rightly.core.errors import ArgumentError, DataError, ShapeError
from rightly.data.noted import note_file

#: swaps tried for every edge when degrees are kept: beyond about ten nothing of the old places is left
_SWAPS_AN_EDGE = 10


@dataclass(frozen=True)
class GeneGraph:
    """An undirected graph over the genes of a data set.

    Attributes:
        genes: names, in the order of the data's columns.
        edges: (E, 2) int64, each edge once, the smaller position first.
        weights: (E,) float32, positive.
        left_out: how many lines of the edge list named a gene that the data lacks (``unknown``), joined a gene to
            itself (``loops``), weighed nothing (``zero``) or repeated an edge (``repeated``: the largest counts).
    """

    genes: tuple[str, ...]
    edges: np.ndarray
    weights: np.ndarray
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def adjacency(self) -> Tensor:
        """(G, G) symmetric, sparse: what ``rt.priors.GraphSmoothness`` and ``rt.models.gcn`` take."""
        index = torch.from_numpy(np.concatenate([self.edges, self.edges[:, ::-1]]).T.copy())
        values = torch.from_numpy(self.weights).repeat(2)
        shape = (len(self.genes), len(self.genes))
        return torch.sparse_coo_tensor(index, values, shape, check_invariants=True).coalesce()

    def among(self, genes: Sequence[str]) -> GeneGraph:
        """The part of the graph over these genes, in their order."""
        names = [(self.genes[i], self.genes[j]) for i, j in self.edges]
        return gene_graph(genes, names, self.weights)

    def randomised(self, seed: int, *, keep_degrees: bool = False) -> GeneGraph:
        """As many edges, with the same weights, at random positions.

        Args:
            seed: of the draws.
            keep_degrees: every gene keeps its number of edges, by swapping the ends of random pairs of edges; by
                default any position is as likely as any other, as in Erion et al. (2021).
        """
        draws = np.random.default_rng(seed)
        if keep_degrees:
            edges = _swapped(self.edges, draws)
        else:
            possible = len(self.genes) * (len(self.genes) - 1) // 2
            edges = _pairs(draws.choice(possible, size=len(self.edges), replace=False))
        order = np.lexsort((edges[:, 1], edges[:, 0]))
        return GeneGraph(self.genes, edges[order], self.weights[order])


def gene_graph(
    genes: Sequence[str],
    edges: Sequence[tuple[str, str]] | np.ndarray,
    weights: Sequence[float] | np.ndarray | None = None,
) -> GeneGraph:
    """A graph over ``genes`` from a list of edges.

    Args:
        genes: names, all different.
        edges: (E, 2), names, or whole numbers that are positions in ``genes``; in either direction, repeats allowed.
        weights: (E,), not negative; by default 1 each.

    Raises:
        ArgumentError: genes with one name, positions that there are not, or weights that are no strengths.
        ShapeError: edges are no pairs, or weights do not fit them.
    """
    names = tuple(str(gene) for gene in genes)
    if len(set(names)) < len(names) or not names:
        raise ArgumentError(
            "genes are told apart by name",
            expected="different names, at least one",
            got=len(names),
            mend="join the columns that share a name",
        )
    pairs = np.asarray(edges)
    if pairs.size == 0:
        pairs = np.empty((0, 2), np.int64)
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise ShapeError(
            "an edge joins two genes", expected="(E, 2)", got=pairs.shape, mend="one row an edge; transpose (2, E)"
        )
    values = np.ones(len(pairs), np.float32) if weights is None else np.asarray(weights, np.float32)
    if values.shape != (len(pairs),):
        raise ShapeError(
            "every edge needs a weight",
            expected=(len(pairs),),
            got=values.shape,
            mend="one weight an edge, or none at all",
        )
    if not np.isfinite(values).all() or (values < 0).any():
        raise ArgumentError(
            "weights are strengths", expected="finite numbers >= 0", got="others", mend="drop these edges"
        )
    at = _positions(pairs, names)
    unknown, loops = (at < 0).any(1), at[:, 0] == at[:, 1]
    zero = values == 0
    kept = ~unknown & ~loops & ~zero
    at, values = np.sort(at[kept], 1), values[kept]
    # the strongest of each edge comes first, and the first is kept
    order = np.lexsort((-values, at[:, 1], at[:, 0]))
    at, values = at[order], values[order]
    first = np.ones(len(at), bool)
    first[1:] = (at[1:] != at[:-1]).any(1)
    left_out = {
        "unknown": int(unknown.sum()),
        "loops": int((loops & ~unknown).sum()),
        "zero": int((zero & ~loops & ~unknown).sum()),
        "repeated": int((~first).sum()),
    }
    return GeneGraph(names, at[first], values[first], left_out)


def read_gene_graph(path: str | Path, genes: Sequence[str]) -> GeneGraph:
    """A graph from a text file with an edge a line: gene, gene and perhaps a weight, apart by tabs, commas or spaces.

    Args:
        path: may end in ``.gz``. Empty lines and those that start with # do not count.
        genes: the data's, named as in the file.

    Raises:
        DataError: the file is absent, a line cannot be read, or no edge joins two of the genes.
    """
    pairs, weights = [], []
    for number, line in _lines(path):
        parts = line.replace(",", " ").split()
        try:
            weight = float(parts[2]) if len(parts) > 2 else 1.0
        except ValueError:
            weight = -1.0
        if len(parts) not in (2, 3) or not 0 <= weight < float("inf"):
            raise DataError(
                f"line {number} of {path} is no edge",
                expected="gene, gene and perhaps a weight >= 0",
                got=line[:80],
                mend="remove headings, or start them with #",
            )
        pairs.append((parts[0], parts[1]))
        weights.append(weight)
    found = gene_graph(genes, pairs, weights)
    if not len(found.edges):
        raise DataError(
            f"no edge of {path} joins two genes of the data",
            expected=f"names such as {', '.join(found.genes[:3])}",
            got=f"{len(pairs)} lines, such as {' '.join(pairs[0])}" if pairs else "no line",
            mend="use one kind of name in both (symbols, or Entrez or Ensembl numbers)",
        )
    return found


def read_gene_sets(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Pathways from a .gmt file, a line each: name, description and the genes, apart by tabs.

    Raises:
        DataError: the file is absent, or a line has no gene.
    """
    sets = {}
    for number, line in _lines(path):
        name, *rest = line.split("\t")
        members = tuple(gene.strip() for gene in rest[1:] if gene.strip())
        if not members:
            raise DataError(
                f"line {number} of {path} is no gene set",
                expected="name, description, genes, apart by tabs",
                got=line[:80],
                mend="write the GMT format: one set a line",
            )
        sets[name] = members
    return sets


def _lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Lines with their number, without empty ones and remarks."""
    if not Path(path).is_file():
        raise DataError("the file is not there", expected="a text file", got=str(path), mend="check the path")
    note_file(Path(path).name, Path(path))
    packed = Path(path).read_bytes()
    try:
        text = (gzip.decompress(packed) if Path(path).suffix == ".gz" else packed).decode("utf-8-sig")
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            "the file is no text", expected="UTF-8, or gzip with .gz", got=f"{path}: {error}", mend="save it as UTF-8"
        ) from error
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            yield number, line


def _positions(pairs: np.ndarray, genes: tuple[str, ...]) -> np.ndarray:
    """(E, 2) int64; -1 for names that the data lacks."""
    if pairs.dtype.kind in "iu":
        if len(pairs) and (int(pairs.min()) < 0 or int(pairs.max()) >= len(genes)):
            raise ArgumentError(
                "an edge names no gene",
                expected=f"0 to {len(genes) - 1}",
                got=int(pairs.max()),
                mend="positions count from 0",
            )
        return pairs.astype(np.int64)
    if pairs.dtype.kind not in "UO":
        raise ArgumentError(
            "edges join names or positions", expected="text or whole numbers", got=pairs.dtype, mend="pairs.astype(str)"
        )
    known = {gene: position for position, gene in enumerate(genes)}
    return np.array([known.get(str(gene), -1) for gene in pairs.ravel()], np.int64).reshape(-1, 2)


def _pairs(numbers: np.ndarray) -> np.ndarray:
    """Pair number j (j - 1) / 2 + i is (i, j), i < j."""
    j = ((1 + np.sqrt(1 + 8 * numbers.astype(np.float64))) / 2).astype(np.int64)
    return np.stack([numbers - j * (j - 1) // 2, j], 1)


def _swapped(edges: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """a-b and c-d become a-d and c-b, many times, unless that joins a gene to itself or repeats an edge."""
    ends = [(int(i), int(j)) for i, j in edges]
    taken = set(ends)
    if len(ends) < 2:
        return edges
    tries = draws.integers(len(ends), size=(_SWAPS_AN_EDGE * len(ends), 2)).tolist()
    turned = draws.integers(2, size=len(tries)).tolist()
    for (one, other), turn in zip(tries, turned, strict=True):
        (a, b), (c, d) = ends[one], ends[other][:: -1 if turn else 1]
        new = (min(a, d), max(a, d)), (min(c, b), max(c, b))
        if one == other or a == d or c == b or new[0] == new[1] or taken.intersection(new):
            continue
        taken -= {ends[one], ends[other]}
        taken |= set(new)
        ends[one], ends[other] = new
    return np.array(ends, np.int64)
