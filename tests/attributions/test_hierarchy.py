"""Hierarchies of feature groups: against a slow oracle, on models whose groups are known, and on bad arguments."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rightly as rt
from rightly.attributions.hierarchy import correlated, hierarchy, phrase_scores
from rightly.attributions.hierarchy.agglomeration import agglomerate
from rightly.core.errors import ArgumentError, ShapeError

Set = frozenset[int]


def slow(
    worth: Callable[[Set], float], atoms: int, edges: set[Set], percentile: float, rounds: int, signed: bool
) -> list[set[Set]]:
    """Algorithm 1, written with sets: the groups after every round."""

    def size(value: float) -> float:
        return value if signed else abs(value)

    groups: set[Set] = set()
    history: list[set[Set]] = []
    for _ in range(rounds):
        free = [frozenset([a]) for a in range(atoms) if not any(a in g for g in groups)]
        candidates: list[tuple[float, list[Set]]] = [(size(worth(a)), [a]) for a in free]
        for first, second in itertools.combinations([*groups, *free], 2):
            touch = any(frozenset([a, b]) in edges for a in first for b in second)
            own = [worth(g) for g in (first, second) if g in groups]
            if touch and own:
                candidates.append((size(worth(first | second) - max(own, key=size)), [first, second]))
        if not candidates:
            break
        least = np.quantile([priority for priority, _ in candidates], percentile / 100)
        for _, members in (c for c in candidates if c[0] >= least):
            joined = frozenset().union(*members, *(g for g in groups if any(g & m for m in members)))
            groups = {g for g in groups if not g & joined} | {joined}
        history.append(set(groups))
    return history


def grid_edges(rows: int, columns: int) -> set[Set]:
    places = list(itertools.product(range(rows), range(columns)))
    return {
        frozenset([i, j])
        for (i, (a, b)), (j, (c, d)) in itertools.combinations(enumerate(places), 2)
        if max(abs(a - c), abs(b - d)) == 1
    }


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("percentile", [60.0, 90.0, 99.5])
@pytest.mark.parametrize("seed", range(4))
def test_groups_are_those_of_the_slow_algorithm(seed: int, percentile: float, signed: bool) -> None:
    """Random worth of every set of 12 atoms on a grid."""
    rng = np.random.default_rng(seed)
    table = rng.normal(size=2**12)
    edges = grid_edges(3, 4)

    def score(groups: Tensor) -> Tensor:
        return torch.tensor(table[(groups.numpy() * 2 ** np.arange(12)).sum(1)])

    pairs = torch.tensor([sorted(edge) for edge in edges])
    nodes = agglomerate(
        score, score(torch.eye(12, dtype=torch.bool)), pairs,
        percentile=percentile, rounds=None, signed=signed,
    )  # fmt: skip
    expected = slow(lambda g: table[sum(2**a for a in g)], 12, edges, percentile, 100, signed)
    assert max(node.round for node in nodes) + 1 == len(expected)
    for round, groups in enumerate(expected):
        newest = np.full(12, -1)
        for number, node in enumerate(nodes):
            if node.round <= round:
                newest[node.atoms.numpy()] = number
        found = {frozenset(np.flatnonzero(newest == n).tolist()) for n in set(newest[newest >= 0].tolist())}
        assert found == groups
    for node in nodes:
        assert node.score == pytest.approx(table[int((node.atoms.numpy() * 2 ** np.arange(12)).sum())])
        if node.parts:
            assert torch.equal(sum(nodes[p].atoms.long() for p in node.parts), node.atoms.long())


class Words(nn.Module):
    """Token 1 is good, 2 doubles a following good, 3 negates what follows in the sentence."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        with torch.no_grad():
            self.embedding.weight.zero_()
            self.embedding.weight[1, 0] = self.embedding.weight[2, 1] = self.embedding.weight[3, 2] = 1.0

    def forward(self, tokens: Tensor) -> Tensor:
        good, very, no = self.embedding(tokens).double().unbind(2)
        shifted = torch.cat([torch.zeros_like(very[:, :1]), very[:, :-1]], 1)
        score = (good * (1 + shifted) * (1 - 2 * no.amax(1, keepdim=True))).sum(1)
        return torch.stack([-score, score], 1)


def test_very_good_is_found_before_it_is_negated() -> None:
    tree = hierarchy(
        Words(), torch.tensor([[4, 3, 2, 1, 4]]),
        score="build_up", target=1, space=rt.spaces.Layer("embedding"), percentile=100.0, signed=False,
    )  # fmt: skip
    found = dict(tree.phrases(["it's", "not", "very", "good", "really"]))
    assert found["good"] == pytest.approx(1)
    assert found["very good"] == pytest.approx(2)
    assert found["not very good"] == pytest.approx(-2)
    order = [phrase for phrase, _ in tree.phrases(["it's", "not", "very", "good", "really"])]
    assert order.index("good") < order.index("very good") < order.index("not very good")
    assert len(tree.roots) == 1
    assert tree.nodes[tree.roots[0]].atoms.all()


@pytest.mark.parametrize(
    "score",
    ["contextual_decomposition", "occlusion", "build_up", rt.InputXGradient(target="predicted")],
)
def test_on_a_linear_model_every_score_is_the_same_sum(score: object) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 5, 3, bias=False)).double()
    image = torch.randn(1, 3, 4, 5, dtype=torch.float64)
    tree = hierarchy(model, image, score=score, tile=2)  # type: ignore[arg-type]
    weights = model[1].weight.detach()[model(image).argmax()].reshape(3, 4, 5)
    assert tree.layout.shape == (2, 3)
    for number, node in enumerate(tree.nodes):
        region = tree.region(number)
        assert region.shape == (1, 4, 5)
        assert node.score == pytest.approx(float((weights * image[0] * region).sum()), abs=1e-12)


