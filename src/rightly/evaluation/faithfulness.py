"""Infidelity and sensitivity of explanations (Yeh, Hsieh, Suggala, Inouye, Ravikumar 2019)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rightly.core import seeding
from rightly.core.checks import check_count, check_number
from rightly.core.errors import ShapeError
from rightly.evaluation.axioms import Violation
from rightly.evaluation.explainer import features

Change = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Gaussian:
    """Changes drawn from a normal distribution of this standard deviation, each feature by itself."""

    sd: float

    def __post_init__(self) -> None:
        check_number("sd", self.sd, positive=True)

    def __call__(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """(B, *F) -> changes (B, *F)."""
        return self.sd * _draw(torch.randn, inputs, generator)


@dataclass(frozen=True)
class Removal:
    """A random share of the features set to ``value``: the change is their distance from it, 0 elsewhere."""

    share: float = 0.25
    value: float | Tensor = 0.0

    def __call__(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """(B, *F) -> changes (B, *F)."""
        gone = _draw(torch.rand, inputs, generator) < self.share
        return torch.where(gone, inputs - self.value, torch.zeros_like(inputs))


def infidelity(
    attributions: Tensor,
    values: Callable[[Tensor], Tensor],
    inputs: Tensor,
    change: Change,
    *,
    n_samples: int = 100,
    scaled: bool = False,
    seed: int = 0,
) -> Violation:
    """E[(I . phi - (f(x) - f(x - I)))^2] over changes I (definition 2.1).

    Args:
        attributions: (B, *F).
        values: inputs (B, *F) -> the explained number (B,), such as ``partial(explainer.values, model)``.
        inputs: (B, *F).
        change: (inputs, generator) -> I (B, *F), such as ``Gaussian(0.1)``. Small changes ask for gradients; ones as
            large as a difference from a reference ask for attributions that are multiplied with that difference,
            divided by it here.
        n_samples: changes an example, one pass each.
        scaled: multiply each example's attributions by the factor that fits best (the paper's optimal scaling), so
            that only their direction is judged.
        seed: of the changes.

    Returns:
        (B,) with the mean of E[(f(x) - f(x - I))^2] as scale, which is what attributions of zero give.
    """
    check_count("n_samples", n_samples)
    x = features(inputs, attributions)
    generator = seeding.generator("infidelity", seed)
    own, phi = values(x), attributions.detach().flatten(1)
    predicted, true = [], []
    for _ in range(n_samples):
        moved = change(x, generator)
        predicted.append((moved.flatten(1) * phi).sum(1))
        true.append(own - values(x - moved))
    told, happened = torch.stack(predicted, 1).double(), torch.stack(true, 1).double()
    if scaled:
        size = (told**2).sum(1)
        told = told * ((told * happened).sum(1) / size.clamp_min(torch.finfo(size.dtype).tiny))[:, None]
    return Violation(((told - happened) ** 2).mean(1), float((happened**2).mean()))


@dataclass(frozen=True)
class Sensitivity:
    """How far explanations move near each example: the largest and the mean distance over the draws, (B,) each."""

    largest: Tensor
    mean: Tensor


def attribution_sensitivity(
    explain: Callable[[Tensor], Tensor],
    inputs: Tensor,
    *,
    radius: float,
    n_samples: int = 10,
    relative: bool = True,
    seed: int = 0,
) -> Sensitivity:
    """||phi(x + d) - phi(x)|| for d drawn evenly from the cube of half side ``radius`` (section 4; Euclidean norm).

    Args:
        explain: inputs (B, *F) -> attributions, with the same draws and classes at every call.
        inputs: (B, *F).
        n_samples: draws an example, one explanation each. The largest of them is a lower bound of the true largest.
        relative: divide by ||phi(x)||, so that methods of different units can be compared; the paper does not. NaN
            where an example's attributions are all zero.
        seed: of the draws.
    """
    check_count("n_samples", n_samples)
    check_number("radius", radius, positive=True)
    x = features(inputs)
    generator = seeding.generator("sensitivity", seed)
    before = explain(x).detach().flatten(1)
    moved = []
    for _ in range(n_samples):
        after = explain(x + radius * (2 * _draw(torch.rand, x, generator) - 1)).detach().flatten(1)
        if after.shape != before.shape:
            raise ShapeError("explanations change their shape", expected=tuple(before.shape), got=tuple(after.shape))
        moved.append((after - before).norm(dim=1))
    distances = torch.stack(moved)
    if relative:
        size = before.norm(dim=1)
        distances = torch.where(size > 0, distances / size, torch.nan)
    return Sensitivity(distances.amax(0), distances.mean(0))


def _draw(kind: Callable[..., Tensor], like: Tensor, generator: torch.Generator) -> Tensor:
    return kind(like.shape, generator=generator, dtype=torch.float64).to(like)
