"""What the names in rules stand for: features, groups, regions, concepts, examples and classes."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from rightly.core.batch import Inputs
from rightly.core.errors import ArgumentError
from rightly.core.types import Space
from rightly.rules.grammar import Rule
from rightly.spaces import Input

Presence = Callable[[Inputs], Tensor]
_T = TypeVar("_T")


@dataclass(frozen=True)
class Feature:
    """A feature as a model reads it.

    Attributes:
        inputs: positions in the flattened input: one for a number, several for a category or a flag beside it.
        value: the position whose growth is the feature's; None where none is, as for the levels of a category.
        mean, scale: the feature in its own unit is ``mean + scale * inputs[:, value]``.
        missing: the position that is 1 where the entry is missing, whatever its value says; such an entry meets no
            condition. None where no input tells it.
    """

    inputs: tuple[int, ...]
    value: int | None = None
    mean: float = 0.0
    scale: float = 1.0
    missing: int | None = None

    @classmethod
    def at(cls, position: int) -> Feature:
        """A number that is one input."""
        return cls((position,), position)


@dataclass(frozen=True)
class Concept:
    """A concept as a direction in a space: more of it that way.

    Attributes:
        direction: (*F) of the space, or its first dimensions; see ``rt.priors.ConceptDirection``.
        space: the input, or a layer such as ``rt.spaces.Layer("encoder")``.
        present: inputs -> (B,), how much of the concept each example shows, from 0 (or False) to 1, for rules that hold
            "unless" or "when" it is there. A concept may also be such a function alone, without a direction.
    """

    direction: Tensor
    space: Space = field(default_factory=Input)
    present: Presence | None = None


@dataclass(frozen=True)
class Condition:
    """A concept told by a feature: present where it is above, below or equal to something, in its own unit."""

    feature: str
    above: float = -math.inf
    below: float = math.inf
    level: str | None = None


Group = Sequence[str] | Sequence[int]
AnyConcept = Concept | Presence | Condition


class Names:
    """Everything that rules may speak of; see ``Rules.compile`` for the arguments."""

    def __init__(
        self,
        features: Sequence[str] | Mapping[str, int | Feature],
        groups: Mapping[str, Group],
        concepts: Mapping[str, AnyConcept],
        regions: Mapping[str, Tensor],
        examples: Mapping[str, Tensor],
        classes: Sequence[str],
    ) -> None:
        self.features = _features(features)
        self.groups, self.concepts = dict(groups), dict(concepts)
        self.regions, self.examples, self.classes = dict(regions), dict(examples), list(classes)
        counted = [position for feature in self.features.values() for position in feature.inputs]
        shapes = {tuple(region.shape) for region in self.regions.values() if isinstance(region, Tensor)}
        if len(shapes) > 1:
            raise ArgumentError("regions are of one shape", expected="one shape (*F)", got=sorted(shapes))
        #: (*F) of an example
        self.shape = shapes.pop() if shapes else (1 + max(counted),) if counted else ()

    # ---- for a rule

    def positions(self, rule: Rule, *, values: bool = False) -> list[int]:
        """Where its features, groups or regions lie in the flattened input; only where they grow, for ``values``."""
        found: list[int] = []
        for name in rule.names:
            if rule.subject == "feature":
                found += self._of_feature(rule, name, values)
            elif rule.subject == "group":
                found += self._of_group(rule, name, values)
            else:
                found += self._of_region(rule, name)
        if not self.shape:
            raise rule.wrong("positions are among inputs", expected="features=[...], the names of all inputs")
        if odd := [position for position in found if not 0 <= position < math.prod(self.shape)]:
            raise rule.wrong(
                f"a {rule.subject} has a position that the inputs do not have: {odd[0]}",
                expected=f"0 to {math.prod(self.shape) - 1}",
            )
        return list(dict.fromkeys(found))

    def concept(self, rule: Rule, name: str) -> AnyConcept:
        """What a concept is."""
        found = _look_up(rule, "concept", name, self.concepts)
        if not isinstance(found, Concept | Condition) and not callable(found):
            raise rule.wrong(
                f'the concept "{name}" cannot be used',
                expected="a rt.rules.Concept, or a function inputs -> (B,)",
                mend=f"concepts={{{name!r}: rt.rules.Concept(direction)}}",
            )
        return found

    def direction(self, rule: Rule, name: str) -> Concept:
        """A concept that has one."""
        found = self.concept(rule, name)
        if isinstance(found, Condition):
            feature = self._condition(rule, name, found)
            if found.above > -math.inf and found.below < math.inf:
                raise rule.wrong(
                    f'the concept "{name}" lies between two bounds, so that more of it has no direction',
                    expected="above or below alone; with both it can only be a condition (when, unless)",
                )
            if feature.value is not None and 0 <= feature.value < math.prod(self.shape or (0,)):
                way = torch.zeros(self.shape)
                way.view(-1)[feature.value] = -1.0 if found.below < math.inf else 1.0
                return Concept(way, present=_presence(feature, found))
        if isinstance(found, Concept) and isinstance(found.direction, Tensor) and found.direction.is_floating_point():
            return found
        raise rule.wrong(
            f'the concept "{name}" has no direction that a model could follow',
            expected="rt.rules.Concept(direction=...), a floating tensor shaped like the space",
        )

    def present(self, rule: Rule, name: str) -> Presence:
        """How much of a concept examples show."""
        found = self.concept(rule, name)
        if isinstance(found, Condition):
            return _presence(self._condition(rule, name, found), found)
        present = found.present if isinstance(found, Concept) else found
        if present is None:
            raise rule.wrong(
                f'nothing tells which examples show the concept "{name}"',
                expected="rt.rules.Concept(..., present=function of the inputs)",
            )
        return present

    def pair(self, rule: Rule) -> Tensor:
        """The two examples of a rule, (2, *F)."""
        found = [_look_up(rule, "example", name, self.examples) for name in rule.names]
        if not all(isinstance(one, Tensor) for one in found) or found[0].shape != found[1].shape:
            raise rule.wrong("the two examples cannot be compared", expected="tensors of one shape (*F)")
        return torch.stack(found)

    def class_of(self, rule: Rule) -> int | None:
        """The number of the class that a rule names; None for a regression's value and for all classes together."""
        if rule.prediction is None:
            return None
        if rule.prediction == "" and self.classes:
            raise rule.wrong('"the prediction" is a regression\'s', expected="a class: " + _listed(self.classes))
        if rule.prediction == "":
            return None
        if not self.classes:
            raise rule.wrong("there are no classes here", expected='"the prediction" without quotes, or classes=[...]')
        _look_up(rule, "class", rule.prediction, {name: name for name in self.classes})
        return self.classes.index(rule.prediction)

    # ---- one thing

    def _feature(self, rule: Rule, name: str) -> Feature:
        return _look_up(rule, "feature", name, self.features)

    def _of_feature(self, rule: Rule, name: str, values: bool) -> list[int]:
        feature = self._feature(rule, name)
        if not values:
            return list(feature.inputs)
        if feature.value is None:
            levels = [other for other in self.features if other.startswith(f"{name}=")]
            raise rule.wrong(
                f'"{name}" has no order, so it cannot increase or decrease anything',
                expected="a number" + (f", or a level: {_listed(levels)}" if levels else ""),
            )
        return [feature.value]

    def _of_group(self, rule: Rule, name: str, values: bool) -> list[int]:
        members = _look_up(rule, "group", name, self.groups)
        if isinstance(members, str) or not isinstance(members, Sequence) or not members:
            raise rule.wrong(f'the group "{name}" has no members', expected="a list of features")
        found: list[int] = []
        for member in members:
            if isinstance(member, bool) or not isinstance(member, int | str):
                raise rule.wrong(f'the group "{name}" holds {member!r}', expected="names of features, or positions")
            found += [member] if isinstance(member, int) else self._of_feature(rule, member, values)
        return found

    def _of_region(self, rule: Rule, name: str) -> list[int]:
        region = _look_up(rule, "region", name, self.regions)
        if not isinstance(region, Tensor) or not bool((region != 0).any()):
            raise rule.wrong(f'the region "{name}" is empty', expected="a boolean tensor shaped like an example")
        marked: list[int] = region.flatten().nonzero()[:, 0].tolist()
        return marked

    def _condition(self, rule: Rule, name: str, condition: Condition) -> Feature:
        if condition.level is None:
            feature = self._feature(rule, condition.feature)
        else:
            feature = self._feature(rule, f"{condition.feature}={condition.level}")
        if feature.value is None:
            raise rule.wrong(
                f'the concept "{name}" compares "{condition.feature}", which has no order', expected="is = a level"
            )
        return feature


