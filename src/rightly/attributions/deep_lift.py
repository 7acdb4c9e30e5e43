"""DeepLIFT: what the output gains over a reference, sent back through slopes instead of derivatives."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rightly.attributions.base import Attribution, Explanation, check_reference
from rightly.attributions.problem import Problem
from rightly.core.checks import check_count
from rightly.core.registry import register
from rightly.core.scalar import Output, Target
from rightly.core.types import Reference, Space
from rightly.references import Constant
from rightly.spaces import Input


@register(
    "attribution",
    citation="shrikumar2017",
    traits=("complete", "linear"),
    example=lambda shape: {"reference": Constant(0.1)},
)
class DeepLift(Attribution):
    """DeepLIFT with the rescale rule (Shrikumar et al. 2017, section 3.5.1): (x - x') times the multipliers.

    Linear operations pass differences on as they are; an elementwise function multiplies them by the slope from the
    reference's value to the example's own, (f(x) - f(x')) / (x - x'), or by its derivative where the two are the same;
    max pooling gives all that it gains or loses to where the larger of the two maxima was found. The attributions add
    up to f(x) - f(x') exactly, in one pass over examples and references together, and depend on how the model is
    written. Training is by double backward, whatever the engine.

    Args:
        reference: what the examples are compared with; zero by default. A sampling reference averages over its draws
            (DeepSHAP: Lundberg, Lee 2017).
        n_samples: references an example.

    Raises:
        DecompositionError: what is found does not add up, because the model (or ``output``) does what has no rule:
            products of two tensors that both depend on the input, softmax, attention, recurrent layers, normalisation
            by the input's own statistics.
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
        super().__init__(space or Input(), output, target)
        self.reference = check_reference(Constant(0.0) if reference is None else reference)
        self.n_samples = check_count("n_samples", n_samples)

    def _explain(self, problem: Problem, generator: torch.Generator, diagnostics: bool) -> Explanation:
        x = problem.view.coordinates
        draw = self.reference.draw(problem.view, self.n_samples, generator)

        def step(rows: Tensor, samples: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
            points = x[rows]
            return points, lambda multipliers: (points - draw.gather(rows, samples)) * multipliers

        return Explanation(problem.average(step, self.n_samples, against=draw.gather), None, draw)
