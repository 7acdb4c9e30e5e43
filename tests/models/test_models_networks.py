"""The papers' networks: their shapes, their sizes, their seeds."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

import rightly as rt
from rightly.core.errors import ArgumentError


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("n_in", "hidden", "n_out"),
    [(784, (50, 30), 10), (118, (512, 128, 32), 1), (3, (), 2), (5, [7], 1), (12, (4, 4), 3)],
)
def test_mlp_has_the_parameters_that_its_sizes_say(n_in, hidden, n_out):
    sizes = [n_in, *hidden, n_out]
    model = rt.models.mlp(n_in, hidden, n_out)
    assert count(model) == sum((a + 1) * b for a, b in itertools.pairwise(sizes))
    assert model(torch.zeros(4, n_in)).shape == (4, n_out)
    layers = [part for part in model if isinstance(part, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == list(itertools.pairwise(sizes))
    assert isinstance(model[-1], nn.Linear)
    assert sum(isinstance(part, nn.ReLU) for part in model) == len(hidden)


def test_the_papers_sizes():
    assert count(rt.models.mlp(784, (50, 30), 10)) == 784 * 50 + 50 + 50 * 30 + 30 + 30 * 10 + 10 == 41_090
    assert count(rt.models.mlp(118, (512, 128, 32), 1)) == 130_753
    # two convolutions, three norms of two parameters a channel, two dense layers
    convolutions = 25 * 32 + 32 + 25 * 32 * 64 + 64
    assert count(rt.models.paper_cnn()) == convolutions + 2 * (32 + 64 + 1024) + 3136 * 1024 + 1024 + 1024 * 10 + 10


def test_mlp_flattens_and_drops_out_after_every_hidden_layer():
    model = rt.models.mlp(12, (5, 4), 2, dropout=0.25)
    assert model(torch.zeros(3, 3, 2, 2)).shape == (3, 2)
    assert [part.p for part in model if isinstance(part, nn.Dropout)] == [0.25, 0.25]
    assert not any(isinstance(part, nn.Dropout) for part in rt.models.mlp(12, (5, 4), 2))


@pytest.mark.parametrize(
    ("channels", "size", "width", "n_out"), [(1, 28, 16, 10), (3, 32, 8, 2), (1, 4, 3, 1), (2, 30, 5, 4), (1, 31, 5, 4)]
)
def test_paper_cnn_takes_images_of_any_size(channels, size, width, n_out):
    model = rt.models.paper_cnn(n_out, channels=channels, size=size, width=width)
    images = torch.zeros(3, channels, size, size)
    assert model(images).shape == (3, n_out)
    assert model[:3](images).shape == (3, 32, size, size)  # padding keeps the size
    assert model[:8](images).shape == (3, 64, size // 4, size // 4)


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: rt.models.mlp(6, (5,), 2, seed=seed),
        lambda seed: rt.models.paper_cnn(2, size=8, width=4, seed=seed),
    ],
)
def test_a_seed_decides_the_weights_and_leaves_the_global_state_alone(make):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again, other = make(0), make(0), make(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
    unseeded = make(None)
    assert not torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(3)
    assert all(torch.equal(a, b) for a, b in zip(unseeded.parameters(), make(None).parameters(), strict=True))


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: rt.models.mlp(0, (5,), 2), "size"),
        (lambda: rt.models.mlp(4, (5, 0), 2), "size"),
        (lambda: rt.models.mlp(4, (5,), 2.0), "2.0"),
        (lambda: rt.models.paper_cnn(size=3), "size"),
        (lambda: rt.models.paper_cnn(channels=0), "channels"),
        (lambda: rt.models.paper_cnn(0), "n_out"),
        (lambda: rt.models.paper_cnn(width=0), "width"),
    ],
)
def test_impossible_sizes_are_refused(make, word):
    with pytest.raises(ArgumentError, match=word):
        make()


def test_networks_can_be_differentiated_twice():
    for model, shape in ((rt.models.mlp(6, (5,), 2), (3, 6)), (rt.models.paper_cnn(2, size=8, width=4), (3, 1, 8, 8))):
        objective = rt.Objective(
            model,
            nn.functional.cross_entropy,
            [rt.Term(rt.Gradient(), rt.priors.L2(), 1.0)],
        )
        report = objective(torch.randn(shape, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0]))
        report.total.backward()
        assert report.terms["l2"].penalty > 0
