"""Functions in the place of torch's own: third derivatives that are right, and no pass that undoes the replacing."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import rightly as rt
from contracts.problems import initialised, normal
from rightly.core.errors import ArgumentError
from rightly.core.replacing import THRICE, replacing

WEIGHT, BIAS, WIDE = normal(4, seed=1), normal(4, seed=2), normal(5, seed=3)


def native_batch_norm(x):
    return torch.native_batch_norm(x, None, None, None, None, True, 0.1, 1e-3)


NORMALISED = {
    "F.layer_norm": lambda x: F.layer_norm(x, (5,), WIDE),
    "torch.layer_norm": lambda x: torch.layer_norm(x, (5,), WIDE, None, 1e-3),
    "torch.native_layer_norm": lambda x: torch.native_layer_norm(x, (5,), WIDE, None, 1e-3)[0],
    "its means": lambda x: torch.native_layer_norm(x, (4, 5), None, None, 1e-3)[1] * x,
    "its deviations": lambda x: torch.native_layer_norm(x, (4, 5), None, None, 1e-3)[2] * x,
    "F.instance_norm": lambda x: F.instance_norm(x, weight=WEIGHT, bias=BIAS),
    "torch.instance_norm": lambda x: torch.instance_norm(x, WEIGHT, BIAS, None, None, True, 0.1, 1e-3, False),
    "F.batch_norm": lambda x: F.batch_norm(x, None, None, WEIGHT, BIAS, training=True),
    "torch.batch_norm": lambda x: torch.batch_norm(x, WEIGHT, BIAS, None, None, True, 0.1, 1e-3, False),
    "torch.native_batch_norm": lambda x: torch.native_batch_norm(x, WEIGHT, BIAS, None, None, True, 0.1, 1e-3)[0],
    "the batch's means": lambda x: native_batch_norm(x)[1][:, None] * x,
    "the batch's deviations": lambda x: native_batch_norm(x)[2][:, None] * x,
}


@pytest.mark.parametrize("name", NORMALISED)
def test_normalisation_is_the_same_and_has_a_third_derivative(name):
    function, x = NORMALISED[name], normal(3, 4, 5, seed=4).requires_grad_()

    def gradient(x: Tensor) -> Tensor:
        with replacing(THRICE) as mode:
            out = function(x)
        assert mode.seen.total() == 1
        assert torch.allclose(out, function(x), rtol=1e-12, atol=1e-12)
        return torch.autograd.grad((out.tanh() * normal(3, 4, 5, seed=5)).sum(), x, create_graph=True)[0]

    assert torch.autograd.gradgradcheck(gradient, (x,))


@pytest.mark.parametrize("name", ["torch.batch_norm", "torch.instance_norm"])
def test_statistics_that_are_given_are_taken(name):
    x, mean, spread = normal(3, 4, 5, seed=4), normal(4, seed=6), normal(4, seed=7).exp()
    function = {"torch.batch_norm": torch.batch_norm, "torch.instance_norm": torch.instance_norm}[name]
    arguments = (x, WEIGHT, BIAS, mean, spread, False, 0.1, 1e-3, False)
    with replacing(THRICE) as mode:
        found = function(*arguments)
    assert mode.seen.total() == 1
    shaped = [part[:, None] for part in (mean, spread, WEIGHT, BIAS)]
    expected = (x - shaped[0]) / (shaped[1] + 1e-3).sqrt() * shaped[2] + shaped[3]
    assert torch.allclose(found, expected, rtol=1e-12)


class Kept(nn.Module):
    """A network that computes its middle again in the backward pass."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.first, self.second, self.reentrant = nn.Linear(4, 5), nn.Linear(5, 2), reentrant
        initialised(self)

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(self.first(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(checkpoint(self.middle, x, use_reentrant=self.reentrant))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_inside_a_smoothed_model_is_refused(reentrant):
    smooth, x = rt.models.smoothed(Kept(reentrant)), normal(3, 4, seed=1).requires_grad_()
    with pytest.raises(ArgumentError, match="activation checkpointing would undo"):
        smooth(x)
    with torch.no_grad():  # nothing is computed again
        assert smooth(x).shape == (3, 2)


def test_checkpointing_around_a_smoothed_model_is_right():
    smooth, x = rt.models.smoothed(initialised(nn.Sequential(nn.Linear(4, 5), nn.ReLU()))), normal(3, 4, seed=1)
    plain, kept = (x.clone().requires_grad_() for _ in range(2))
    smooth(plain).square().sum().backward()
    checkpoint(smooth, kept, use_reentrant=False).square().sum().backward()
    assert torch.equal(plain.grad, kept.grad)


def test_replacing_holds_no_frame():
    class Watched:
        pass

    gone = []

    def inside() -> None:
        watched = Watched()
        weakref.finalize(watched, gone.append, True)
        with replacing({torch.relu: torch.sigmoid}):
            torch.relu(torch.zeros(1))

    inside()
    gc.collect()
    assert gone
