"""Models of one task trained at once, each for reasons of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from rightly.attributions import Attribution, Gradient
from rightly.core.batch import outputs_of
from rightly.core.checks import check_number
from rightly.core.errors import ArgumentError
from rightly.objectives.engines import class_numbers
from rightly.objectives.model_term import Batch, ModelTerm
from rightly.objectives.term import Schedule, Weight, check_weight
from rightly.priors.base import Level
from rightly.priors.independence import EPS, independence


class Ensemble(nn.Module):
    """M models side by side: inputs -> their outputs (B, M, ...).

    Args:
        members: at least two, with outputs of one shape.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if len(members) < 2 or len({id(member) for member in members}) < len(members):
            raise ArgumentError("an ensemble has members", expected="two models or more", got=len(members))
        self.members = nn.ModuleList(members)

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """(B, M, ...)."""
        return torch.stack([outputs_of(member(*inputs, **named)) for member in self.members], 1)


def of_every_member(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of an ensemble: the sum of its members' (Ross 2018, eq. 2.1)."""

    def total(outputs: Tensor, labels: Tensor) -> Tensor:
        return torch.stack([loss(own, labels) for own in outputs.unbind(1)]).sum()

    return total


@dataclass(frozen=True)
class IndependenceTerm(ModelTerm):
    """``weight *`` the squared cosine of the explanations of each two members, summed over pairs (Ross 2018, eq. 2.1).

    On log-odds this is the local independence of Ross, Pan, Celi and Doshi-Velez (2020), whose code takes the
    gradient of the cross-entropy where there are more than two classes: the log-odds of the label have the same
    direction, and a gradient that does not vanish as the model learns. The members are read with dropout off and
    batch norm frozen.

    Args:
        attribution: what is compared, and where: ``Gradient(space=rt.spaces.Latent(...), output="log_odds")``.
        weight: as in ``rt.Term``. The thesis adds the bare similarity to a loss that is summed alike: 1. The code for
            local independence sums over the batch beside a mean cross-entropy: its lambda times the batch size.
        eps: as in ``rt.priors.Independence``.
        name: in reports.
        schedule: when it acts.
    """

    attribution: Attribution = field(default_factory=lambda: Gradient(output="log_odds"))
    weight: Weight = 1.0
    eps: float = EPS
    name: str = "independence"
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        if not isinstance(self.attribution, Attribution):
            raise ArgumentError(
                "explanations are compared", expected="such as rt.Gradient()", got=type(self.attribution).__name__
            )
        check_weight(self.weight)
        check_number("eps", self.eps, positive=True)

    @property
    def level(self) -> Level:
        """A mean over examples."""
        return "example"

    @property
    def about(self) -> str:
        """In words."""
        return f"squared cosine of {self.attribution!r} between members, eps {self.eps:g}"

    def of(self, model: nn.Module, batch: Batch) -> Tensor:
        """(B,). Raises ``ArgumentError`` for a model without members."""
        if not isinstance(model, Ensemble):
            raise ArgumentError(
                f"the term {self.name!r} compares the members of an ensemble",
                expected="objectives.Ensemble([model, model])",
                got=type(model).__name__,
            )
        found = [self._explained(member, batch) for member in model.members]
        return torch.stack([independence(a, b, self.eps) for a, b in combinations(found, 2)]).sum(0)

    def _explained(self, member: nn.Module, batch: Batch) -> Tensor:
        labels = class_numbers(batch.labels)
        keep = torch.is_grad_enabled()
        return self.attribution(
            member, batch.inputs, labels, create_graph=keep, diagnostics=False, generator=batch.generator
        ).attributions
