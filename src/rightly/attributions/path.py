"""Gradients averaged along paths from references: integrated and expected gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from rightly.attributions.base import Attribution, Explanation, check_reference
from rightly.attributions.problem import Problem
from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError
from rightly.core.registry import register
from rightly.core.scalar import Output, Target
from rightly.core.types import Draw, Reference, Space
from rightly.references import Constant, InBatch
from rightly.spaces import Input

Rule = Literal["gauss-legendre", "left", "right", "middle", "trapezoid"]


class _Path(Attribution):
    """Mean over samples of (x - x') * gradient at x' + alpha (x - x')."""

    def __init__(
        self, reference: Reference, n_samples: int, space: Space | None, output: Output, target: Target
    ) -> None:
        super().__init__(space or Input(), output, target)
        self.reference = check_reference(reference)
        self.n_samples = check_count("n_samples", n_samples)

    def _along(self, problem: Problem, draw: Draw, alphas: Tensor, weights: Tensor | None, spread: bool) -> Explanation:
        """Average over ``alphas`` (B or 1, S), S a multiple of the draw's n, with ``weights`` (S,) of mean one."""
        x = problem.view.coordinates
        samples = alphas.shape[1]
        ones = (1,) * len(problem.shape)
        alphas = alphas.to(x).expand(problem.batch, -1)

        def step(rows: Tensor, s: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
            own = x[rows]
            delta = own - draw.gather(rows, s // (samples // draw.n))
            points = own - (1 - alphas[rows, s].reshape(-1, *ones)) * delta

            def weigh(gradient: Tensor) -> Tensor:
                term = delta * gradient
                if weights is not None:
                    term = term * weights.to(x)[s].reshape(-1, *ones)
                return torch.stack([term, term.detach() ** 2], 1) if spread else term

            return points, weigh

        mean = problem.average(step, samples)
        if not spread:
            return Explanation(mean, None, draw)
        mean, square = mean.unbind(1)
        error = ((square.detach() - mean.detach() ** 2).clamp_min(0) / (samples - 1)).sqrt()
        return Explanation(mean, error, draw)


@register(
    "attribution",
    citation="erion2021",
    traits=("implementation_invariant", "linear", "sampled", "sensitive"),
    example=lambda shape: {"reference": Constant(0.1), "n_samples": 3},
)
class ExpectedGradients(_Path):
    """Expected gradients (Erion et al. 2021, eq. 4): E over references and positions of (x - x') * gradient.

    The k samples of every example are folded into one batch. ``InBatch()`` needs no data, ``Sample(data)`` draws
    from a data set, ``Constant(x)`` is the single-reference variant.

    Args:
        reference: where the references come from.
        n_samples: draws an example, k; 1 is usual in training, 200 for a picture.
    """

    def __init__(
        self,
        reference: Reference | None = None,
        *,
        n_samples: int = 1,
        space: Space | None = None,
        output: Output = "logit",
        target: Target = "label",
    ) -> None:
        super().__init__(InBatch() if reference is None else reference, n_samples, space, output, target)

    def _explain(self, problem: Problem, generator: torch.Generator, diagnostics: bool) -> Explanation:
        draw = self.reference.draw(problem.view, self.n_samples, generator)
        alphas = torch.rand(problem.batch, self.n_samples, generator=generator)
        return self._along(problem, draw, alphas, None, diagnostics and self.n_samples > 1)


@register(
    "attribution",
    citation="sundararajan2017",
    traits=("complete", "implementation_invariant", "linear", "sensitive", "symmetric"),
    example=lambda shape: {"reference": Constant(0.1), "n_steps": 24},
)
class IntegratedGradients(_Path):
    """Integrated gradients (Sundararajan et al. 2017), by quadrature along the straight path from each reference.

    Args:
        reference: the baseline; zero by default. A sampling reference averages over its draws.
        n_steps: quadrature nodes a path.
        n_samples: references an example.
        rule: ``"gauss-legendre"`` (default: exact for polynomials up to degree 2 n - 1), or a Riemann rule.
    """

    def __init__(
        self,
        reference: Reference | None = None,
        *,
        n_steps: int = 50,
        n_samples: int = 1,
        rule: Rule = "gauss-legendre",
        space: Space | None = None,
        output: Output = "logit",
        target: Target = "label",
    ) -> None:
        super().__init__(Constant(0.0) if reference is None else reference, n_samples, space, output, target)
        self.n_steps = check_count("n_steps", n_steps)
        self.rule: Rule = rule
        quadrature(rule, n_steps)

    def _explain(self, problem: Problem, generator: torch.Generator, diagnostics: bool) -> Explanation:
        draw = self.reference.draw(problem.view, self.n_samples, generator)
        nodes, weights = quadrature(self.rule, self.n_steps)
        alphas = nodes.repeat(self.n_samples)[None]
        mean_one = weights.repeat(self.n_samples) * self.n_steps
        return self._along(problem, draw, alphas, mean_one, spread=False)


def quadrature(rule: Rule, n: int) -> tuple[Tensor, Tensor]:
    """Nodes in [0, 1] and weights that sum to one, (n,) each, in float64."""
    if rule not in get_args(Rule):
        raise ArgumentError("unknown quadrature rule", expected=", ".join(get_args(Rule)), got=repr(rule))
    if rule == "gauss-legendre":
        nodes, masses = np.polynomial.legendre.leggauss(n)
        return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(masses / 2)
    if rule == "trapezoid":
        if n < 2:
            raise ArgumentError("the trapezoid rule needs both ends", expected="n_steps >= 2", got=n)
        weights = torch.full((n,), 1 / (n - 1), dtype=torch.float64)
        weights[[0, -1]] /= 2
        return torch.linspace(0, 1, n, dtype=torch.float64), weights
    shift = {"left": 0.0, "middle": 0.5, "right": 1.0}[rule]
    return (torch.arange(n, dtype=torch.float64) + shift) / n, torch.full((n,), 1 / n, dtype=torch.float64)
