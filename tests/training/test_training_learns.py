"""A linear model ends where the closed form says, with and without priors, however the data come."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import rightly as rt
from training.training_problems import (
    Items,
    bits,
    classification,
    linear,
    mlp,
    normal,
    objective,
    regression,
    ridge,
    same,
)

FULL = {"batch_size": 60, "optimizer": "sgd", "lr": 0.2, "epochs": 200}


def test_plain_training_finds_the_least_squares_solution():
    x, y = regression()
    model = linear()
    run = rt.fit(rt.Objective(model, F.mse_loss), (x, y), **FULL)
    assert torch.allclose(model.weight, ridge(x, y, 0.0), atol=1e-8)
    assert len(run.history) == 200
    assert run.history[-1]["task"] == pytest.approx(F.mse_loss(model(x), y).item(), rel=1e-9)
    assert run.history[0]["task"] == pytest.approx(float((y**2).mean()), rel=1e-12)
    assert run.best_epoch == 199
    assert run.best_value is None
    assert run.stopped == "epochs"
    assert run.weights == run.choices == run.history[0]["terms"] == {}


@pytest.mark.parametrize("weight", [0.05, 1.0])
def test_penalised_gradients_of_a_linear_model_are_ridge_regression(weight):
    x, y = regression()
    model = linear()
    run = rt.fit(rt.Objective(model, F.mse_loss, [rt.Term(rt.Gradient(), rt.priors.L2(), weight)]), (x, y), **FULL)
    assert torch.allclose(model.weight, ridge(x, y, weight), atol=1e-8)
    assert run.history[-1]["terms"]["l2"] == pytest.approx(weight * (model.weight**2).sum().item(), rel=1e-6)
    assert run.weights == {"l2": weight}


@pytest.mark.parametrize("kind", ["memory", "dict", "dataset", "batches"])
def test_annotations_stay_with_their_rows(kind):
    # mean_i sum_j A_ij (x_ij w_j)^2 is a ridge with diagonal mean_i A_ij x_ij^2, other numbers if rows were mixed up
    x, y = regression()
    marked = (normal(60, 4, seed=3) + x.float() > 0.3).double()
    marked[::3] = torch.nan
    diagonal = (marked.nan_to_num() * x**2).mean(0)
    mixed = (marked.nan_to_num().roll(1, 0) * x**2).mean(0)
    data = {
        "memory": (x, y, rt.Annotation(irrelevant=marked)),
        "dict": (x, y, {"irrelevant": marked}),
        "dataset": Items([(x[i], y[i], {"irrelevant": marked[i]}) for i in range(60)]),
        "batches": [(x, y, rt.Annotation(irrelevant=marked))],
    }[kind]
    model = linear()
    term = rt.Term(rt.InputXGradient(), rt.priors.Irrelevant(), 0.5)
    rt.fit(rt.Objective(model, F.mse_loss, [term]), data, **FULL)
    assert torch.allclose(model.weight, ridge(x, y, 0.5 * diagonal), atol=1e-8)
    assert not torch.allclose(model.weight, ridge(x, y, 0.5 * mixed), atol=1e-3)


def test_one_annotation_for_all():
    x, y = regression()
    model = linear()
    marked = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    term = rt.Term(rt.Gradient(), rt.priors.Irrelevant(), 1e4)
    data = (x, y, rt.Annotation(irrelevant=marked))
    rt.fit(rt.Objective(model, F.mse_loss, [term]), data, batch_size=60, lr=0.04, epochs=300)
    assert model.weight.detach()[0, [0, 3]].abs().max() < 1e-3
    assert torch.allclose(model.weight[:, 1:3], ridge(x[:, 1:3], y, 0.0), atol=0.05)


class Stream(IterableDataset):
    """Batches, with a length, as streaming data sets have them."""

    def __init__(self, batches: list) -> None:
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class Fresh:
    """Starts anew at every ``__iter__`` and has no length."""

    def __init__(self, batches: list) -> None:
        self.batches = batches

    def __iter__(self):
        yield from self.batches


X, Y = classification(64)
BATCHES = [(X[i : i + 16], Y[i : i + 16]) for i in range(0, 64, 16)]


@pytest.mark.parametrize(
    "data",
    [
        BATCHES,
        [[x, y] for x, y in BATCHES],
        [(x, y, None) for x, y in BATCHES],
        Fresh(BATCHES),
        Stream(BATCHES),
        DataLoader(TensorDataset(X, Y), 16),
        DataLoader(Stream(BATCHES), None),
    ],
    ids=["tuples", "lists", "no annotation", "iterable", "iterable dataset", "loader", "loader of batches"],
)
def test_the_same_batches_give_the_same_bits_from_any_source(data):
    found = []
    for source in (BATCHES, data):
        trained = objective()
        run = rt.fit(trained, source, epochs=3, lr=0.01)
        found.append((bits(trained), [{**entry} for entry in run.history]))
    # a loader draws a seed of its own for its workers, so dropout differs, and the draws do not
    if isinstance(data, DataLoader):
        plain = [objective(dropout=0.0) for _ in range(2)]
        for one, source in zip(plain, (BATCHES, data), strict=True):
            rt.fit(one, source, epochs=3, lr=0.01)
        assert same(*map(bits, plain))
    else:
        assert same(found[0][0], found[1][0])
        assert found[0][1] == found[1][1]


def test_memory_and_a_dataset_are_shuffled_alike():
    sources = [(X, Y), TensorDataset(X, Y), Items(list(zip(X, Y, strict=True)))]
    trained = [objective(dropout=0.0) for _ in sources]
    for one, source in zip(trained, sources, strict=True):
        rt.fit(one, source, epochs=2, batch_size=10, lr=0.01)
    assert same(bits(trained[0]), bits(trained[1]))
    assert same(bits(trained[0]), bits(trained[2]))


class Two(nn.Module):
    """A model with two inputs; only their sum counts."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()

    def forward(self, first, second, scale=1.0):
        return self.inner(first + second) * scale


