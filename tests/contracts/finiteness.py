"""Values and gradients that stay finite at the edges."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

WEIGHTS = (1e-10, 1.0, 1e5)


def edges(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Tensor]:
    """Attributions (3, *shape) at which formulas divide by zero, overflow or lose their order."""
    size = torch.Size((3, *shape))
    ramp = torch.linspace(-1, 1, size.numel()).reshape(size)
    tiny, huge = (1e-7, 6e4) if dtype == torch.float16 else (1e-30, 1e15)
    return {
        "zeros": torch.zeros(size, dtype=dtype),
        "constant": torch.full(size, 0.7, dtype=dtype),
        "constant negative": torch.full(size, -0.7, dtype=dtype),
        "one entry": torch.zeros(size).index_put((torch.tensor([0]),) * len(size), torch.tensor(1.0)).to(dtype),
        "one zero row": torch.cat([ramp[:1] * 0, ramp[1:]]).to(dtype),
        "ordinary": ramp.to(dtype),
        "tiny": (tiny * ramp).to(dtype),
        "huge": (huge * ramp).to(dtype),
        "far apart": torch.where(ramp > 0.5, huge * ramp, tiny * ramp).to(dtype),
    }


def check_finite(prior: Any, attributions: Tensor, annotation: Any, weight: float = 1.0) -> None:
    """Raise ``AssertionError`` unless the weighted penalty and its gradient are finite."""
    leaf = attributions.clone().requires_grad_()
    value = weight * prior(leaf, annotation, torch.zeros(len(leaf), dtype=torch.long)).mean()
    assert bool(value.isfinite()), f"the penalty is {float(value.detach())}"
    if value.requires_grad:
        (slope,) = torch.autograd.grad(value, leaf, allow_unused=True)
        # attributions in half precision cannot hold every gradient; the float ones behind them can
        if slope is not None and attributions.dtype in (torch.float32, torch.float64):
            assert bool(slope.isfinite().all()), "the gradient is not finite"
        if slope is not None:
            assert not bool(slope.isnan().any()), "the gradient is NaN"


def check_finite_training(objective: Any, inputs: Tensor, labels: Tensor, annotation: Any = None) -> None:
    """Raise ``AssertionError`` unless the total and every parameter gradient are finite."""
    report = objective(inputs, labels, annotation)
    assert bool(report.total.isfinite()), f"the total is {float(report.total.detach())}"
    for parameter in objective.parameters():
        parameter.grad = None
    report.total.backward()
    reached = 0
    for name, parameter in objective.named_parameters():
        if parameter.grad is not None:
            reached += 1
            assert bool(parameter.grad.isfinite().all()), f"the gradient of {name} is not finite"
    assert reached, "no parameter was reached, so that nothing was checked"
