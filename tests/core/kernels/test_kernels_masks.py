"""ReLU family and max pooling kernels against torch's own, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.kernels.compare import agree, mixed
from rightly.core.kernels import cheap_second_derivatives
from rightly.core.kernels.masks import pool_images
from rightly.core.kernels.mode import RULES

BENT = {
    "F.relu": F.relu,
    "torch.relu": torch.relu,
    "method": lambda x: x.relu(),
    "relu_": lambda x: torch.relu_(x * 1),
    "method_": lambda x: (x * 1).relu_(),
    "inplace": lambda x: F.relu(x * 1, inplace=True),
    "inplace on a view": lambda x: F.relu((x * 1).view(-1, 4)[1:], inplace=True),
    "leaky": lambda x: F.leaky_relu(x, 0.2),
    "leaky inplace": lambda x: F.leaky_relu(x * 1, 0.2, inplace=True),
    "leaky upside down": lambda x: F.leaky_relu(x, -0.5),
    "relu6": F.relu6,
    "hardtanh": lambda x: F.hardtanh(x, -0.3, 0.4),
    "hardtanh inplace": nn.Hardtanh(-0.5, 0.5, inplace=True),
}
POOLS = {
    "1d": (lambda x: F.max_pool1d(x[0], 2), (1, 2, 3, 8)),
    "2d": (lambda x: F.max_pool2d(x, 2), (2, 3, 6, 7)),
    "2d, many channels": (lambda x: F.max_pool2d(x, 2), (2, 9, 6, 7)),
    "2d, many channels, overlapping": (lambda x: F.max_pool2d(x, 3, 2, 1), (2, 9, 6, 7)),
    "2d, channels last": (
        lambda x: F.max_pool2d(x.to(memory_format=torch.channels_last), (2, 3), ceil_mode=True),
        (2, 9, 5, 7),
    ),
    "2d, dilated": (lambda x: F.max_pool2d(x, 2, stride=1, dilation=2), (2, 3, 6, 7)),
    "2d, one image": (lambda x: F.max_pool2d(x[0], 2), (1, 9, 6, 7)),
    "2d, transposed": (lambda x: F.max_pool2d(x.mT, kernel_size=2), (2, 9, 6, 8)),
    "3d": (lambda x: F.max_pool3d(x[None], 2), (2, 4, 4, 5)),
    "adaptive 1d": (lambda x: F.adaptive_max_pool1d(x[0], 3), (1, 2, 3, 8)),
    "adaptive 2d": (lambda x: F.adaptive_max_pool2d(x, (2, 3)), (2, 3, 5, 7)),
    "adaptive 3d": (nn.AdaptiveMaxPool3d(2), (2, 3, 4, 5)),
}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return made.requires_grad_()


@pytest.mark.parametrize("name", BENT)
def test_bent_functions(name: str) -> None:
    inputs, weight = drawn(3, 4, 4), drawn(4, 4, seed=1)
    agree(lambda: mixed(BENT[name](inputs @ weight).square()), [inputs], [inputs, weight])


@pytest.mark.parametrize("name", POOLS)
def test_pools(name: str) -> None:
    pool, shape = POOLS[name]
    inputs, weight = drawn(*shape), drawn(shape[-1], shape[-1], seed=1)
    agree(lambda: mixed(pool(inputs @ weight).square()), [inputs], [inputs, weight])


@pytest.mark.parametrize("channels", [3, 16])
def test_equal_elements_are_chosen_as_torch_does(channels: int) -> None:
    inputs = drawn(2, channels, 6, 6).detach().round().requires_grad_()
    agree(lambda: mixed(F.max_pool2d(inputs.relu(), 2)), [inputs], [inputs])


def test_what_is_no_number_is_chosen_as_torch_does() -> None:
    inputs = drawn(2, 3, 4, 4).detach()
    inputs[0, 0, 0, 1] = inputs[1, 2, 3, 2] = torch.nan
    values, where = F.max_pool2d(inputs, 2, return_indices=True)
    found, there = pool_images(inputs, 2)
    assert torch.equal(there, where)
    assert torch.equal(found.isnan(), values.isnan())


def test_corners_have_the_slope_that_torch_gives_them() -> None:
    inputs = torch.tensor([-1.0, 0.0, 6.0, 7.0], dtype=torch.float64, requires_grad=True)
    for bent in (F.relu, F.relu6, F.leaky_relu, F.hardtanh):
        agree(lambda bent=bent: mixed(bent(inputs)), [inputs], [inputs])


def test_a_third_derivative_is_right() -> None:
    inputs, found = drawn(2, 9, 4, 4), []
    for own in (False, True):
        with cheap_second_derivatives() if own else torch.enable_grad():
            value = mixed(F.max_pool2d(inputs.relu(), 2).pow(4))
        (first,) = torch.autograd.grad(value, inputs, create_graph=True)
        (second,) = torch.autograd.grad(mixed(first), inputs, create_graph=True)
        found.append(torch.autograd.grad(mixed(second), inputs)[0])
    assert torch.allclose(*found, rtol=1e-10)


def test_nothing_second_order_goes_through_the_choice() -> None:
    inputs = drawn(3, 4)
    with cheap_second_derivatives():
        value = F.relu(inputs).sum()
    (gradient,) = torch.autograd.grad(value, inputs, create_graph=True)
    assert not gradient.requires_grad


def test_indices_and_leaves_go_to_torch() -> None:
    inputs = drawn(1, 2, 4, 4)
    with cheap_second_derivatives():
        _, where = F.max_pool2d(inputs, 2, return_indices=True)
        assert torch.equal(where, F.max_pool2d_with_indices(inputs, 2)[1])
        with pytest.raises(RuntimeError, match="leaf"):
            F.relu(inputs, inplace=True)


def test_the_comparison_finds_a_planted_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = drawn(3, 4)
    monkeypatch.setitem(RULES, F.relu, RULES[F.relu6])
    with pytest.raises(AssertionError):
        agree(lambda: mixed(F.relu(8 * inputs)), [inputs], [inputs])


def test_in_a_network() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            *(nn.Conv2d(8, 4, 3), nn.ReLU6(), nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)),
        ).double()
    inputs = drawn(4, 1, 10, 10)
    agree(lambda: mixed(model.eval()(inputs).log_softmax(-1)), [inputs], [inputs, *model.parameters()])
