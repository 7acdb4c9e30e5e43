"""Gradients averaged along paths from references: integrated and expected gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from rightly.attributions import sampling
from rightly.attributions.base import Attribution, Explanation, check_reference
from rightly.attributions.problem import Problem
from rightly.attributions.sampling import Design, Recentred, Recentring, check_design, check_recentred
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

    def _along(
        self,
        problem: Problem,
        draw: Draw,
        alphas: Tensor,
        *,
        weights: Tensor | None = None,
        recentring: Recentring | None = None,
        spread: bool = False,
    ) -> Explanation:
        """Average over ``alphas`` (B or 1, S), S a multiple of the draw's n, with ``weights`` (S,) of mean one."""
        x = problem.view.coordinates
        samples = alphas.shape[1]
        ones = (1,) * len(problem.shape)
        alphas = alphas.to(x).expand(problem.batch, -1)

        def step(rows: Tensor, s: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
            alone = samples == 1 and len(rows) == len(x)  # the usual training step, spared what indexing costs
            own = x if alone else x[rows]
            draws = s if samples == draw.n else s // (samples // draw.n)
            delta = own - draw.gather(rows, draws)
            here = alphas if alone else alphas[rows, s]
            points = own - (1 - here.reshape(-1, *ones)) * delta
            moved = delta if recentring is None else recentring(delta, rows, draws)

            def weigh(gradient: Tensor) -> Tensor:
                term = moved * gradient
                if weights is not None:
                    term = term * weights.to(x)[s].reshape(-1, *ones)
                if not spread:
                    return term
                plain, slope = (delta * gradient).detach(), gradient.detach()
                moments = [plain, plain**2]
                if recentring is not None:
                    off = (recentring.lead[rows] - delta).detach()
                    moments += [slope, plain * off, off**2]
                return torch.stack([term, *moments], 1)

            return points, weigh

        mean = problem.average(step, samples)
        if not spread:
            return Explanation(mean, None, draw)
        mean, *moments = mean.unbind(1)
        return Explanation(mean, standard_error([m.detach() for m in moments], recentring, samples), draw)


def standard_error(moments: Sequence[Tensor], recentring: Recentring | None, samples: int) -> Tensor:
    """Of the mean of ``samples`` terms, as if they were independent.

    A recentred mean errs like that of the terms d g + (x' - mu) m with d = x - x', where m is the mean gradient.
    """
    mean, square, *more = moments
    if recentring is not None:
        slope, across, off = more
        mean = mean + slope * recentring.gap.detach()
        square = square + 2 * slope * across + slope**2 * off
    return ((square - mean**2).clamp_min(0) / (samples - 1)).sqrt()


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
        design: how the draws are spread over references and path positions, all of them unbiased. ``"latin"``: each
            reference as often as any other, one position in each k-th of the path. ``"lattice"``, for ``Sample`` and
            ``Where`` (Latin for others): evenly over both at once, with the references in the order of the model's
            output, which costs a pass over all of them and makes the draws depend on the model. ``"independent"``:
            not spread at all.
        recentred: correct the differences x - x' by what the drawn references' mean is off the mean of all of them;
            exact on linear models. It needs that mean: ``InBatch``, ``Noise``, or ``Sample`` of tensors at the input.
            Unbiased, except that on a lattice about a tenth of the sampling error stays as a bias. ``"auto"``: from
            10 draws on, where the mean is known.
    """

    def __init__(
        self,
        reference: Reference | None = None,
        *,
        n_samples: int = 1,
        design: Design = "latin",
        recentred: Recentred = "auto",
        space: Space | None = None,
        output: Output = "logit",
        target: Target = "label",
    ) -> None:
        super().__init__(InBatch() if reference is None else reference, n_samples, space, output, target)
        self.design, self.recentred = check_design(design), check_recentred(recentred)

    def _explain(self, problem: Problem, generator: torch.Generator, diagnostics: bool) -> Explanation:
        draw, alphas = sampling.draw(problem, self.reference, self.n_samples, self.design, generator)
        recentring = sampling.recentring(problem, draw, self.recentred)
        spread = diagnostics and self.n_samples > 1
        return self._along(problem, draw, alphas, recentring=recentring, spread=spread)


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
        return self._along(problem, draw, alphas, weights=mean_one)


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