@pytest.mark.parametrize("collated", [False, True])
@pytest.mark.parametrize("kind", ["tuple", "dict"])
def test_inputs_of_several_parts(kind, collated):
    inputs = (X / 4, 3 * X / 4) if kind == "tuple" else {"second": 3 * X / 4, "first": X / 4}
    data = (inputs, Y)
    if collated and kind == "tuple":
        data = Items([((inputs[0][i], inputs[1][i]), Y[i]) for i in range(len(Y))])
    elif collated:
        data = Items([({name: part[i] for name, part in inputs.items()}, Y[i]) for i in range(len(Y))])
    plain, parted = rt.Objective(mlp(), F.cross_entropy), rt.Objective(Two(), F.cross_entropy)
    expected = rt.fit(plain, (X, Y), (X, Y), epochs=2, batch_size=16, lr=0.01)
    found = rt.fit(parted, data, (inputs, Y), epochs=2, batch_size=16, lr=0.01)
    for name, value in bits(plain.model).items():
        assert torch.allclose(bits(parted.model.inner)[name], value, atol=1e-6), name
    assert found.best_value == pytest.approx(expected.best_value, rel=1e-5)


def test_a_last_batch_of_one_joins_the_one_before_so_that_batch_norm_can_train():
    sizes = []

    def loss(outputs, labels):
        sizes.append(len(labels))
        return F.cross_entropy(outputs, labels)

    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    rt.fit(rt.Objective(model, loss), (X[:33], Y[:33]), epochs=1, batch_size=16)
    assert sizes == [16, 17]
    sizes.clear()
    rt.fit(rt.Objective(mlp(), loss), (X[:5], Y[:5]), epochs=1, batch_size=1)
    assert sizes == [1] * 5
    sizes.clear()
    rt.fit(rt.Objective(mlp(), loss), (X[:1], Y[:1]), epochs=1)
    assert sizes == [1]


def test_every_example_is_seen_once_an_epoch_in_a_new_order():
    seen = []

    def loss(outputs, labels):
        seen.extend(labels.tolist())
        return outputs.mean()

    rt.fit(rt.Objective(nn.Linear(6, 1), loss), (X, torch.arange(64)), epochs=2, batch_size=10, seed=3)
    first, second = seen[:64], seen[64:]
    assert sorted(first) == sorted(second) == list(range(64))
    assert first != second
    assert first != sorted(first)
