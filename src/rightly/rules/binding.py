"""From a rule and the things it names to a term that trains, and to a measure of how far a model breaks it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from rightly.attributions import Attribution, Gradient
from rightly.core.annotation import Annotation
from rightly.core.batch import Inputs
from rightly.core.scalar import Output
from rightly.objectives import Term
from rightly.objectives.model_term import AnyTerm
from rightly.priors import (
    ConceptDirection,
    Given,
    GraphSmoothness,
    Irrelevant,
    Lenient,
    Prior,
    Sign,
    Sparsity,
)
from rightly.rules.explained import OfClass, OfSome, value
from rightly.rules.grammar import Rule
from rightly.rules.names import Concept, Names
from rightly.rules.pairs import Alike
from rightly.rules.slope import Slope, slope

#: attributions (B, *F) -> (B,), how far each example's explanation breaks the rule: from 0 to 1
Breach = Callable[[Tensor], Tensor]
#: rows that an explanation of many is taken at once for
_PIECE = 2048


class Bound(Protocol):
    """A rule that knows its things.

    Attributes:
        rule: what was said.
        term: what trains it.
    """

    @property
    def rule(self) -> Rule: ...

    @property
    def term(self) -> AnyTerm: ...

    def violations(self, model: nn.Module, inputs: Inputs) -> Tensor:
        """How far the rule is broken for each example that it speaks of: (M,), from 0 to 1."""


@dataclass(frozen=True)
class Explained:
    """A rule about explanations."""

    rule: Rule
    attribution: Attribution
    prior: Prior
    breach: Breach
    present: OfSome | None = None
    #: (*F) that its names are about; () for any
    shape: tuple[int, ...] = ()

    @property
    def term(self) -> Term:
        """See ``Bound``."""
        prior = Lenient(self.prior, self.rule.exceptions) if self.rule.exceptions else self.prior
        return Term(self.present or self.attribution, prior, self.rule.weight, self.rule.name)

    def violations(self, model: nn.Module, inputs: Inputs) -> Tensor:
        """See ``Bound``."""
        found = self.attribution(model, inputs, diagnostics=False, chunk_size=_PIECE).attributions
        _check_inputs(self.rule, self.shape, found)
        if self.present is not None:
            concerned = self.present.concerned(inputs) > 0.5
            found = found[concerned]
        return self.breach(found) if len(found) else found.new_zeros(0)


def bind(rule: Rule, names: Names) -> Bound:
    """The rule with what its names stand for. Raises ``RuleError`` where that is nothing, or nothing fit."""
    if rule.kind == "examples":
        return Alike.bound(rule, names)
    made = _about_concept(rule, names) if rule.subject == "concept" else _about_features(rule, names)
    if rule.condition is None:
        return made
    how, concept = rule.condition
    return replace(made, present=OfSome(made.attribution, names.present(rule, concept), how))


def _about_concept(rule: Rule, names: Names) -> Explained:
    if len(rule.names) > 1:
        raise rule.wrong("a rule speaks of one concept", expected="a rule for each concept")
    concept = names.direction(rule, rule.names[0])
    attribution = Gradient(space=concept.space, output=_output(rule, names))
    if rule.kind == "irrelevant":
        return Explained(rule, attribution, ConceptDirection(concept.direction), _along(concept, None))
    sign = 1 if rule.kind == "increase" else -1
    return Explained(rule, attribution, Slope(concept.direction, sign), _along(concept, sign))


def _about_features(rule: Rule, names: Names) -> Explained:
    attribution = Gradient(output=_output(rule, names))
    if rule.kind == "few":
        return Explained(rule, attribution, Sparsity(), _outside_the_top(rule.count))
    directed = rule.kind in ("increase", "decrease")
    positions = torch.tensor(names.positions(rule, values=directed))
    if directed:
        signs = torch.zeros(names.shape)
        signs.view(-1)[positions] = 1.0 if rule.kind == "increase" else -1.0

        def against(phi: Tensor) -> Tensor:
            return _share(torch.relu(-signs.to(phi) * phi), phi)

        return Explained(rule, attribution, Sign(signs), against, shape=names.shape)
    if rule.kind == "irrelevant":
        marked = torch.zeros(names.shape, dtype=torch.bool)
        marked.view(-1)[positions] = True
        prior = Given(Irrelevant(), Annotation(irrelevant=marked[None]))
        return Explained(rule, attribution, prior, lambda phi: _share(phi * marked.to(phi), phi), shape=names.shape)
    if len(positions) < 2:
        raise rule.wrong("one feature cannot be alike", expected="two inputs or more")
    signed = rule.kind == "act alike"
    # all pairs, each as much as makes the penalty the sum of squared distances from the mean
    everyone = (1 - torch.eye(len(positions))) / len(positions)
    alike = GraphSmoothness(everyone, level="example", signed=signed, features=positions)
    return Explained(rule, attribution, alike, _unlike(positions, signed), shape=(int(positions.max()) + 1,))


def _check_inputs(rule: Rule, shape: tuple[int, ...], found: Tensor) -> None:
    """The explanation (B, *F) has the features that the rule's names are about; those alike may be some of them.

    A region may stand for all of a dimension, as it may in the prior.
    """
    given = tuple(found.shape[1:])
    if rule.kind.endswith("alike"):
        fits = math.prod(given) >= math.prod(shape[:1])
    elif rule.kind in ("increase", "decrease"):
        fits = given == shape
    else:
        fits = all(own in (1, whole) for own, whole in zip(shape[::-1], given[::-1], strict=False))
        fits = fits and len(shape) <= len(given)
    if shape and not fits:
        raise rule.wrong(f"the names are of {math.prod(shape)} inputs, and the model reads {given}", expected=shape)


def _output(rule: Rule, names: Names) -> Output:
    """The class that is named; all of them as in right-reasons; or a regression's value."""
    number = names.class_of(rule)
    if number is not None:
        return OfClass(number)
    if rule.kind in ("increase", "decrease") and names.classes:
        raise rule.wrong("a class has to be named", expected="a class")
    return "log_prob_sum" if names.classes else value


