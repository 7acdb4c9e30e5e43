"""Kinks rounded off: found wherever they are called, with the model itself left as it is."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rightly as rt
from contracts.problems import initialised, normal
from rightly.core.errors import ArgumentError


class Functions(nn.Module):
    """ReLU in all its spellings."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        h = F.relu(h) + torch.relu(h - 0.1) + (h - 0.2).relu()
        changed = h - 1
        changed.relu_()
        torch.relu_(changed)
        F.relu(changed, True)
        return self.second(changed)


LAYERS = {
    "relu": (nn.ReLU(), {"relu": 1}),
    "relu in place": (nn.ReLU(inplace=True), {"relu": 1}),
    "leaky relu": (nn.LeakyReLU(0.2), {"leaky_relu": 1}),
    "relu6": (nn.ReLU6(), {"hardtanh": 1}),
    "hard tanh": (nn.Hardtanh(-0.5, 0.7, inplace=True), {"hardtanh": 1}),
    "prelu": (nn.PReLU(5), {"prelu": 1}),
}


def _net(layer: nn.Module) -> nn.Module:
    return initialised(nn.Sequential(nn.Linear(4, 5), copy.deepcopy(layer), nn.Linear(5, 2)))


@pytest.mark.parametrize("name", LAYERS)
def test_a_sharp_bend_is_nearly_the_model_and_a_soft_one_has_curvature(name):
    layer, expected = LAYERS[name]
    model, x = _net(layer), normal(6, 4, seed=1)
    sharp = rt.models.smoothed(model, 1e6)
    assert torch.allclose(sharp(x), model(x), atol=1e-5)
    assert sharp.swapped == expected
    soft = rt.models.smoothed(model)
    method = rt.IntegratedHessians(pairs=torch.tensor([[0, 1], [2, 3]]), target=0)
    assert not method(model, x).attributions.any()
    assert method(soft, x).attributions.abs().min() > 1e-8


def test_functions_are_found_in_every_spelling():
    model, x = initialised(Functions()), normal(6, 4, seed=1)
    sharp = rt.models.smoothed(model, 1e6)
    assert torch.allclose(sharp(x), model(x), atol=1e-5)
    assert sharp.swapped == {"relu": 6}
    h = model.first(x)
    h = sum(F.softplus(h - shift, 3.0) for shift in (0, 0.1, 0.2)) - 1
    for _ in range(3):
        h = F.softplus(h, 3.0)
    assert torch.allclose(rt.models.smoothed(model, 3.0)(x), model.second(h), atol=1e-12)


def test_relu6_as_a_function():
    x = torch.linspace(-2, 8, 21, dtype=torch.float64)[:, None]

    class Six(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu6(x) + F.leaky_relu(x, 0.3)

    assert torch.allclose(rt.models.smoothed(Six(), 1e6)(x), Six()(x), atol=1e-5)


def test_prelu_has_a_slope_a_channel():
    model, x = initialised(nn.Sequential(nn.Conv2d(1, 3, 2), nn.PReLU(3))), normal(2, 1, 4, 4, seed=1)
    assert torch.allclose(rt.models.smoothed(model, 1e6)(x), model(x), atol=1e-5)


def test_the_weights_are_shared_and_the_model_is_left_alone():
    model, x = _net(nn.ReLU()).eval(), normal(6, 4, seed=1)
    before, modes = model(x).clone(), [module.training for module in model.modules()]
    smooth = rt.models.smoothed(model)
    assert not smooth.training
    assert torch.equal(model(x), before)
    assert [p is q for p, q in zip(smooth.parameters(), model.parameters(), strict=True)] == [True] * 4
    assert [module.training for module in model.modules()] == modes
    rt.fit(rt.Objective(smooth, F.cross_entropy), (x, torch.tensor([0, 1] * 3)), epochs=1)
    assert not torch.equal(model(x), before)


def test_interactions_of_a_relu_net_can_be_trained_through_its_smooth_self():
    model, x, y = _net(nn.ReLU()), normal(6, 4, seed=1), torch.tensor([0, 1] * 3)
    off = rt.IntegratedHessians(n_steps=8, pairs=torch.combinations(torch.arange(4)))
    smooth = rt.models.smoothed(model)
    before = off(smooth, x, y).attributions.abs().sum()
    rt.fit(rt.Objective(smooth, F.cross_entropy, [rt.Term(off, rt.priors.L1(), 30.0)]), (x, y), epochs=30, lr=0.03)
    assert off(smooth, x, y).attributions.abs().sum() < before / 3


def test_what_cannot_be_smoothed_is_told():
    smooth = rt.models.smoothed(nn.Sequential(nn.Linear(4, 2), nn.Tanh()))
    with pytest.raises(ArgumentError, match="no ReLU in this model"):
        smooth(torch.ones(1, 4))
    with pytest.raises(ArgumentError, match="a model is smoothed"):
        rt.models.smoothed(torch.relu)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="beta"):
        rt.models.smoothed(nn.ReLU(), 0.0)
