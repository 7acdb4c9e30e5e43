"""Measures of place against plain loops over pixels."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rightly.core import seeding
from rightly.core.errors import ArgumentError, ShapeError
from rightly.evaluation import energy_pointing_game, iou, pointing_game, rank_accuracy, top_k_intersection

MEASURES = {
    "energy": energy_pointing_game,
    "pointing": pointing_game,
    "near": lambda phi, region: pointing_game(phi, region, tolerance=1.5),
    "rank": rank_accuracy,
    "top": lambda phi, region: top_k_intersection(phi, region, 4),
    "iou": lambda phi, region: iou(phi, region, threshold=0.3),
}


def slow(name: str, phi: list[list[float]], region: list[list[bool]]) -> float:
    """One example (H, W)."""
    pixels = [(r, c) for r in range(len(phi)) for c in range(len(phi[0]))]
    inside = {p for p in pixels if region[p[0]][p[1]]}
    value = {p: phi[p[0]][p[1]] for p in pixels}
    if not inside:
        return math.nan
    order = sorted(pixels, key=lambda p: -value[p])
    if name == "energy":
        total = sum(max(v, 0) for v in value.values())
        return sum(max(value[p], 0) for p in inside) / total if total else 0.0
    if name in ("pointing", "near"):
        reach = 1.5 if name == "near" else 0
        best = [p for p in pixels if value[p] == max(value.values())]
        return sum(any(math.dist(p, q) <= reach for q in inside) for p in best) / len(best)
    if name in ("rank", "top"):
        n = len(inside) if name == "rank" else 4
        above = [p for p in pixels if value[p] > value[order[n - 1]]]
        equal = [p for p in pixels if value[p] == value[order[n - 1]]]
        # each of the equal ones gets one of the places left as often as any other
        chance = (n - len(above)) / len(equal)
        return (sum(p in inside for p in above) + chance * sum(p in inside for p in equal)) / n
    high = {p for p in pixels if value[p] > 0.3 * max(value.values()) and value[p] > 0}
    return len(high & inside) / len(high | inside)


@pytest.mark.parametrize("name", MEASURES)
@given(seed=st.integers(0, 40), ties=st.booleans(), share=st.sampled_from([0.0, 0.2, 0.6]))
def test_a_measure_is_its_plain_loop(name: str, seed: int, ties: bool, share: float) -> None:
    draws = seeding.generator("places", seed)
    phi = torch.randn(4, 1, 4, 5, generator=draws, dtype=torch.float64)
    phi = phi.round() if ties else phi
    region = torch.rand(4, 1, 4, 5, generator=draws) < share
    found = MEASURES[name](phi, region)
    expected = [slow(name, phi[i, 0].tolist(), region[i, 0].tolist()) for i in range(4)]
    assert found.tolist() == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("name", MEASURES)
def test_all_inside_is_one_and_all_outside_is_zero(name: str) -> None:
    phi = torch.zeros(1, 1, 6, 6)
    phi[..., :2, :2] = torch.tensor([[4.0, 3.0], [2.0, 5.0]])
    region = torch.zeros(1, 1, 6, 6, dtype=torch.bool)
    region[..., :2, :2] = True
    assert MEASURES[name](phi, region).item() == 1
    assert MEASURES[name](phi, region.roll(4, -1)).item() == 0


def test_a_region_may_be_one_for_all_and_tables_have_regions_too() -> None:
    phi = torch.tensor([[3.0, 1.0, -1.0], [0.0, 2.0, 5.0]])
    region = torch.tensor([[True, False, False]])
    assert energy_pointing_game(phi, region).tolist() == [0.75, 0.0]
    assert pointing_game(phi, region).tolist() == [1.0, 0.0]


def test_a_miss_counts_as_far_as_the_tolerance_goes() -> None:
    phi, region = torch.zeros(1, 1, 9, 9), torch.zeros(1, 1, 9, 9, dtype=torch.bool)
    phi[0, 0, 4, 4], region[0, 0, 1, 0] = 1, True  # five pixels away: 3-4-5
    assert pointing_game(phi, region, tolerance=4.9).item() == 0
    assert pointing_game(phi, region, tolerance=5).item() == 1


def test_what_cannot_be_placed_is_refused() -> None:
    phi, region = torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ArgumentError, match="boolean"):
        iou(phi, region.float())
    with pytest.raises(ShapeError, match="fit"):
        rank_accuracy(phi, region[:, :2])
    with pytest.raises(ArgumentError, match="placed"):
        energy_pointing_game(phi * torch.nan, region)
    with pytest.raises(ShapeError, match="maps"):
        pointing_game(phi, region, tolerance=1)
    with pytest.raises(ArgumentError, match="distance"):
        pointing_game(phi, region, tolerance=-1)
    with pytest.raises(ArgumentError, match="share"):
        iou(phi, region, threshold=1)
    with pytest.raises(ArgumentError, match="k counts"):
        top_k_intersection(phi, region, 0)


def test_equal_attributions_get_no_credit_for_their_place():
    region = torch.tensor([[True, True, False, False]])
    for phi in (torch.zeros(1, 4), torch.tensor([[1.0, 0, 0, 0]]), torch.tensor([[0, 0, 0, 1.0]])):
        turned = [measure(phi.flip(1), region.flip(1)) for measure in (rank_accuracy, MEASURES["top"])]
        assert [measure(phi, region) for measure in (rank_accuracy, MEASURES["top"])] == turned
    assert rank_accuracy(torch.zeros(1, 4), region).item() == 0.5
    # one place is left for three equal ones, of which one is inside
    assert rank_accuracy(torch.tensor([[1.0, 0, 0, 0]]), region).item() == pytest.approx((1 + 1 / 3) / 2)

    def ways(phi: list[float], k: int) -> float:
        """All orders of four, those that sort the attributions."""
        found = [
            sum(order[j] in (0, 1) for j in range(k)) / k
            for order in itertools.permutations(range(4))
            if all(phi[a] >= phi[b] for a, b in itertools.pairwise(order))
        ]
        return sum(found) / len(found)

    for phi in ([0.0, 1, 1, 0], [2, 1, 1, 1], [0, 0, 0, 0], [1, 2, 2, 3]):
        for k in (1, 2, 3):
            found = top_k_intersection(torch.tensor([phi]).double(), region, k).item()
            assert found == pytest.approx(ways(phi, k), rel=1e-12)
