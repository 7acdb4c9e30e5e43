"""Low precision, small regions and small numbers: what float64 tests of calibrated models cannot see."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import rightly as rt
from contracts.problems import draws, normal
from rightly.core.kernels.share import share


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_a_little_rest_is_not_nothing(dtype):
    """A layer of which the part is all but one unit: its share of the whole layer rounds to one."""
    whole = torch.ones(1, 20_000, dtype=dtype)
    part = whole.clone()
    part[0, 0] = 0
    own, shift = torch.full((), 0.5, dtype=dtype), torch.full((), 0.5, dtype=dtype)
    found = share(part, whole + shift, shift, own, (1,), 0.01)
    assert found[0, 0] < 0.01
    assert abs(float(found[0, 1]) - 1.5) < 0.01


@pytest.mark.parametrize("scale", [1e-1, 1e-2, 1e-3])
def test_small_parts_keep_their_bias_in_single_precision(scale):
    """An input that is so much smaller than the others."""
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.copy_(normal(*parameter.shape, seed=number) * 0.5)
    inputs = normal(2, 8, seed=9)
    inputs[:, 0] *= scale
    region = torch.arange(8)[None] == 0
    exact = rt.contextual_decomposition(model.double(), inputs, region).relevant
    found = rt.contextual_decomposition(model.float(), inputs.float(), region).relevant
    assert (found - exact).abs().max() <= 2e-5 * exact.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_totals_of_a_quiet_lstm_are_its_own(dtype):
    """Small weights: what is near zero is not told by a difference from one half."""
    layer = nn.LSTM(5, 7, batch_first=True)
    with torch.no_grad():
        for number, parameter in enumerate(layer.parameters()):
            parameter.copy_(normal(*parameter.shape, seed=number) * 0.01)
    layer, inputs = layer.to(dtype), normal(2, 6, 5, seed=9).to(dtype)

    def last(x):
        return layer(x)[0][:, -1]

    masks = torch.rand(4, 6, 1, generator=draws(1)).round().bool().expand(4, 6, 5)
    found = rt.contextual_decomposition(last, inputs, masks).outputs
    with torch.no_grad():
        own = last(inputs)
    assert (found - own).abs().max() <= 8 * torch.finfo(dtype).eps * own.abs().max()


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-6])
def test_shares_of_what_has_no_value_at_zero_know_the_parts(scale):
    """1 / x of a sum of 3, 1, 2, 2: a part gets of it what it is of the sum."""
    inputs = torch.tensor([[3.0, 1.0, 2.0, 2.0]]) * scale
    regions = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 0]], dtype=torch.bool)
    found = rt.contextual_decomposition(lambda x: torch.reciprocal(x.sum(1, keepdim=True)), inputs, regions)
    shares = found.relevant[0, :, 0] / found.outputs[0, 0]
    torch.testing.assert_close(shares, torch.tensor([0.375, 0.125, 0.75]), rtol=1e-5, atol=0)
