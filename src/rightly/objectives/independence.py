"""Models of one task trained at once, each for reasons of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rightly.attributions import Attribution, Gradient
from rightly.core.batch import outputs_of
from rightly.core.checks import check_count, check_number
from rightly.core.errors import ArgumentError
from rightly.objectives.engines import class_numbers
from rightly.objectives.model_term import Batch, ModelTerm
from rightly.objectives.term import Schedule, Weight, check_weight
from rightly.priors.base import Level
from rightly.priors.independence import EPS, independence

Loss = Callable[[Tensor, Tensor], Tensor]


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


class EveryMember(nn.Module):
    """The loss of an ensemble: the sum of its members' (Ross 2018, eq. 2.1).

    Args:
        loss: (outputs, labels) -> scalar. Of a module each member has a copy, so that a state (``rt.GroupDRO``) is
            its own, and kept in ``state_dict``.
        count: how many members there are.
    """

    def __init__(self, loss: Loss, count: int) -> None:
        super().__init__()
        check_count("count", count, least=2)
        self.losses: Iterable[Loss] = (
            nn.ModuleList(copy.deepcopy(loss) for _ in range(count)) if isinstance(loss, nn.Module) else [loss] * count
        )

    def forward(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """(B, M, ...) -> ()."""
        pairs = zip(self.losses, outputs.unbind(1), strict=True)
        return torch.stack([loss(own, labels) for loss, own in pairs]).sum()


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
        # members are compared, so each has the same draws
        draws = _SameDraws()
        found = []
        for member in model.members:
            with draws.from_the_start():
                found.append(self._explained(member, batch))
        return torch.stack([independence(a, b, self.eps) for a, b in combinations(found, 2)]).sum(0)

    def _explained(self, member: nn.Module, batch: Batch) -> Tensor:
        labels = class_numbers(batch.labels)
        keep = torch.is_grad_enabled()
        found = self.attribution(
            member, batch.inputs, labels, create_graph=keep, diagnostics=False, generator=batch.generator
        ).attributions
        # squared lengths, and eps, have no room in half precision
        return found if found.element_size() > 2 else found.float()


class _SameDraws(TorchFunctionMode):
    """From the start again, generators give what they gave the first time, and are left as that left them.

    Draws of plain numbers are kept and not repeated, so that a compiled step finds each once. One that reads or fills
    a tensor is repeated from the state that the generator had.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: list[tuple[torch.Generator, Tensor, Any, Any]] = []
        self._turn = 0

    def from_the_start(self) -> Self:
        """To be entered, for the next member."""
        self._turn = 0
        return self

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        generator = kwargs.get("generator")
        if generator is None:
            return func(*args, **kwargs)
        fixed = not any(isinstance(part, Tensor) for part in (*args, *kwargs.values()))
        asked = (func, args, {**kwargs, "generator": None}) if fixed else None
        turn, self._turn = self._turn, self._turn + 1
        if turn == len(self._known):
            before = generator.get_state()
            drawn = func(*args, **kwargs)
            self._known.append((generator, before, asked, drawn))
            return drawn
        own, before, known, drawn = self._known[turn]
        if fixed and known == asked:
            return drawn.clone()
        after = own.get_state()
        try:
            return func(*args, **{**kwargs, "generator": own.set_state(before)})
        finally:
            own.set_state(after)
