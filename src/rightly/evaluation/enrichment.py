"""Do the genes that a model relies on make sense: pathways among the top ones, and a known list along the ranking."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.extras import require
from rightly.evaluation.statistics import adjust

#: gene sets with fewer or more members in the data are left out, as is usual: they show nothing, or everything
SMALLEST, LARGEST = 5, 500


@dataclass(frozen=True)
class Enrichment:
    """One gene set.

    Attributes:
        name: of the set.
        size: members among the data's genes.
        score: hits over those expected (``over_representation``) or the normalised enrichment score
            (``set_enrichment``).
        p, q: p-value, and corrected for all the sets that were tested.
    """

    name: str
    size: int
    score: float
    p: float
    q: float


@dataclass(frozen=True)
class GeneOverlap:
    """Known genes along a ranking, most important first.

    Attributes:
        counts: (G,) how many of the first k genes are known, k = 1 to G.
        expected: (G,) in a random order.
        p: (G,) of at least so many in a random order (hypergeometric). For one k that was chosen beforehand: the
            smallest over all k is no p-value.
    """

    counts: np.ndarray
    expected: np.ndarray
    p: np.ndarray

    @property
    def advantage(self) -> float:
        """Area between the curve and chance: 1 where all known genes come first, 0 at random, -1 where they come last.

        That is 2 A - 1 with the area A under the ROC curve of the importances as a test for being known.
        """
        first = np.arange(1, len(self.counts) + 1)
        best = np.minimum(first, self.counts[-1]) - self.expected
        return float((self.counts - self.expected).sum() / best.sum()) if best.any() else 0.0


def gene_overlap(importances: np.ndarray, genes: Sequence[str], known: Collection[str]) -> GeneOverlap:
    """Known genes along the ranking by importance (Erion et al. 2021, figure 4b).

    Args:
        importances: (G,), such as mean absolute attributions; equal ones keep the order of ``genes``.
        genes: (G,) names.
        known: names; those that the data lacks do not count.

    Raises:
        ShapeError: importances and genes do not fit.
        ArgumentError: importances are not finite, or no gene is known.
    """
    order = _ranking(importances, genes)
    hits = np.array([genes[i] in set(known) for i in order])
    if not hits.any():
        raise ArgumentError("none of the genes is known", expected="at least one", got=f"{len(set(known))} other names")
    first, total = np.arange(1, len(genes) + 1), int(hits.sum())
    counts = hits.cumsum()
    tail = require("scipy.stats").hypergeom.sf(counts - 1, len(genes), total, first)
    return GeneOverlap(counts, first * total / len(genes), tail)


def over_representation(
    importances: np.ndarray, genes: Sequence[str], sets: Mapping[str, Collection[str]], *, top: int
) -> list[Enrichment]:
    """Gene sets that have more members among the ``top`` genes than a random choice of genes (hypergeometric test).

    Args:
        importances, genes: as for ``gene_overlap``; the genes of the data are the background.
        sets: name -> members. Those with fewer than 5 or more than 500 members in the data are not tested.
        top: how many genes count as important; chosen beforehand.

    Returns:
        The sets that were tested, smallest p first.

    Raises:
        ShapeError, ArgumentError: as for ``gene_overlap``, or ``top`` is not below the number of genes.
    """
    order = _ranking(importances, genes)
    if check_count("top", top) >= len(genes):
        raise ArgumentError("the top is a part of the genes", expected=f"1 to {len(genes) - 1}", got=top)
    best = {genes[i] for i in order[:top]}
    tested = _testable(sets, genes)
    hits = {name: len(members & best) for name, members in tested.items()}
    tail = require("scipy.stats").hypergeom.sf
    p = [float(tail(hits[name] - 1, len(genes), len(members), top)) for name, members in tested.items()]
    scores = [hits[name] * len(genes) / (len(members) * top) for name, members in tested.items()]
    return _sorted(tested, scores, p, adjust(p))


def set_enrichment(
    importances: np.ndarray,
    genes: Sequence[str],
    sets: Mapping[str, Collection[str]],
    *,
    permutations: int = 1000,
    seed: int = 0,
) -> list[Enrichment]:
    """Gene set enrichment analysis (Subramanian et al. 2005) of the ranking by importance, with gseapy's prerank.

    Needs the extra ``genomics``. Only sets that come *early* in the ranking have a score above 0.

    Args:
        importances, genes, sets: as for ``over_representation``.
        permutations: of the genes, for p and q; no p-value is below one in so many.
        seed: of the permutations.

    Returns:
        The sets that were tested, smallest p first.

    Raises:
        ShapeError, ArgumentError: as for ``gene_overlap``.
        MissingExtraError: gseapy is not installed.
    """
    _ranking(importances, genes)
    tested = _testable(sets, genes)
    if not tested:
        return []
    ranked = require("pandas").Series(np.asarray(importances, np.float64), index=list(genes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's own, about pandas and equal importances
        found: Any = require("gseapy").prerank(
            rnk=ranked.sort_values(ascending=False, kind="stable"),
            gene_sets={name: sorted(members) for name, members in tested.items()},
            min_size=SMALLEST,
            max_size=LARGEST,
            permutation_num=check_count("permutations", permutations),
            seed=seed,
            threads=1,
            outdir=None,
            no_plot=True,
        )
    rows = {name: found.results[name] for name in tested if name in found.results}
    scores, p, q = ([float(row[key]) for row in rows.values()] for key in ("nes", "pval", "fdr"))
    least = 1 / permutations  # gseapy says 0 where no permutation came as far
    return _sorted({name: tested[name] for name in rows}, scores, [max(v, least) for v in p], q)


def _ranking(importances: np.ndarray, genes: Sequence[str]) -> np.ndarray:
    """Positions of the genes, most important first."""
    values = np.asarray(importances, np.float64)
    if values.ndim != 1 or len(values) != len(genes) or not len(genes):
        raise ShapeError("every gene needs its importance", expected=(len(genes),), got=values.shape)
    if not np.isfinite(values).all() or len(set(genes)) < len(genes):
        raise ArgumentError("no ranking", expected="finite importances of different genes", got="others")
    return np.argsort(-values, kind="stable")


def _testable(sets: Mapping[str, Collection[str]], genes: Sequence[str]) -> dict[str, set[str]]:
    here = set(genes)
    inside = {name: here & set(members) for name, members in sets.items()}
    return {name: members for name, members in inside.items() if SMALLEST <= len(members) <= LARGEST}


def _sorted(
    tested: Mapping[str, Collection[str]], scores: Sequence[float], p: Sequence[float], q: Sequence[Any]
) -> list[Enrichment]:
    rows = zip(tested.items(), scores, p, q, strict=True)
    return sorted((Enrichment(n, len(m), *numbers) for (n, m), *numbers in rows), key=lambda row: (row.p, row.name))