def test_spans_are_those_of_contextual_decomposition() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(6, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4, 2)).double()
    x = torch.randn(1, 6, 4, dtype=torch.float64)
    table = phrase_scores(model, x, layout="signal", target=1)
    assert table.shape == (4, 4)
    for first in range(4):
        for last in range(4):
            if last < first:
                assert table[first, last].isnan()
                continue
            region = torch.zeros(1, 1, 4, dtype=torch.bool)
            region[..., first : last + 1] = True
            expected = rt.contextual_decomposition(model, x, region).relevant[0, 0, 1]
            assert table[first, last] == pytest.approx(float(expected), abs=1e-12)
    assert table[0, 3] == pytest.approx(model(x)[0, 1].item(), abs=1e-10)


def test_levels_grow_and_chunks_change_nothing() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 3)).double()
    image = torch.randn(1, 1, 6, 6, dtype=torch.float64)
    tree = hierarchy(model, image, percentile=90.0)
    again = hierarchy(model, image, percentile=90.0, chunk_size=7)
    assert [n.parts for n in tree.nodes] == [n.parts for n in again.nodes]
    assert [n.score for n in tree.nodes] == pytest.approx([n.score for n in again.nodes], abs=1e-12)
    last = max(node.round for node in tree.nodes)
    covered = [int((tree.level(round) >= 0).sum()) for round in range(last + 1)]
    assert covered == sorted(covered)
    assert covered[-1] == 36
    stopped = hierarchy(model, image, percentile=90.0, rounds=2)
    assert torch.equal(stopped.level(1), tree.level(1))
    assert max(node.round for node in stopped.nodes) == 1


def test_the_model_stays_as_it_was() -> None:
    model = nn.Sequential(nn.Conv1d(2, 4, 1), nn.BatchNorm1d(4), nn.Dropout(), nn.Flatten(), nn.Linear(12, 2)).train()
    before = [tensor.clone() for tensor in model.state_dict().values()]
    state = torch.get_rng_state()
    hierarchy(model, torch.randn(1, 2, 3, generator=torch.Generator().manual_seed(0)), layout="signal")
    assert all(part.training for part in model.modules())
    assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))
    assert torch.equal(state, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_correlated_columns_belong_together() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b, c = torch.randn(3, 500, generator=generator)
    rows = torch.stack([a, -a + 0.1 * b, b, c + b, torch.ones(500)], 1)
    found = correlated(rows, least=0.5)
    sizes = np.abs(np.corrcoef(rows[:, :4].numpy(), rowvar=False)) - 2 * np.eye(4)
    for i, j in itertools.permutations(range(4), 2):
        best = j == sizes[i].argmax() or i == sizes[j].argmax()
        assert found[i, j] == (sizes[i, j] >= 0.5 or best)
    assert not found.diagonal().any()
    assert found.any(1).all()


def test_a_table_is_joined_along_its_neighbours_only() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    neighbours = torch.zeros(4, 4, dtype=torch.bool)
    neighbours[0, 2] = neighbours[1, 3] = True
    tree = hierarchy(model, torch.randn(1, 4, dtype=torch.float64), neighbours=neighbours)
    assert {tuple(tree.nodes[n].atoms.tolist()) for n in tree.roots} == {
        (True, False, True, False),
        (False, True, False, True),
    }


LINEAR = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))


@pytest.mark.parametrize(
    ("error", "says", "call"),
    [
        (ShapeError, "of one example", lambda: hierarchy(LINEAR, torch.ones(2, 3, 4))),
        (ArgumentError, "no order", lambda: hierarchy(LINEAR, torch.ones(1, 12))),
        (ArgumentError, "unknown layout", lambda: hierarchy(LINEAR, torch.ones(1, 3, 4), layout="graph")),  # type: ignore[arg-type]
        (ArgumentError, "unknown score", lambda: hierarchy(LINEAR, torch.ones(1, 3, 4), score="shap")),  # type: ignore[arg-type]
        (ArgumentError, "percentile", lambda: hierarchy(LINEAR, torch.ones(1, 3, 4), percentile=101)),
        (ArgumentError, "rounds", lambda: hierarchy(LINEAR, torch.ones(1, 3, 4), rounds=0)),
        (ArgumentError, "tile", lambda: hierarchy(LINEAR, torch.ones(1, 3, 4), tile=0)),
        (ShapeError, "no image", lambda: hierarchy(LINEAR, torch.ones(1, 12), layout="image")),
        (ShapeError, "no row", lambda: hierarchy(LINEAR, torch.ones(1, 1, 3, 4), layout="sequence")),
        (
            ShapeError,
            "belong together",
            lambda: hierarchy(LINEAR, torch.ones(1, 12), neighbours=torch.ones(3, 3, dtype=torch.bool)),
        ),
        (
            ArgumentError,
            "added up",
            lambda: hierarchy(
                LINEAR, torch.ones(1, 3, 4), score=rt.ExpectedHessians(rt.references.Constant(0.0), target=0)
            ),
        ),
        (ArgumentError, "do not fit", lambda: hierarchy(LINEAR, torch.ones(1, 3, 4)).phrases(["a", "b"])),
        (ShapeError, "correlations", lambda: correlated(torch.ones(1, 3))),
        (ArgumentError, "correlation", lambda: correlated(torch.randn(5, 3), least=2.0)),
    ],
)
def test_bad_arguments(error: type[Exception], says: str, call: Callable[[], object]) -> None:
    with pytest.raises(error, match=says):
        call()
