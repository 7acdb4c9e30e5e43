"""How a kernel is held against torch's own function."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rightly.core.kernels import cheap_second_derivatives


def mixed(values: Tensor, seed: int = 0) -> Tensor:
    """A curved scalar of all values, no two alike."""
    weights = torch.randn(values.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (values * weights.to(values)).sin().sum()


def derivatives(value: Tensor, asked: Sequence[Tensor], trained: Sequence[Tensor]) -> list[Tensor]:
    """The value, its gradient for ``asked``, that of the gradient's mixed square for ``trained``, its own for them."""
    first = torch.autograd.grad(value, asked, create_graph=True)
    penalty = sum((mixed(each.square(), k) for k, each in enumerate(first)), value.new_zeros(()))
    second = torch.autograd.grad(penalty, trained, retain_graph=True, allow_unused=True, materialize_grads=True)
    plain = torch.autograd.grad(value, trained, retain_graph=True, allow_unused=True, materialize_grads=True)
    return [value.detach(), *(each.detach() for each in first), *second, *plain]


def agree(
    value: Callable[[], Tensor], asked: Sequence[Tensor], trained: Sequence[Tensor], tolerance: float = 1e-12
) -> None:
    """``value()`` and its derivatives are the same with the kernels and without."""
    expected = derivatives(value(), asked, trained)
    with cheap_second_derivatives():
        found = value()
    for one, other in zip(derivatives(found, asked, trained), expected, strict=True):
        assert torch.allclose(one, other, rtol=tolerance, atol=tolerance * max(1.0, float(other.abs().max())))
