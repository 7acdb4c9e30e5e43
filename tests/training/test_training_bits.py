"""Bit for bit: plain training is plain training, a seed decides everything, and nothing else is touched."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import rightly as rt
from rightly.core import seeding
from training.training_problems import bits, classification, mlp, normal, objective, same, term

X, Y = classification()


def orders(n: int, batch_size: int, epochs: int, seed: int) -> list[list[torch.Tensor]]:
    """The rows of every batch of every epoch, as ``fit`` shuffles them."""
    return [
        list(torch.randperm(n, generator=seeding.generator(seed, "order", epoch)).split(batch_size))
        for epoch in range(epochs)
    ]


def by_hand(model: nn.Module, optimizer: torch.optim.Optimizer, *, epochs: int, batch_size: int, seed: int) -> None:
    """Plain PyTorch."""
    model.train()
    for epoch, batches in enumerate(orders(len(X), batch_size, epochs, seed)):
        torch.manual_seed(seeding.mix(seed, "epoch", epoch))
        for index in batches:
            optimizer.zero_grad()
            F.cross_entropy(model(X[index]), Y[index]).backward()
            optimizer.step()


@pytest.mark.parametrize("schedule", ["joint", "alternate"])
@pytest.mark.parametrize("weight", [None, 0.0])
def test_weight_zero_is_a_loop_written_by_hand(weight, schedule):
    with torch.random.fork_rng():
        model = mlp()
        by_hand(model, torch.optim.Adam(model.parameters(), lr=0.01), epochs=3, batch_size=16, seed=5)
    trained = objective(weight)
    rt.fit(trained, (X, Y), epochs=3, batch_size=16, lr=0.01, seed=5, schedule=schedule)
    assert same(bits(trained.model), bits(model))


def test_a_positive_weight_is_a_loop_written_by_hand_and_differs_from_plain():
    hand, trained = objective(0.5), objective(0.5)
    optimizer = torch.optim.AdamW(hand.parameters(), lr=0.01, weight_decay=0.1)
    with torch.random.fork_rng():
        for epoch, batches in enumerate(orders(len(X), 16, 3, 5)):
            torch.manual_seed(seeding.mix(5, "epoch", epoch))
            for index in batches:
                optimizer.zero_grad()
                hand(X[index], Y[index]).total.backward()
                optimizer.step()
    settings = {"epochs": 3, "batch_size": 16, "optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1, "seed": 5}
    rt.fit(trained, (X, Y), **settings)
    assert same(bits(trained), bits(hand))
    plain = objective(0.0)
    rt.fit(plain, (X, Y), **settings)
    assert not same(bits(plain.model), bits(trained.model))


@pytest.mark.parametrize("schedule", ["joint", "alternate"])
@pytest.mark.parametrize("weight", [0.5, "balance", "auto"])
def test_the_same_seed_gives_the_same_bits_and_another_one_others(weight, schedule):
    found = []
    for seed, noise in ((1, 0), (1, 1), (2, 0)):
        torch.manual_seed(noise)  # the global state must not matter
        trained = objective(weight)
        run = rt.fit(trained, (X, Y), (X[:30], Y[:30]), epochs=3, batch_size=32, lr=0.01, seed=seed, schedule=schedule)
        found.append((bits(trained), run.history, run.weights, run.choices))
    first, again, other = found
    assert same(first[0], again[0])
    assert first[1:] == again[1:]
    assert not same(first[0], other[0])


@pytest.mark.parametrize("weight", ["balance", "auto"])
def test_a_settled_weight_trains_like_the_same_number_given(weight):
    settings = {"epochs": 4, "batch_size": 32, "lr": 0.01}
    settled = objective(weight)
    run = rt.fit(settled, (X, Y), (X[:30], Y[:30]), **settings)
    given = objective(run.weights["sparsity"])
    rt.fit(given, (X, Y), (X[:30], Y[:30]), **settings)
    assert same(bits(given), bits(settled))


@pytest.mark.parametrize("weight", [0.5, "auto"])
@pytest.mark.parametrize("fails", [False, True])
def test_global_state_modes_and_data_are_left_alone(weight, fails):
    torch.manual_seed(11)
    np.random.seed(11)  # noqa: NPY002 (the global state is what is tested)
    random.seed(11)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))
    model[1].eval()  # frozen by the user
    model[0].weight.requires_grad = False
    frozen = model[0].weight.clone()
    modes = [part.training for part in model.modules()]
    annotation = rt.Annotation(irrelevant=torch.ones(len(X), 6))
    data = [X.clone(), Y.clone(), annotation]
    loader = DataLoader(TensorDataset(X[:40], Y[:40]), 8, shuffle=True)
    before = torch.get_rng_state(), str(np.random.get_state()), random.getstate()  # noqa: NPY002
    trained = rt.Objective(model, F.cross_entropy, [term(weight)])

    def callback(epoch, entry):
        if fails:
            raise KeyboardInterrupt

    def train(source):
        if fails:
            with pytest.raises(KeyboardInterrupt):
                rt.fit(trained, source, loader, epochs=2, batch_size=32, callback=callback)
        else:
            rt.fit(trained, source, loader, epochs=2, batch_size=32, callback=callback)
            assert all(parameter.grad is None for parameter in model.parameters())

    train(tuple(data))
    train(loader)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (str(np.random.get_state()), random.getstate())  # noqa: NPY002
    assert [part.training for part in model.modules()] == modes
    assert trained.training
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * 5
    assert torch.equal(model[0].weight, frozen)
    assert torch.equal(data[0], X)
    assert torch.equal(data[1], Y)
    assert torch.equal(annotation.irrelevant, torch.ones(len(X), 6))
    assert not any(part._forward_hooks or part._backward_hooks for part in model.modules())


def test_a_model_in_eval_mode_trains_with_dropout_and_comes_back_in_eval_mode():
    trained, other = objective(), objective()
    trained.eval()
    for one in (trained, other):
        rt.fit(one, (X, Y), epochs=1)
    assert same(bits(trained), bits(other))
    assert not any(part.training for part in trained.modules())


def test_validation_changes_nothing_but_the_choice_of_the_epoch():
    trained = [objective() for _ in range(3)]
    settings = {"epochs": 3, "batch_size": 16, "lr": 0.01}
    rt.fit(trained[0], (X, Y), **settings)
    rt.fit(trained[1], (X, Y), (X[:20], Y[:20]), restore_best=False, **settings)
    loader = DataLoader(TensorDataset(X[:20], Y[:20]), 7, shuffle=True)
    rt.fit(trained[2], (X, Y), loader, restore_best=False, **settings)
    assert same(bits(trained[0]), bits(trained[1]))
    assert same(bits(trained[0]), bits(trained[2]))


def test_validation_reads_the_model_with_dropout_off_and_statistics_frozen():
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    run = rt.fit(rt.Objective(model, F.cross_entropy), (X, Y), (X[:20], Y[:20]), epochs=1)
    with torch.no_grad():
        expected = float(F.cross_entropy(copy.deepcopy(model).eval()(X[:20]), Y[:20]))
    assert run.best_value == pytest.approx(expected, rel=1e-6)


def test_float64_models_are_validated_in_float64():
    x, y = X.double(), normal(len(X), 1, dtype=torch.float64)
    model = nn.Linear(6, 1).double()
    run = rt.fit(rt.Objective(model, F.mse_loss), (x, y), (x, y), epochs=1)
    with torch.no_grad():
        assert run.best_value == pytest.approx(float(F.mse_loss(model(x), y)), rel=1e-13)
