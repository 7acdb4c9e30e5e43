"""Which number a rule is about, and of which examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rightly.attributions import Attribution
from rightly.attributions.base import Explanation
from rightly.attributions.problem import Problem
from rightly.core.batch import Inputs
from rightly.core.errors import ShapeError
from rightly.core.scalar import explained, single
from rightly.rules.names import Presence


def value(outputs: Tensor, labels: Tensor | None) -> Tensor:
    """What a regression gives: outputs (B,) or (B, 1) -> (B,)."""
    return outputs.reshape(len(outputs), -1)[:, 0]


@dataclass(frozen=True)
class OfClass:
    """Log-odds of a class against all others; of a single logit, which speaks for class 1, that or its negative."""

    number: int

    def __call__(self, outputs: Tensor, labels: Tensor | None) -> Tensor:
        """Outputs (B, ...) -> (B,)."""
        if single(outputs):
            logit = explained(outputs, None, None, "logit")
            return logit if self.number == 1 else -logit
        if outputs.ndim != 2 or self.number >= outputs.shape[1]:
            raise ShapeError(
                "a rule names a class that the model does not have",
                expected=f"outputs (B, classes) with more than {self.number} classes",
                got=tuple(outputs.shape),
            )
        return explained(outputs, None, torch.full((len(outputs),), self.number, device=outputs.device), "log_odds")


class OfSome(Attribution):
    """An explanation of those examples that a rule speaks of; of the others there is nothing to explain: zero.

    Args:
        attribution: of them.
        present: how much of a concept each example shows, 0 to 1.
        how: ``"when"`` it is there, or ``"unless"``.
    """

    def __init__(self, attribution: Attribution, present: Presence, how: Literal["when", "unless"]) -> None:
        super().__init__(attribution.space, attribution.output, attribution.target)
        self.attribution, self.present, self.how = attribution, present, how

    @torch.no_grad()
    def concerned(self, inputs: Inputs) -> Tensor:
        """How much the rule speaks of each example: (B,), 0 to 1."""
        found = self.present(inputs)
        if not isinstance(found, Tensor) or found.ndim != 1:
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ShapeError("a concept is present in examples", expected="one number an example, (B,)", got=got)
        share = found.to(torch.get_default_dtype()).clamp(0, 1)
        return share if self.how == "when" else 1 - share

    def _explain(self, problem: Problem, generator: torch.Generator, diagnostics: bool) -> Explanation:
        found = self.attribution._explain(problem, generator, diagnostics).attributions
        share = self.concerned(problem.view.inputs).to(found)
        if len(share) != len(found):
            raise ShapeError("a concept is present in examples", expected=(len(found),), got=(len(share),))
        return Explanation(found * share.reshape(-1, *(1,) * (found.ndim - 1)), whole=False)
