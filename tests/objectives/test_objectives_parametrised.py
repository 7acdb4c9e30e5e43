"""Weights that are computed from others, and what learns beside the model: seen as it acts, left as it is."""

from __future__ import annotations

import importlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm

import rightly as rt
from contracts.derivatives import check_term
from contracts.problems import normal
from rightly.core import distributed
from rightly.objectives.weights import weight_count

preflight = importlib.import_module("rightly.objectives.check")

WRAPPED = {"weight": weight_norm, "spectral": spectral_norm, "orthogonal": orthogonal}
BY_DEFINITION = {"l1": lambda w: w.abs().sum(), "l2": lambda w: w.square().sum()}


def net(wrap, layer: str = "linear") -> nn.Module:
    torch.manual_seed(0)
    first = nn.Linear(4, 5) if layer == "linear" else nn.Conv1d(4, 6, 3, groups=2)
    return nn.Sequential(wrap(first), nn.ReLU(), nn.Linear(5, 1)).double()


@pytest.mark.parametrize("penalty", BY_DEFINITION)
@pytest.mark.parametrize("layer", ["linear", "conv"])
@pytest.mark.parametrize("name", WRAPPED)
def test_a_parametrised_weight_counts_once_as_it_acts(name, layer, penalty):
    model = net(WRAPPED[name], layer)
    weights = [model.eval()[0].weight, model.train()[2].weight]
    for which, of in (("first", weights[:1]), ("all", weights)):
        expected = sum(BY_DEFINITION[penalty](w) for w in of)
        assert rt.WeightTerm(penalty, which).of(model).item() == pytest.approx(expected.item(), rel=1e-12)
        with torch.no_grad():
            assert rt.WeightTerm(penalty, which).of(model).item() == pytest.approx(expected.item(), rel=1e-12)
        assert weight_count(model, which) == sum(w.numel() for w in of)


def test_groups_are_those_of_the_layer():
    # weights (2 inputs, 3 outputs a group), as a transposed layer counts them
    model = weight_norm(nn.ConvTranspose1d(2, 3, 1, bias=False))
    w = model.weight.detach()
    expected = w.abs().sum() + 3**0.5 * w.flatten(1).norm(dim=1).sum()
    assert rt.WeightTerm("sparse_group_lasso").of(model).item() == pytest.approx(expected.item(), rel=1e-6)


def test_looking_at_a_spectral_norm_does_not_move_it():
    model = net(spectral_norm).train()
    before = [buffer.clone() for buffer in model.buffers()]
    rt.WeightTerm().of(model).backward()
    assert before
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
    assert all(module.training for module in model.modules())


def test_a_parametrised_weight_has_the_right_gradient():
    objective = rt.Objective(net(weight_norm), F.mse_loss, [rt.WeightTerm("l2")])
    check_term(objective, normal(3, 4, seed=1), normal(3, 1, seed=2))


def test_a_frozen_parametrised_weight_is_left_alone():
    model = net(weight_norm)
    model[0].requires_grad_(False)
    assert rt.WeightTerm().of(model).item() == pytest.approx(model[2].weight.abs().sum().item())


def learning() -> rt.Objective:
    torch.manual_seed(0)
    predictor = nn.Sequential(nn.Linear(2, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 1))
    prior = rt.priors.MetaFeatures(normal(4, 2, seed=1).float(), predictor)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2))
    return rt.Objective(model, F.cross_entropy, [rt.Term(rt.Gradient(), prior)]).train()


@pytest.mark.parametrize("ask", ["ratios", "penalty", "expected"])
def test_asking_a_predictor_moves_nothing_and_draws_nothing(ask):
    objective, inputs, labels = learning(), normal(8, 4, seed=2).float(), torch.arange(8) % 2
    before = {name: value.clone() for name, value in objective.named_buffers()}
    state = torch.get_rng_state()
    with torch.no_grad():
        found = [
            {
                "ratios": lambda: torch.tensor(list(objective.ratios([(inputs, labels)]).values())),
                "penalty": lambda: objective.penalty(objective.terms[0], inputs, labels),
                "expected": lambda: objective.terms[0].prior.expected(),
            }[ask]()
            for _ in range(2)
        ]
    assert torch.equal(*found)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in objective.named_buffers())
    assert all(module.training for module in objective.modules())


def test_training_a_predictor_does_move_its_statistics():
    objective, inputs, labels = learning(), normal(8, 4, seed=2).float(), torch.arange(8) % 2
    before = objective.learned[0][1].running_mean.clone()
    objective(inputs, labels).total.backward()
    assert not torch.equal(before, objective.learned[0][1].running_mean)


class SeenError(Exception):
    """Where the numbers were."""


def test_sums_travel_from_the_device_of_the_data(monkeypatch):
    def reduce(total):
        raise SeenError(total.device.type)

    assert distributed.summed([1.0, 2.0], torch.device("meta")) == [1.0, 2.0]
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed.dist, "all_reduce", reduce)
    with pytest.raises(SeenError, match="meta"):
        distributed.summed([1.0, 2.0], torch.device("meta"))


def test_a_device_that_works_by_itself_is_waited_for(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: waited.append(device.type))
    for name in ("cpu", "cuda", "mps"):
        preflight._wait_for(torch.device(name))
    assert waited == ["cuda", "mps"]
    told = []
    monkeypatch.setattr(preflight, "_wait_for", lambda device: told.append(device.type))
    objective = learning()
    preflight._seconds(objective, lambda o: o.model(torch.ones(2, 4)).sum(), repeats=2)
    assert told == ["cpu"] * 6
