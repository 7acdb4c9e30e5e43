"""Local accuracy, convergence and runtime: closed forms, rates that are known, and refusals."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch

import rightly as rt
from rightly.core.errors import ArgumentError, ShapeError
from rightly.evaluation import Convergence, convergence, interval, local_accuracy, runtime


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
