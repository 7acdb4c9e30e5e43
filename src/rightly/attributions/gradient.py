"""Input gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rightly.attributions.base import Attribution, Explanation
from rightly.attributions.problem import Problem
from rightly.core.registry import register
from rightly.core.scalar import Output, Target
from rightly.core.types import Space
from rightly.spaces import Input


class _AtTheInput(Attribution):
    """One gradient, at the input itself."""

    def __init__(self, *, space: Space | None = None, output: Output = "logit", target: Target = "label") -> None:
        super().__init__(space or Input(), output, target)

    def _explain(self, problem: Problem, generator: torch.Generator, diagnostics: bool) -> Explanation:
        def step(rows: Tensor, samples: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
            x = problem.view.coordinates
            # the batch itself where it is whole: an engine may then share the task's own pass
            x = x if len(rows) == len(x) else x[rows]
            return x, lambda gradient: self._weigh(gradient, x)

        return Explanation(problem.average(step, 1))

    def _weigh(self, gradient: Tensor, x: Tensor) -> Tensor:
        return gradient


@register("attribution", citation="simonyan2014", traits=("implementation_invariant", "linear", "symmetric"))
class Gradient(_AtTheInput):
    """The gradient of the output with respect to each feature (saliency, with its sign).

    Right-for-the-right-reasons is this with ``output="log_prob_sum"``, double backpropagation with ``"loss"``.
    """


@register(
    "attribution",
    citation="shrikumar2017",
    traits=("implementation_invariant", "linear", "symmetric", "sensitive"),
)
class InputXGradient(_AtTheInput):
    """The gradient times the feature's value: complete on linear models against a reference of zero."""

    def _weigh(self, gradient: Tensor, x: Tensor) -> Tensor:
        return x * gradient
