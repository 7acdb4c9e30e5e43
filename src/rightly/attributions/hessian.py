"""The curvature at the input itself: second derivatives, whole or along random directions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rightly.attributions.base import Attribution, Explanation
from rightly.attributions.interactions import Pairwise
from rightly.attributions.problem import Curvature, Problem
from rightly.core.checks import check_count, check_number
from rightly.core.registry import register
from rightly.core.scalar import Output, Target
from rightly.core.types import Space
from rightly.spaces import Input


@register(
    "attribution",
    citation="bishop1993",
    traits=("implementation_invariant", "linear", "pairwise", "sensitive", "symmetric"),
)
class Hessian(Pairwise):
    """Second derivatives of the output with respect to every pair of features (Bishop 1993; Ross 2018, 4.1.2).

    Attributions are (B, *F, *F), symmetric; with the prior ``L2`` they make up the squared Frobenius norm. A feature
    costs a backward pass: for many of them see ``HessianProducts``. Where the model is linear, and so in a ReLU network
    almost everywhere, all are zero: a term on them refuses to train it (see ``rt.models.smoothed``).

    Args:
        features: R positions in the flattened space: only their rows, (B, R, *F).
        pairs: (R, 2) positions in the flattened space: only these entries, (B, R).
    """

    def __init__(
        self,
        *,
        features: Sequence[int] | Tensor | None = None,
        pairs: Tensor | None = None,
        space: Space | None = None,
        output: Output = "logit",
        target: Target = "label",
    ) -> None:
        super().__init__(features, pairs, space, output, target)

    def _explain(self, problem: Problem, generator: torch.Generator, diagnostics: bool) -> Explanation:
        wanted, chosen = self._wanted(problem)

        def weigh(slopes: Tensor, hessian: Curvature) -> Tensor:
            found = hessian(wanted).flatten(2)
            return found if chosen is None else found[:, chosen[0], chosen[1]]

        def step(rows: Tensor, samples: Tensor) -> tuple[Tensor, Callable[..., Tensor]]:
            return problem.view.coordinates[rows], weigh

        return Explanation(self._shaped(problem, problem.average(step, 1, curved=True)))


class _Directions(Attribution):
    """What happens along ``n_samples`` directions an example, each drawn from N(0, I)."""

    def __init__(self, n_samples: int, space: Space | None, output: Output, target: Target) -> None:
        super().__init__(space or Input(), output, target)
        self.n_samples = check_count("n_samples", n_samples)

    def _drawn(self, problem: Problem, generator: torch.Generator) -> Tensor:
        """(B, K, *F)."""
        shape = (problem.batch, self.n_samples, *problem.shape)
        return torch.randn(shape, generator=generator).to(problem.view.coordinates)


@register(
    "attribution",
    citation="rifai2011",
    traits=("implementation_invariant", "linear", "sampled"),
    example=lambda shape: {"n_samples": 2},
)
class HessianProducts(_Directions):
    """The Hessian times random directions: its squared Frobenius norm without a pass for every feature.

    Attributions are (B, K, *F), the products with K directions v from N(0, I), each over sqrt(K). With the prior ``L2``
    their expectation is the squared Frobenius norm, since E |H v|^2 = trace(H H): unbiased for any K (Hutchinson 1989).
    It is the limit for ever smaller noise of the estimator of Rifai et al. (2011): see ``GradientDifferences``. One
    direction costs one backward pass. Zero where ``Hessian`` is.

    Args:
        n_samples: K, directions an example. The penalty's variance falls like 1 / K.
    """

    order = 2

    def __init__(
        self,
        *,
        n_samples: int = 1,
        space: Space | None = None,
        output: Output = "logit",
        target: Target = "label",
    ) -> None:
        super().__init__(n_samples, space, output, target)

    def _explain(self, problem: Problem, generator: torch.Generator, diagnostics: bool) -> Explanation:
        ways = self._drawn(problem, generator) / math.sqrt(self.n_samples)

        def step(rows: Tensor, samples: Tensor) -> tuple[Tensor, Callable[..., Tensor]]:
            return problem.view.coordinates[rows], lambda slopes, hessian: hessian.along(ways[rows])

        return Explanation(problem.average(step, 1, curved=True))


@register(
    "attribution",
    citation="rifai2011",
    traits=("implementation_invariant", "linear", "sampled"),
    example=lambda shape: {"n_samples": 2, "step": 0.5},
)
class GradientDifferences(_Directions):
    """How much the gradient changes under noise (Rifai et al. 2011; Ross 2018, 4.1.2), per unit of noise.

    Attributions are (B, K, *F): (grad f(x + step v) - grad f(x)) / (step sqrt(K)) for K directions v from N(0, I).
    With the prior ``L2`` their expectation is E |grad f(x) - grad f(x + e)|^2 / step^2 over e from N(0, step^2 I),
    which tends to the Hessian's squared Frobenius norm as the step falls to zero. Only first derivatives are taken, so
    that it serves ReLU networks, whose gradient jumps.

    Args:
        n_samples: K, directions an example.
        step: standard deviation of the noise, in the space's own units. A small one drowns in rounding: a gradient's
            relative error is the precision's eps, that of its difference about eps / step of the gradient. By default
            0.1, or 50 eps where that is more (0.39 in bfloat16), which keeps it near 2 %; under autocast give one.
    """

    def __init__(
        self,
        *,
        n_samples: int = 1,
        step: float | None = None,
        space: Space | None = None,
        output: Output = "logit",
        target: Target = "label",
    ) -> None:
        super().__init__(n_samples, space, output, target)
        self.step = None if step is None else check_number("step", step, positive=True)

    def _explain(self, problem: Problem, generator: torch.Generator, diagnostics: bool) -> Explanation:
        x, ways = problem.view.coordinates, self._drawn(problem, generator)

        def slopes(points: Tensor) -> Tensor:
            return problem.average(lambda rows, samples: (points[rows], lambda gradient: gradient), 1)

        step = max(0.1, 50 * torch.finfo(x.dtype).eps) if self.step is None else self.step
        own = slopes(x)
        moved = torch.stack([slopes(x + step * way) for way in ways.unbind(1)], 1)
        return Explanation((moved - own[:, None]) / (step * math.sqrt(self.n_samples)))