def _presence(feature: Feature, condition: Condition) -> Presence:
    """Which examples meet a condition."""

    def present(inputs: Inputs) -> Tensor:
        if not isinstance(inputs, Tensor):
            raise ArgumentError("a condition on a feature reads one tensor", expected="a tensor", got=type(inputs))
        every = inputs.flatten(1)
        values = every[:, feature.value]
        if condition.level is not None:
            return values > 0.5
        own = feature.mean + feature.scale * values
        met = (own > condition.above) & (own < condition.below)
        return met if feature.missing is None else met & (every[:, feature.missing] <= 0.5)

    return present


def _features(given: Sequence[str] | Mapping[str, int | Feature]) -> dict[str, Feature]:
    if isinstance(given, Mapping):
        return {name: one if isinstance(one, Feature) else Feature.at(one) for name, one in given.items()}
    if isinstance(given, str) or len(set(given)) < len(given):
        raise ArgumentError("features have names of their own", expected="different names, one a feature", got=given)
    return {name: Feature.at(position) for position, name in enumerate(given)}


def _look_up(rule: Rule, what: str, name: str, known: Mapping[str, _T]) -> _T:
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    raise rule.wrong(
        f'there is no {what} "{name}"',
        expected=_listed(known) or f"{what}s, which were not given",
        mend=f'did you mean "{near[0]}"?' if near else None,
    )


def _listed(names: Iterable[str], most: int = 12) -> str:
    names = list(names)
    return ", ".join(f'"{name}"' for name in names[:most]) + (f" and {len(names) - most} more" * (len(names) > most))
