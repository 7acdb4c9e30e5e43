"""The networks of the recipe: the small one of the reduced size, and the VGG16 of the others."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn

from rightly.workflows import reproduce as reproductions


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("recipe", reproductions.EXPERIMENTS / "ross2018/cifar_attacks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def count(model, kind):
    return sum(isinstance(layer, kind) for layer in model.modules())


def test_every_size_has_a_network_for_its_pictures(recipe):
    convolutions = {}
    for size, sizes in recipe.SIZES.items():
        if size == "full":  # made as the narrow one is, and large
            continue
        model = recipe.network(sizes.width, 0)
        assert model(torch.rand(3, 3, 32, 32)).shape == (3, 10)
        assert count(model, nn.BatchNorm2d) == count(model, nn.Conv2d)
        convolutions[size] = count(model, nn.Conv2d)
    assert convolutions == {"smoke": 13, "reduced": 2}


@pytest.mark.parametrize("width", [None, 2])
def test_the_seed_makes_the_network(recipe, width):
    first, again, other = (
        torch.cat([weights.flatten() for weights in recipe.network(width, seed).parameters()]) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_only_the_wide_network_drops_out(recipe):
    assert count(recipe.network(64, 0), nn.Dropout) > 0
    assert count(recipe.network(8, 0), nn.Dropout) == 0
