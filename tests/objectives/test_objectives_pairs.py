"""Pairs that should be near or far in a representation."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from contracts.derivatives import check_term
from contracts.problems import draws, images, normal, objective, tokens, vectors
from rightly.core.errors import ArgumentError, NotConnectedError, RightlyError, ShapeError
from rightly.objectives.model_term import Batch
from rightly.objectives.pairs import pair_penalty

DATA = normal(9, 6, seed=40)
NEAR, FAR = torch.tensor([[0, 1], [2, 3], [4, 5]]), torch.tensor([[0, 6], [7, 8]])
LAYER = rt.spaces.Layer("0")


def _term(**arguments):
    return rt.PairTerm(DATA, LAYER, **{"near": NEAR, "far": FAR, **arguments})


def _by_hand(model, inputs, near, far, margin=1.0):
    """Pair by pair; the typical distance from all pairs of the examples at hand, one by one."""
    with torch.no_grad():
        code = model[0](DATA)
        used = [code[row] for pair in (*near, *far) for row in pair] + list(model[0](inputs))
    squares = [float((a - b).square().sum()) for i, a in enumerate(used) for j, b in enumerate(used) if i < j]
    typical = math.sqrt(sum(squares) / len(squares))
    apart = lambda pair: float((code[pair[0]] - code[pair[1]]).norm()) / typical  # noqa: E731
    total = 0.0
    for pairs, cost in ((near, lambda d: d**2), (far, lambda d: max(margin - d, 0) ** 2)):
        if len(pairs):
            total += sum(cost(apart(pair)) for pair in pairs) / len(pairs)
    return total


@pytest.mark.parametrize(("near", "far"), [(NEAR, FAR), (NEAR, None), (None, FAR)])
@pytest.mark.parametrize("margin", [1.0, 2.5])
def test_the_penalty_is_that_of_the_definition(near, far, margin):
    problem = vectors()
    found = _term(near=near, far=far, margin=margin).of(problem.model, Batch(problem.inputs))
    none = torch.empty(0, 2, dtype=torch.long)
    given = [none if pairs is None else pairs for pairs in (near, far)]
    expected = _by_hand(problem.model, problem.inputs, *given, margin)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-12)
    assert expected > 0


def test_closed_form_on_a_line():
    near, far = torch.tensor([1.0, 3.0]), torch.tensor([0.5, 4.0])
    assert float(pair_penalty(near, far, 2.0)) == (1 + 9) / 2 + (1.5**2 + 0) / 2
    assert float(pair_penalty(near, far[:0])) == 5


@pytest.mark.parametrize("n_pairs", [None, 1])
def test_the_term_has_the_true_gradient(n_pairs):
    problem = vectors()
    check_term(objective(problem, _term(n_pairs=n_pairs, margin=3.0)), problem.inputs, problem.labels)


def test_other_shapes_have_the_true_gradient():
    for problem in (images(), tokens()):
        layer = "embedding" if problem.name == "tokens" else "4"
        term = rt.PairTerm(
            problem.inputs, rt.spaces.Layer(layer), near=torch.tensor([[0, 1]]), far=torch.tensor([[1, 2]])
        )
        check_term(objective(problem, term), problem.inputs, problem.labels)


def test_a_smaller_representation_gains_nothing():
    problem = vectors()
    before = _term().of(problem.model.eval(), Batch(problem.inputs))
    with torch.no_grad():
        for parameter in problem.model[0].parameters():
            parameter.mul_(0.01)
    assert torch.allclose(_term().of(problem.model, Batch(problem.inputs)), before, rtol=1e-10)


def test_pairs_are_drawn_whole_and_each_as_often():
    problem = vectors()
    term = _term(near=NEAR, far=None, n_pairs=1)
    alone = [
        float(_term(near=NEAR[i : i + 1], far=None).of(problem.model, Batch(problem.inputs)).detach()) for i in range(3)
    ]
    found = [
        float(term.of(problem.model, Batch(problem.inputs, generator=draws(seed))).detach()) for seed in range(300)
    ]
    counts = [sum(value == pytest.approx(other) for value in found) for other in alone]
    assert sum(counts) == 300
    assert min(counts) > 60


def test_one_example_in_the_batch_is_enough():
    problem = vectors(1)
    assert _term().of(problem.model, Batch(problem.inputs)).isfinite()


def test_equal_representations_are_finite():
    """All alike, or the two of a pair: no distance, no slope, no NaN."""
    model = nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 2)).double()
    same = torch.ones(4, 6, dtype=torch.float64)
    for data, inputs in ((same, same), (same, normal(4, 6, seed=1))):
        term = rt.PairTerm(data, LAYER, near=torch.tensor([[0, 1]]), far=torch.tensor([[2, 3]]))
        rt.Objective(model, F.cross_entropy, [term])(inputs, torch.tensor([0, 1, 0, 1])).total.backward()
        assert all(p.grad.isfinite().all() for p in model.parameters())


def test_the_input_itself_cannot_be_trained():
    problem = vectors()
    term = rt.PairTerm(DATA, rt.spaces.Input(), near=NEAR)
    with pytest.raises(NotConnectedError):
        objective(problem, term)(problem.inputs, problem.labels)


def test_nothing_of_the_model_changes():
    problem = vectors()
    before = {name: value.clone() for name, value in problem.model.state_dict().items()}
    state = torch.get_rng_state()
    _term(n_pairs=2).of(problem.model, Batch(problem.inputs, generator=draws(1)))
    assert problem.model.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in problem.model.state_dict().items())


def test_pairs_change_what_is_near():
    """Of two features the label needs only the first; the pairs say that the second does not make examples differ."""
    x = normal(200, 2, seed=3).float()
    y = (x[:, 0] > 0).long()
    order = x[:, 0].argsort()
    near = torch.stack([order[:-1:2], order[1::2]], 1)
    far = torch.stack([order[:100], order[100:]], 1)
    ratios = {}
    for weight in (0.0, 1.0):
        model = rt.models.mlp(2, [8], 2, seed=0)
        layer = next(name for name, part in model.named_modules() if isinstance(part, nn.Linear))
        term = rt.PairTerm(x, rt.spaces.Layer(layer), near=near, far=far, n_pairs=20, weight=weight)
        rt.fit(rt.Objective(model, F.cross_entropy, [term]), (x, y), epochs=40, batch_size=50, lr=0.01)
        by_input = model.get_submodule(layer).weight.detach().norm(dim=0)
        ratios[weight] = float(by_input[1] / by_input[0])
    assert ratios[1.0] < 0.5 * ratios[0.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"near": None, "far": None}, "no pairs"),
        ({"near": torch.tensor([[0, 9]])}, "rows that there are not"),
        ({"near": torch.tensor([[0, -1]])}, "rows that there are not"),
        ({"near": torch.tensor([[3, 3]])}, "one example twice"),
        ({"near": torch.tensor([0, 1])}, "row numbers"),
        ({"near": torch.tensor([[0.0, 1.0]])}, "row numbers"),
        ({"far": "all"}, "row numbers"),
        ({"margin": 0.0}, "margin"),
        ({"n_pairs": 0}, "n_pairs"),
        ({"weight": -1.0}, "weight"),
        ({"space": rt.spaces.Layer}, "representation"),
    ],
)
def test_what_cannot_be_asked(arguments, message):
    with pytest.raises((ArgumentError, ShapeError), match=message) as caught:
        rt.PairTerm(**{"inputs": DATA, "space": LAYER, "near": NEAR, **arguments})
    assert isinstance(caught.value, RightlyError)
