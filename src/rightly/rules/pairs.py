"""Two examples that a model should treat alike."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from rightly.core import autodiff
from rightly.core.batch import Inputs, call, outputs_of
from rightly.core.scalar import single
from rightly.objectives import ModelTerm, Schedule
from rightly.objectives.model_term import Batch
from rightly.objectives.term import Weight
from rightly.priors.base import Level
from rightly.rules.grammar import Rule
from rightly.rules.names import Names


@dataclass(frozen=True)
class AlikeTerm(ModelTerm):
    """Two examples should be predicted alike: the squared distance of what the model makes of them.

    Of class scores only differences count, so their mean is taken off. The examples belong to the term: they need not
    be in a batch. Read with dropout off and batch norm frozen.

    Args:
        pair: (2, *F), the examples.
        weight, name, schedule: as in ``rt.Term``.
    """

    pair: Tensor
    weight: Weight = 1.0
    name: str = "alike"
    schedule: Schedule = field(default_factory=Schedule)

    @property
    def level(self) -> Level:
        """No quantity of the batch: every process adds it whole."""
        return "batch"

    @property
    def about(self) -> str:
        """In words."""
        return "distance of two examples' predictions"

    def of(self, model: nn.Module, batch: Batch) -> Tensor:
        """()."""
        scores = _read(model, self.pair)
        if scores.shape[1] > 1:
            scores = scores - scores.mean(1, keepdim=True)
        return (scores[0] - scores[1]).square().sum()


@dataclass(frozen=True)
class Alike:
    """A rule about two examples; see ``Bound``."""

    rule: Rule
    term: AlikeTerm
    classes: bool

    @classmethod
    def bound(cls, rule: Rule, names: Names) -> Alike:
        """The rule with its examples."""
        return cls(rule, AlikeTerm(names.pair(rule), rule.weight, rule.name), bool(names.classes))

    def violations(self, model: nn.Module, inputs: Inputs) -> Tensor:
        """How far the two predictions are apart, (1,): total variation of the probabilities, or a value's distance."""
        with torch.no_grad():
            scores = _read(model, self.term.pair)
        if not self.classes:
            return (scores[0] - scores[1]).abs().sum()[None]
        if single(scores):
            return (scores.sigmoid()[0] - scores.sigmoid()[1]).abs()
        probabilities = scores.softmax(1)
        return (probabilities[0] - probabilities[1]).abs().sum()[None] / 2


def _read(model: nn.Module, pair: Tensor) -> Tensor:
    """What the model makes of two examples: (2, K)."""
    like = next(model.parameters(), torch.empty(0))
    with autodiff.evaluating(autodiff.modules_of(model)):
        return outputs_of(call(model, pair.to(like))).reshape(2, -1)
