"""How much pairs of features mattered together: integrated and expected Hessians."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from rightly.attributions import sampling
from rightly.attributions.base import Attribution, Explanation, check_reference
from rightly.attributions.path import standard_error
from rightly.attributions.problem import Curvature, Problem
from rightly.attributions.sampling import Design, check_design
from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.registry import register
from rightly.core.scalar import Output, Target
from rightly.core.types import Draw, Reference, Space
from rightly.references import Constant, InBatch
from rightly.spaces import Input

#: halvings of [0, 1] down to what float64 tells apart
_HALVINGS = 53


class Pairwise(Attribution):
    """What explains pairs of features by second derivatives: all of them, some features' rows, or single pairs."""

    order = 2

    def __init__(
        self,
        features: Sequence[int] | Tensor | None,
        pairs: Tensor | None,
        space: Space | None,
        output: Output,
        target: Target,
    ) -> None:
        super().__init__(space or Input(), output, target)
        if features is not None and pairs is not None:
            raise ArgumentError("features= and pairs= say two things", expected="one of them", got="both")
        self.features = None if features is None else _positions("features", torch.as_tensor(features), 1)
        self.pairs = None if pairs is None else _positions("pairs", torch.as_tensor(pairs), 2)

    def _wanted(self, problem: Problem) -> tuple[list[int], tuple[Tensor, Tensor] | None]:
        """Features whose rows are taken; and which of their entries, where single pairs are asked for."""
        size = problem.view.coordinates[0].numel()
        given = self.features if self.pairs is None else self.pairs
        if given is not None and int(given.max()) >= size:
            raise ShapeError("there are no such features", expected=f"positions below {size}", got=int(given.max()))
        if self.pairs is not None:
            # the matrix is symmetric: of the two sides of the pairs, the one with fewer features is taken
            sides = [torch.unique(side, return_inverse=True) for side in self.pairs.T]
            first = 0 if len(sides[0][0]) <= len(sides[1][0]) else 1
            features, places = sides[first]
            device = problem.view.coordinates.device
            return features.tolist(), (places.to(device), self.pairs[:, 1 - first].to(device))
        return list(range(size)) if self.features is None else self.features.tolist(), None

    def _shaped(self, problem: Problem, flat: Tensor) -> Tensor:
        """(B, R, p) or (B, R) of pairs -> (B, *F, *F), (B, R, *F) or (B, R)."""
        if self.pairs is not None:
            return flat
        rows = problem.shape if self.features is None else (len(self.features),)
        return flat.reshape(problem.batch, *rows, *problem.shape)


