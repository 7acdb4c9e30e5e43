"""Enrichment against counting, against SciPy, and against what random rankings give."""

import itertools

import numpy as np
import pytest
from scipy.stats import hypergeom

from rightly.core.errors import ArgumentError, ShapeError
from rightly.evaluation import gene_overlap, over_representation, score, set_enrichment

GENES = [f"G{i:02}" for i in range(40)]
RNG = np.random.default_rng(0)
IMPORTANCES = RNG.random(40)


def test_overlap_by_counting():
    known = {"G03", "G08", "G21", "elsewhere"}
    found = gene_overlap(IMPORTANCES, GENES, known)
    ranked = [gene for _, gene in sorted(zip(-IMPORTANCES, GENES, strict=True))]
    for k in range(1, 41):
        hits = len(known & set(ranked[:k]))
        assert found.counts[k - 1] == hits
        assert found.expected[k - 1] == pytest.approx(k * 3 / 40)
        tail = sum(hypergeom.pmf(h, 40, 3, k) for h in range(hits, 4))
        assert found.p[k - 1] == pytest.approx(tail, rel=1e-9)


def test_overlap_p_is_a_share_of_all_orders():
    """Of the 5 choose 2 places that two known genes can have."""
    found = gene_overlap(np.array([5.0, 4, 3, 2, 1]), list("ABCDE"), {"A", "C"})
    places = list(itertools.combinations(range(5), 2))
    for k in range(1, 6):
        atleast = [sum(i < k for i in place) >= found.counts[k - 1] for place in places]
        assert found.p[k - 1] == pytest.approx(np.mean(atleast))


def test_the_advantage_is_twice_the_roc_area_less_one():
    known = set(GENES[5:15])
    labels = np.array([gene in known for gene in GENES]).astype(int)
    scores = np.stack([1 - IMPORTANCES, IMPORTANCES], 1)
    expected = 2 * score(labels, scores, ["auc"])["auc"] - 1
    assert gene_overlap(IMPORTANCES, GENES, known).advantage == pytest.approx(expected)
    assert gene_overlap(labels.astype(float), GENES, known).advantage == pytest.approx(1)
    assert gene_overlap(-labels.astype(float), GENES, known).advantage == pytest.approx(-1)
    assert gene_overlap(IMPORTANCES, GENES, GENES).advantage == 0


def test_over_representation_by_the_formula():
    order = np.argsort(-IMPORTANCES)
    best = [GENES[i] for i in order[:10]]
    sets = {
        "top": best[:6],
        "mixed": [*best[:2], *(GENES[i] for i in order[20:24])],
        "small": best[:4],
        "gone": ["x"] * 9,
    }
    found = {row.name: row for row in over_representation(IMPORTANCES, GENES, sets, top=10)}
    assert set(found) == {"top", "mixed"}  # the others have fewer than five genes here
    for name, hits in (("top", 6), ("mixed", 2)):
        assert found[name].size == 6
        assert found[name].p == pytest.approx(hypergeom.sf(hits - 1, 40, 6, 10))
        assert found[name].score == pytest.approx(hits / (6 * 10 / 40))
    assert found["top"].q == pytest.approx(min(1, 2 * found["top"].p))
    assert over_representation(IMPORTANCES, GENES, {}, top=10) == []


def test_random_rankings_enrich_nothing():
    sets = {f"set {s}": RNG.choice(GENES, 8, replace=False).tolist() for s in range(20)}
    found = [
        row.q
        for s in range(50)
        for row in over_representation(np.random.default_rng(s).random(40), GENES, sets, top=10)
    ]
    assert np.mean(np.array(found) < 0.05) < 0.01


def test_a_planted_set_is_enriched_by_gseapy():
    pytest.importorskip("gseapy", reason="needs the extra genomics")
    genes = [f"G{i:03}" for i in range(200)]
    importances = np.random.default_rng(1).random(200)
    importances[:12] += 1
    sets = {"planted": genes[:12], **{f"other {s}": genes[20 + 12 * s : 32 + 12 * s] for s in range(8)}}
    found = set_enrichment(importances, genes, sets, permutations=200)
    assert found[0].name == "planted"
    assert found[0].score > 1.5
    assert found[0].q < 0.05
    assert found[0].p >= 1 / 200  # never below what so many permutations can show
    assert found == set_enrichment(importances, genes, sets, permutations=200)
    assert set_enrichment(importances, genes, {"small": genes[:3]}) == []


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: gene_overlap(IMPORTANCES[:-1], GENES, GENES[:3]),
        lambda: gene_overlap(IMPORTANCES * np.nan, GENES, GENES[:3]),
        lambda: gene_overlap(IMPORTANCES, ["A"] * 40, {"A"}),
        lambda: gene_overlap(IMPORTANCES, GENES, {"elsewhere"}),
        lambda: over_representation(IMPORTANCES, GENES, {}, top=40),
        lambda: over_representation(IMPORTANCES, GENES, {}, top=0),
        lambda: set_enrichment(IMPORTANCES[None], GENES, {}),
    ],
)
def test_what_cannot_be_ranked(wrong):
    with pytest.raises((ArgumentError, ShapeError), match="expected"):
        wrong()
