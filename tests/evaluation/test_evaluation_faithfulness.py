"""Infidelity and sensitivity: closed forms on linear models, plain loops, and explanations wrong on purpose."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

import rightly as rt
from rightly.core import seeding
from rightly.core.errors import ArgumentError, ShapeError
from rightly.evaluation import Explainer, Gaussian, Removal, attribution_sensitivity, infidelity

WEIGHTS = torch.tensor([2.0, -1.0, 0.5, 3.0], dtype=torch.float64)


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeding.generator("faithful", seed), dtype=torch.float64)


def linear(x: Tensor) -> Tensor:
    return x @ WEIGHTS + 1


def curved(x: Tensor) -> Tensor:
    return torch.tanh(x @ WEIGHTS) + x[:, 0] * x[:, 1]


@pytest.mark.parametrize("change", [Gaussian(0.3), Removal(0.5)])
def test_the_gradient_of_a_linear_model_is_faithful_and_nothing_is_not(change: Gaussian | Removal) -> None:
    x = draws(5, 4)
    right = infidelity(WEIGHTS.expand(5, 4), linear, x, change)
    assert right.values.tolist() == pytest.approx([0] * 5, abs=1e-20)
    nothing = infidelity(torch.zeros(5, 4), linear, x, change)
    assert nothing.mean == pytest.approx(1)


def test_infidelity_of_a_wrong_gradient_has_a_closed_form() -> None:
    """E (I . (w' - w))^2 = sd^2 |w' - w|^2."""
    wrong = draws(3, 4, seed=3)
    found = infidelity(wrong, linear, draws(3, 4), Gaussian(0.5), n_samples=4000)
    assert found.values.tolist() == pytest.approx((0.25 * ((wrong - WEIGHTS) ** 2).sum(1)).tolist(), rel=0.1)
    assert found.scale == pytest.approx(0.25 * float(WEIGHTS @ WEIGHTS), rel=0.1)


def test_infidelity_is_a_plain_loop() -> None:
    x, phi, change = draws(3, 4), draws(3, 4, seed=1), Removal(0.4, 0.2)
    found = infidelity(phi, curved, x, change, n_samples=7, seed=5)
    best = infidelity(phi, curved, x, change, n_samples=7, seed=5, scaled=True)
    generator = seeding.generator("infidelity", 5)
    moves = [change(x, generator) for _ in range(7)]
    for b in range(3):
        told = [float(move[b] @ phi[b]) for move in moves]
        true = [float(curved(x[b : b + 1]) - curved(x[b : b + 1] - move[b])) for move in moves]
        assert float(found.values[b]) == pytest.approx(sum((t - h) ** 2 for t, h in zip(told, true, strict=True)) / 7)
        # the best factor, found by looking at many
        errors = [
            sum((factor * t - h) ** 2 for t, h in zip(told, true, strict=True)) / 7
            for factor in torch.linspace(-20, 20, 40001).tolist()
        ]
        assert float(best.values[b]) == pytest.approx(min(errors), rel=1e-4)


def test_scaling_judges_the_direction_alone() -> None:
    x = draws(4, 4)
    wrong_size = infidelity(7 * WEIGHTS.expand(4, 4), linear, x, Gaussian(0.3))
    assert wrong_size.mean > 10
    assert infidelity(7 * WEIGHTS.expand(4, 4), linear, x, Gaussian(0.3), scaled=True).largest < 1e-20
    turned = infidelity(-draws(4, 4, seed=8), linear, x, Gaussian(0.3), scaled=True)
    assert turned.mean > 0.1
    assert infidelity(torch.zeros(4, 4), linear, x, Gaussian(0.3), scaled=True).mean == pytest.approx(1)


def test_removal_changes_its_share_to_the_value() -> None:
    x = draws(200, 30)
    moved = x - Removal(0.3, 0.7)(x, seeding.generator(0))
    gone = moved != x
    assert float(gone.double().mean()) == pytest.approx(0.3, abs=0.02)
    assert torch.allclose(moved[gone], torch.tensor(0.7, dtype=torch.float64))


def test_sensitivity_is_a_plain_loop() -> None:
    model = rt.models.mlp(4, [6], 2, seed=0).double()
    x = draws(3, 4)
    explainer = Explainer.of("gradient", model, x)
    explain = partial(explainer, model)
    found = attribution_sensitivity(explain, x, radius=0.5, n_samples=6, seed=2)
    plain = attribution_sensitivity(explain, x, radius=0.5, n_samples=6, seed=2, relative=False)
    generator = seeding.generator("sensitivity", 2)
    moved = [x + 0.5 * (2 * torch.rand(3, 4, generator=generator, dtype=torch.float64) - 1) for _ in range(6)]
    for b in range(3):
        before = explain(x)[b]
        gaps = [float((explain(near)[b] - before).norm()) for near in moved]
        assert float(plain.largest[b]) == pytest.approx(max(gaps))
        assert float(plain.mean[b]) == pytest.approx(sum(gaps) / 6)
        assert float(found.largest[b]) == pytest.approx(max(gaps) / float(before.norm()))


def test_sensitivity_of_known_explanations() -> None:
    x = draws(4, 3)
    still = attribution_sensitivity(lambda x: torch.ones_like(x), x, radius=1)
    assert still.largest.tolist() == [0] * 4
    own = attribution_sensitivity(lambda x: x, x, radius=0.1, n_samples=500, relative=False)
    assert bool((own.largest <= 0.1 * 3**0.5).all())
    assert bool((own.largest > 0.14).all())
    wild = attribution_sensitivity(lambda x: torch.sin(1e6 * x), x, radius=0.1)
    assert bool((wild.mean > 0.5).all())


def test_what_cannot_be_measured_is_refused() -> None:
    x = draws(3, 4)
    with pytest.raises(ArgumentError, match="against inputs"):
        infidelity(x[:, :2], linear, x, Gaussian(1))
    with pytest.raises(ArgumentError, match="n_samples"):
        infidelity(x, linear, x, Gaussian(1), n_samples=0)
    with pytest.raises(ArgumentError, match="sd"):
        Gaussian(0)
    with pytest.raises(ArgumentError, match="radius"):
        attribution_sensitivity(lambda x: x, x, radius=-1)
    with pytest.raises(ArgumentError, match="one tensor"):
        infidelity(x, linear, x.long(), Gaussian(1))
    shapes = iter([x, x[:, :2]])
    with pytest.raises(ShapeError, match="change their shape"):
        attribution_sensitivity(lambda x: next(shapes), x, radius=1)