class _Hessians(Pairwise):
    """Mean over samples of d_i d_j g H_ij + [i = j] d_i grad_i at x' + g d, with d = x - x'.

    Explaining a feature's attribution by the features goes along two paths, one inside the other: the point lies at
    a b of the whole way, a and b both from 0 to 1. The terms depend on g = a b only, so that one position with the
    density -log g takes the place of two. The gradient comes in by the product rule, since a feature's own attribution
    has a factor d_i.
    """

    def __init__(
        self,
        reference: Reference,
        n_samples: int,
        features: Sequence[int] | Tensor | None,
        pairs: Tensor | None,
        space: Space | None,
        output: Output,
        target: Target,
    ) -> None:
        super().__init__(features, pairs, space, output, target)
        self.reference = check_reference(reference)
        self.n_samples = check_count("n_samples", n_samples)

    def _along(
        self, problem: Problem, draw: Draw, positions: Tensor, weights: Tensor | None, *, spread: bool
    ) -> Explanation:
        """Average over ``positions`` (B or 1, S), S a multiple of the draw's n, with ``weights`` (S,) of mean one."""
        x, samples = problem.view.coordinates, positions.shape[1]
        positions = positions.to(x).expand(problem.batch, -1)
        wanted, chosen = self._wanted(problem)
        own_place = torch.zeros(len(wanted), x[0].numel()).to(x)
        own_place[range(len(wanted)), wanted] = 1

        def step(rows: Tensor, s: Tensor) -> tuple[Tensor, Callable[..., Tensor]]:
            own = x[rows]
            delta = own - draw.gather(rows, s // (samples // draw.n))
            here = positions[rows, s]
            points = own - (1 - here).reshape(-1, *(1,) * (x.ndim - 1)) * delta

            def weigh(slopes: Tensor, hessian: Curvature) -> Tensor:
                flat = delta.flatten(1)
                scale = (here[:, None] * flat[:, wanted])[:, :, None]
                term = scale * flat[:, None] * hessian(wanted).flatten(2)
                term = term + own_place * (delta * slopes).flatten(1)[:, None]
                if chosen is not None:
                    term = term[:, chosen[0], chosen[1]]
                if weights is not None:
                    term = term * weights.to(x)[s].reshape(-1, *(1,) * (term.ndim - 1))
                return torch.stack([term, term.detach() ** 2], 1) if spread else term

            return points, weigh

        mean = problem.average(step, samples, curved=True)
        error = None
        if spread:
            mean, square = mean.unbind(1)
            error = self._shaped(problem, standard_error([mean.detach(), square.detach()], None, samples))
        return Explanation(self._shaped(problem, mean), error, draw, whole=self.features is None and self.pairs is None)


def _positions(name: str, given: Tensor, ndim: int) -> Tensor:
    """Whole numbers >= 0: (R,), or (R, 2) for pairs; ``ArgumentError`` for anything else."""
    fits = given.ndim == ndim and given.numel() > 0 and (ndim == 1 or given.shape[1] == 2)
    if not fits or given.is_floating_point() or given.dtype == torch.bool or bool((given < 0).any()):
        raise ArgumentError(
            f"{name} are positions in the flattened space",
            expected="whole numbers >= 0, (R,)" if ndim == 1 else "whole numbers >= 0, (R, 2)",
            got=f"{given.dtype} {tuple(given.shape)}",
        )
    return given.cpu()


@register(
    "attribution",
    citation="janizek2021",
    traits=("complete", "implementation_invariant", "linear", "pairwise", "sensitive", "symmetric"),
    example=lambda shape: {"reference": Constant(0.1), "n_steps": 24},
)
class IntegratedHessians(_Hessians):
    """Interactions by integrated Hessians (Janizek et al. 2021): integrated gradients of themselves.

    Attributions are (B, *F, *F), symmetric: entry (i, j) is what i and j contribute together, the diagonal what a
    feature contributes alone. A row sums up to the feature's integrated gradient, and everything to f(x) - f(x').
    Each row costs a backward pass a node. In a ReLU network everything off the diagonal is zero; see
    ``rt.models.smoothed``.

    Args:
        reference: the baseline; zero by default. A sampling reference averages over its draws.
        n_steps: quadrature nodes a path. They are those of Gauss for the density of the two nested positions, so
            that n of them are as exact as n x n of a product rule: for polynomials up to degree 2 n - 1.
        n_samples: references an example.
        features: R positions in the flattened space: only their rows, (B, R, *F).
        pairs: (R, 2) positions in the flattened space: only these entries, (B, R). For all interactions without the
            diagonal: ``torch.combinations(torch.arange(p))``.
    """

    def __init__(
        self,
        reference: Reference | None = None,
        *,
        n_steps: int = 50,
        n_samples: int = 1,
        features: Sequence[int] | Tensor | None = None,
        pairs: Tensor | None = None,
        space: Space | None = None,
        output: Output = "logit",
        target: Target = "label",
    ) -> None:
        chosen = Constant(0.0) if reference is None else reference
        super().__init__(chosen, n_samples, features, pairs, space, output, target)
        self.n_steps = check_count("n_steps", n_steps)

    def _explain(self, problem: Problem, generator: torch.Generator, diagnostics: bool) -> Explanation:
        draw = self.reference.draw(problem.view, self.n_samples, generator)
        nodes, weights = nested_quadrature(self.n_steps)
        mean_one = weights.repeat(self.n_samples) * self.n_steps
        return self._along(problem, draw, nodes.repeat(self.n_samples)[None], mean_one, spread=False)


@register(
    "attribution",
    citation="janizek2021",
    traits=("implementation_invariant", "linear", "pairwise", "sampled", "sensitive"),
    example=lambda shape: {"reference": Constant(0.1), "n_samples": 3},
)
class ExpectedHessians(_Hessians):
    """Interactions by expected Hessians (Janizek et al. 2021): the mean of integrated ones over references.

    Shapes and sums are those of ``IntegratedHessians``, on average over the draws: a row sums up to the feature's
    expected gradient, and everything to f(x) - E f(x'). Both nested paths start at the same reference. With a
    reference for each, as in the authors' PyTorch code, the sums are right as well, but entry (i, j) is not entry
    (j, i), and covariances among the references count the other way round.

    Args:
        reference: where the references come from.
        n_samples: draws an example.
        design: as in ``ExpectedGradients``, of references and positions.
        features, pairs: as in ``IntegratedHessians``.
    """

    def __init__(
        self,
        reference: Reference | None = None,
        *,
        n_samples: int = 1,
        design: Design = "latin",
        features: Sequence[int] | Tensor | None = None,
        pairs: Tensor | None = None,
        space: Space | None = None,
        output: Output = "logit",
        target: Target = "label",
    ) -> None:
        chosen = InBatch() if reference is None else reference
        super().__init__(chosen, n_samples, features, pairs, space, output, target)
        self.design = check_design(design)

    def _explain(self, problem: Problem, generator: torch.Generator, diagnostics: bool) -> Explanation:
        draw, shares = sampling.draw(problem, self.reference, self.n_samples, self.design, generator)
        spread = diagnostics and self.n_samples > 1
        return self._along(problem, draw, nested_quantile(shares), None, spread=spread)


def nested_quadrature(n: int) -> tuple[Tensor, Tensor]:
    """Nodes in [0, 1] and weights that sum to one, (n,) each, in float64: Gauss' rule for the density -log."""
    nodes, weights = _nested_nodes(n)
    return torch.from_numpy(nodes.copy()), torch.from_numpy(weights.copy())


@lru_cache(maxsize=32)
def _nested_nodes(n: int) -> tuple[np.ndarray, np.ndarray]:
    """By Chebyshev's algorithm (Gautschi 2004, section 2.1.7) from the moments of shifted Legendre polynomials P_l.

    They are 1 and (-1)^l / (l (l + 1)). A row holds the moments of the density's own k-th polynomial times P_l, up to
    a factor; multiplied with the position, P_l is (P_l + rise_l P_l+1 + fall_l P_l-1) / 2.
    """
    degree = np.arange(2 * n)
    rise, fall = (degree + 1) / (2 * degree + 1), degree / (2 * degree + 1)
    row = np.array([1.0, *((-1.0) ** degree[1:] / (degree[1:] * (degree[1:] + 1)))])
    before, scaled, last = np.zeros(2 * n), 0.0, 0.0
    middle, beside = np.zeros(n), np.zeros(n)
    for k in range(n):
        slope = row[k + 1] / row[k] * rise[k] / 2
        middle[k], last = 0.5 + slope - last, slope
        size = len(row) - 1
        moved = (row[:-1] + rise[:size] * row[1:] + fall[:size] * np.concatenate([[0.0], row[: size - 1]])) / 2
        found = moved - middle[k] * row[:-1] - scaled * before[:size]
        if k + 1 < n:
            beside[k + 1] = found[k + 1] / row[k] * rise[k] / 2
            # rows shrink by a factor of four each: kept at a size of one
            largest = np.abs(found).max()
            before, row, scaled = row, found / largest, beside[k + 1] / largest
    jacobi = np.diag(middle) + np.diag(np.sqrt(beside[1:]), 1) + np.diag(np.sqrt(beside[1:]), -1)
    nodes, vectors = np.linalg.eigh(jacobi)
    return nodes, vectors[0] ** 2


def nested_quantile(shares: Tensor) -> Tensor:
    """The position below which a product of two uniform positions stays with probability ``shares``: float64.

    Its distribution function is g (1 - log g), inverted by halving.
    """
    shares = shares.double()
    low, high = torch.zeros_like(shares), torch.ones_like(shares)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = middle * (1 - middle.log()) < shares
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2
