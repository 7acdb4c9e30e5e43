"""Gradients averaged over noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from rightly.attributions.base import Attribution, Explanation
from rightly.attributions.problem import Problem
from rightly.core.checks import check_count, check_number
from rightly.core.errors import ArgumentError
from rightly.core.registry import register
from rightly.core.scalar import Output, Target
from rightly.core.types import Space
from rightly.spaces import Input

Kind = Literal["mean", "square", "variance"]


@register(
    "attribution",
    citation="smilkov2017",
    traits=("implementation_invariant", "sampled"),
    example=lambda shape: {"n_samples": 3, "sigma": 0.1},
)
class SmoothGrad(Attribution):
    """The gradient averaged over noisy copies of the input (Smilkov et al. 2017), its square, or its variance.

    Args:
        n_samples: noisy copies an example (at least 2 for the variance).
        sigma: standard deviation of the noise as a share of each example's range (largest minus smallest value).
        kind: ``"mean"`` (SmoothGrad), ``"square"`` (SmoothGrad-squared) or ``"variance"`` (VarGrad, unbiased).
    """

    def __init__(
        self,
        *,
        n_samples: int = 25,
        sigma: float = 0.15,
        kind: Kind = "mean",
        space: Space | None = None,
        output: Output = "logit",
        target: Target = "label",
    ) -> None:
        super().__init__(space or Input(), output, target)
        if kind not in get_args(Kind):
            raise ArgumentError("unknown kind of SmoothGrad", expected=", ".join(get_args(Kind)), got=repr(kind))
        self.n_samples = check_count("n_samples", n_samples)
        if kind == "variance" and n_samples < 2:
            raise ArgumentError("a variance needs two draws", expected="n_samples >= 2", got=n_samples)
        self.sigma, self.kind = check_number("sigma", sigma, positive=False), kind

    def _explain(self, problem: Problem, generator: torch.Generator, diagnostics: bool) -> Explanation:
        x = problem.view.coordinates
        flat = x.flatten(1)  # keeps its graph: in a layer's space the range depends on the parameters
        scale = self.sigma * (flat.amax(1) - flat.amin(1)).reshape(-1, 1, *(1,) * len(problem.shape))
        noise = scale * torch.randn(len(x), self.n_samples, *problem.shape, generator=generator).to(x)
        needs_mean = self.kind != "square"
        needs_square = self.kind != "mean" or (diagnostics and self.n_samples > 1)

        def weigh(gradient: Tensor) -> Tensor:
            return torch.stack([gradient] * needs_mean + [gradient**2] * needs_square, 1)

        def step(rows: Tensor, s: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
            return x[rows] + noise[rows, s], weigh

        moments = problem.average(step, self.n_samples)
        mean, square = moments[:, 0], moments[:, -1]
        if self.kind == "square":
            return Explanation(square)
        n = self.n_samples
        if self.kind == "variance":
            return Explanation((square - mean**2) * n / (n - 1))
        if not needs_square:
            return Explanation(mean)
        return Explanation(mean, ((square - mean**2).detach().clamp_min(0) / (n - 1)).sqrt())
