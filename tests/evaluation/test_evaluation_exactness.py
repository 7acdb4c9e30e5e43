"""Local accuracy, convergence, Shapley values and runtime: closed forms, rates that are known, and refusals."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
import torch

import rightly as rt
from rightly.core.errors import ArgumentError, ShapeError
from rightly.evaluation import Convergence, convergence, exact_shapley, interval, local_accuracy, runtime


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_local_accuracy_is_the_published_formula():
    phi, outputs = numbers(6, 2, 3), numbers(6, 1, seed=1)
    total, f = phi.sum((1, 2)).numpy(), outputs[:, 0].numpy()
    assert local_accuracy(phi, outputs) == pytest.approx(np.std(total - f) / (np.std(f) + 1e-6))
    assert local_accuracy(phi, phi.sum((1, 2)) + 4) == pytest.approx(0, abs=1e-12)
    assert local_accuracy(0 * phi, outputs) == pytest.approx(1, abs=1e-5)
    assert math.isfinite(local_accuracy(phi, torch.zeros(6)))
    with pytest.raises(ShapeError):
        local_accuracy(phi, outputs.T)


def test_integrated_gradients_are_locally_accurate_and_gradients_are_not():
    model = rt.models.mlp(5, (16,), 1, seed=0).double()
    inputs = numbers(30, 5)
    complete, plain = (
        rt.attribute(model, inputs, method).attributions for method in ("integrated_gradients", "gradient")
    )
    outputs = model(inputs)
    assert local_accuracy(complete, outputs) < 0.02
    assert local_accuracy(plain, outputs) > 0.1


def test_a_mean_of_draws_converges_with_the_root_of_their_number():
    limit = numbers(40, 5)

    def explain(n, seed):
        noise = np.random.default_rng([n, seed]).standard_normal((40, 5))
        return limit + torch.from_numpy(noise) / math.sqrt(n)

    found = convergence(explain, limit, [4, 16, 64], repeats=6)
    expected = math.sqrt(2 / math.pi)  # the mean absolute value of a normal number
    assert found.evaluations == (4, 16, 64)
    assert found.scale == pytest.approx(float(limit.abs().mean()))
    for n, error in zip(found.evaluations, found.errors, strict=True):
        assert len(error.values) == 6
        assert error.mean == pytest.approx(expected / math.sqrt(n), rel=0.1)
    assert found.needed(expected / math.sqrt(30)) == pytest.approx(30, rel=0.25)


def test_evaluations_needed_lie_on_a_straight_line_between_those_measured():
    curve = Convergence((10, 40, 160), tuple(interval([value]) for value in (0.8, 0.4, 0.1)), 1.0)
    assert curve.needed(0.8) == 10
    assert curve.needed(2.0) == 10
    assert curve.needed(0.4) == pytest.approx(40)
    assert curve.needed(0.8 / math.sqrt(2)) == pytest.approx(20)
    assert curve.needed(0.2) == pytest.approx(80)
    assert curve.needed(0.05) == math.inf
    exact = Convergence((1, 2), (interval([0.3]), interval([0.0])), 1.0)
    assert exact.needed(0.0) == exact.needed(0.1) == 2


def test_runtime_counts_a_thousand_explanations():
    calls = []

    def explain():
        calls.append(1)
        time.sleep(0.02)

    found = runtime(explain, examples=10, repeats=2)
    assert len(calls) == 3
    assert len(found.values) == 2
    assert found.mean > 1.9  # a sleep is never shorter than asked for


@pytest.mark.parametrize(
    "arguments", [{"evaluations": []}, {"evaluations": [4, 2]}, {"evaluations": [0]}, {"repeats": 0}]
)
def test_what_cannot_converge_is_refused(arguments):
    with pytest.raises(ArgumentError):
        convergence(lambda n, seed: numbers(2, 2), numbers(2, 2), **{"evaluations": [1, 2], **arguments})
    with pytest.raises(ShapeError):
        convergence(lambda n, seed: numbers(2, 3), numbers(2, 2), [1])
    with pytest.raises(ArgumentError):
        runtime(lambda: None, 0)


def game(x):
    return (x[:, 0] * x[:, 1] - x[:, 2]).tanh() + x[:, 3] * x[:, 4].exp() * (1 + x[:, 5])


#: three groups of six features; the last feature is in none
GROUPS = torch.tensor([[1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 1, 0, 1, 0]]).bool()


def test_shapley_values_are_the_mean_gain_over_all_orders():
    x, baseline = numbers(5, 6), numbers(1, 6, seed=1)
    found = exact_shapley(game, x, GROUPS, baseline=baseline)
    expected = torch.zeros(5, 3, dtype=torch.float64)
    orders = list(itertools.permutations(range(3)))
    for order in orders:
        shown = torch.where(GROUPS.any(0), baseline, x)
        for group in order:
            more = torch.where(GROUPS[group], x, shown)
            expected[:, group] += (game(more) - game(shown)) / len(orders)
            shown = more
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    gain = game(x) - game(torch.where(GROUPS.any(0), baseline, x))
    torch.testing.assert_close(found.sum(1), gain, rtol=0, atol=1e-13)


def test_two_players_are_a_group_and_everything_else():
    x = numbers(5, 6)
    found = exact_shapley(game, x, GROUPS, players="two")
    for group, own in enumerate(GROUPS):
        pair = exact_shapley(game, x, torch.stack([own, ~own]))
        torch.testing.assert_close(found[:, group], pair[:, 0], rtol=0, atol=1e-14)


def test_two_players_are_what_contextual_decomposition_of_a_product_and_a_relu_gives():
    x, groups = numbers(4, 2), torch.eye(2).bool()
    found = rt.contextual_decomposition(lambda x: (x[:, 0] * x[:, 1]).relu()[:, None], x, groups, convention="shapley")
    expected = exact_shapley(lambda x: (x[:, 0] * x[:, 1]).relu(), x, groups, players="two")
    torch.testing.assert_close(found.relevant[..., 0], expected, rtol=0, atol=1e-14)


def test_groups_without_a_truth_are_refused():
    x = numbers(2, 6)
    with pytest.raises(ArgumentError, match="disjoint"):
        exact_shapley(game, x, torch.ones(2, 6).bool())
    with pytest.raises(ArgumentError, match="12"):
        exact_shapley(lambda x: x.sum(1), numbers(2, 13), torch.eye(13).bool())
    with pytest.raises(ArgumentError, match="players"):
        exact_shapley(game, x, GROUPS, players="three")
    with pytest.raises(ShapeError, match="choices"):
        exact_shapley(game, x, GROUPS.float())
