"""Parameter gradients against central finite differences in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from contracts.problems import draws

#: the contract: no gradient may be further from the finite difference, relative to its own size
TOLERANCE = 1e-6
#: tried in this order until one agrees far better than asked for
#: the smallest are for methods that share biases by absolute values, which have kinks everywhere
_STEPS = (3e-4, 1e-4, 1e-3, 3e-5, 1e-5, 3e-6, 1e-6, 3e-7)
_ENOUGH = 1e-9


def slope_error(value: Callable[[], Tensor], parameters: Sequence[Tensor], seed: int) -> float:
    """Relative difference between autograd and central differences along one direction.

    The direction is random in every parameter (so that a gradient that is missing altogether shows), plus the
    gradient's own (a random one alone is nearly orthogonal to it). Richardson's extrapolation of two steps takes
    the third derivative out; the best of several steps is kept, since rounding and curvature pull apart.
    """
    gradients = torch.autograd.grad(value(), list(parameters), allow_unused=True)
    found = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
    size = sum(float((g**2).sum()) for g in found) ** 0.5
    assert size > 1e-7, "the gradient is zero here, so that nothing would be checked"
    noise = [torch.randn(p.shape, generator=draws(seed), dtype=p.dtype) for p in parameters]
    length = sum(float((n**2).sum()) for n in noise) ** 0.5
    way = [n / length + g / size for n, g in zip(noise, found, strict=True)]
    slope = sum(float((g * w).sum()) for g, w in zip(found, way, strict=True))

    def rise(step: float) -> float:
        before = [p.detach().clone() for p in parameters]
        values = []
        for signed in (step, -step):
            with torch.no_grad():
                for p, start, w in zip(parameters, before, way, strict=True):
                    p.copy_(start + signed * w)
            values.append(float(value().detach()))
        with torch.no_grad():
            for p, start in zip(parameters, before, strict=True):
                p.copy_(start)
        return (values[0] - values[1]) / (2 * step)

    best = float("inf")
    for step in _STEPS:
        better = (4 * rise(step / 2) - rise(step)) / 3
        best = min(best, abs(better - slope) / abs(slope))
        if best < _ENOUGH:
            break
    return best


def check_gradient(value: Callable[[], Tensor], parameters: Sequence[Tensor], directions: int = 1) -> float:
    """Raise ``AssertionError`` unless the gradient of ``value()`` is right; returns the worst relative error."""
    parameters = [p for p in parameters if p.requires_grad]
    worst = max(slope_error(value, parameters, seed) for seed in range(directions))
    assert worst < TOLERANCE, f"the gradient is off by {worst:.1e} relative to a central finite difference"
    return worst


def check_term(objective, inputs, labels, annotation=None, *, part="prior", directions: int = 1) -> float:
    """``check_gradient`` of what an objective would train on, with the same draws at every evaluation."""

    def value() -> Tensor:
        return objective(inputs, labels, annotation, draws(7), part).total

    return check_gradient(value, list(objective.parameters()), directions)