# ---- how far an explanation breaks a rule


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """Sum of absolute values of a part over that of the whole, 0 where there is nothing: (B, *F) twice -> (B,)."""
    total = whole.flatten(1).abs().sum(1)
    return part.flatten(1).abs().sum(1) / total.clamp_min(torch.finfo(total.dtype).tiny)


def _along(concept: Concept, sign: int | None) -> Breach:
    """The share of a gradient's length that points along a concept; with a sign, only the wrong way."""

    def breach(phi: Tensor) -> Tensor:
        cosine = slope(phi, concept.direction) / torch.linalg.vector_norm(phi.flatten(1), dim=1).clamp_min(
            torch.finfo(phi.dtype).tiny
        )
        return cosine.abs() if sign is None else torch.relu(-sign * cosine)

    return breach


def _unlike(positions: Tensor, signed: bool) -> Breach:
    """The share of the explanation that would have to move from some of the features to others to make them alike."""

    def breach(phi: Tensor) -> Tensor:
        own = phi.flatten(1)[:, positions.to(phi.device)]
        own = own if signed else own.abs()
        return _share((own - own.mean(1, keepdim=True)) / 2, phi)

    return breach


def _outside_the_top(count: int | None) -> Breach:
    """The share of each explanation outside the features that matter most in all of them; "few" is a tenth."""

    def breach(phi: Tensor) -> Tensor:
        sizes = phi.flatten(1).abs()
        most = min(count or math.ceil(sizes.shape[1] / 10), sizes.shape[1])
        outside = torch.ones(sizes.shape[1], device=sizes.device)
        outside[sizes.mean(0).topk(most).indices] = 0
        return _share(sizes * outside, sizes)

    return breach
