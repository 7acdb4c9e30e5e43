"""``parse``: rules from text or from a TOML file, ready to be compiled into terms and to be held against a model."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor, nn

from rightly.core.batch import Inputs
from rightly.core.errors import DataError, RuleError
from rightly.objectives.model_term import AnyTerm
from rightly.rules.binding import Bound, bind
from rightly.rules.grammar import Rule, read_rule, without_comment
from rightly.rules.names import AnyConcept, Condition, Feature, Group, Names


@dataclass(frozen=True)
class Holding:
    """How well a model keeps a rule.

    Attributes:
        rule: which.
        examples: how many the rule speaks of.
        holds: the share of them on which it holds: whose violation is at most the rule's threshold. None for none.
        violation: the mean over them of the share of the explanation that goes against the rule, from 0 to 1 (for two
            examples, how far apart their predictions are). None for none.
    """

    rule: Rule
    examples: int
    holds: float | None
    violation: float | None

    def __str__(self) -> str:
        if self.holds is None or self.violation is None:
            return f"{self.rule.name}: speaks of no example"
        return f"{self.rule.name}: holds on {self.holds:.1%} of {self.examples}, mean violation {self.violation:.3f}"


@dataclass(frozen=True)
class Rules:
    """Rules as they were written.

    Attributes:
        rules: in order.
        groups, concepts: defined beside them in a file; what ``compile`` is given under the same name comes first.
    """

    rules: tuple[Rule, ...]
    groups: Mapping[str, Group] = field(default_factory=dict)
    concepts: Mapping[str, AnyConcept] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rules)

    def compile(
        self,
        *,
        features: Sequence[str] | Mapping[str, int | Feature] = (),
        groups: Mapping[str, Group] | None = None,
        concepts: Mapping[str, AnyConcept] | None = None,
        regions: Mapping[str, Tensor] | None = None,
        examples: Mapping[str, Tensor] | None = None,
        classes: Sequence[str] = (),
    ) -> list[AnyTerm]:
        """A named term for every rule.

        Args:
            features: names of the model's inputs in order, or name -> position or ``Feature``.
            groups: name -> names of features, or positions in the flattened input.
            concepts: name -> ``Concept``, or a function of the inputs that says where it is present.
            regions: name -> boolean tensor (*F) of an example.
            examples: name -> inputs (*F).
            classes: names of the model's outputs in order; of a single logit the names of 0 and 1; none in a
                regression.

        Raises:
            RuleError: a rule speaks of something that is not there, or that cannot do what it says.
        """
        return [bound.term for bound in self._bound(features, groups, concepts, regions, examples, classes)]

    def holds(
        self,
        model: nn.Module,
        inputs: Inputs,
        *,
        features: Sequence[str] | Mapping[str, int | Feature] = (),
        groups: Mapping[str, Group] | None = None,
        concepts: Mapping[str, AnyConcept] | None = None,
        regions: Mapping[str, Tensor] | None = None,
        examples: Mapping[str, Tensor] | None = None,
        classes: Sequence[str] = (),
    ) -> list[Holding]:
        """How well a model keeps every rule on these inputs (B, ...); the names as for ``compile``."""
        bound = self._bound(features, groups, concepts, regions, examples, classes)
        return [_holding(one, model, inputs) for one in bound]

    def _bound(
        self,
        features: Sequence[str] | Mapping[str, int | Feature],
        groups: Mapping[str, Group] | None,
        concepts: Mapping[str, AnyConcept] | None,
        regions: Mapping[str, Tensor] | None,
        examples: Mapping[str, Tensor] | None,
        classes: Sequence[str],
    ) -> list[Bound]:
        names = Names(
            features,
            {**self.groups, **(groups or {})},
            {**self.concepts, **(concepts or {})},
            regions or {},
            examples or {},
            classes,
        )
        return [bind(rule, names) for rule in self.rules]


def _holding(bound: Bound, model: nn.Module, inputs: Inputs) -> Holding:
    violations = bound.violations(model, inputs).double()
    if len(violations) == 0:
        return Holding(bound.rule, 0, None, None)
    kept = violations <= bound.rule.threshold
    return Holding(bound.rule, len(violations), float(kept.double().mean()), float(violations.mean()))


def parse(source: str | Path) -> Rules:
    """Rules from text, one a line, or from a TOML file.

    A file has a text ``rules = '''...'''``, and may define what they speak of::

        [groups]
        labs = ["albumin", "creatinine"]

        [concepts]
        treated = { feature = "drug", is = "yes" }
        old = { feature = "age", above = 65 }

    Args:
        source: the text, or the path of a file (a ``Path``, or text that ends in ``.toml``).

    Raises:
        RuleError: a rule cannot be read; says the line (of the file), the rule and the reason.
        DataError: the file cannot be read.
    """
    if isinstance(source, Path) or (source.endswith(".toml") and "\n" not in source):
        return _from_toml(Path(source))
    return Rules(_read(source, 1))


def _read(text: str, first: int) -> tuple[Rule, ...]:
    """The rules of a text whose first line has this number."""
    found: dict[str, Rule] = {}
    for number, raw in enumerate(text.split("\n"), first):
        line = without_comment(raw)
        if not line.strip():
            continue
        rule = read_rule(line, number)
        if rule.name in found:
            raise rule.wrong(
                f"this is said in line {found[rule.name].line} already",
                expected="each rule once",
                mend='give one of them a name of its own: (name "...")',
            )
        found[rule.name] = rule
    if not found:
        raise RuleError("there is no rule", line=first, expected='such as: feature "age" increases "risk"', got="none")
    return tuple(found.values())


# ---- files


def _from_toml(path: Path) -> Rules:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("the rules cannot be read", expected="a TOML file", got=str(error)) from None
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        raise RuleError(
            "this is no TOML",
            line=int(line[1]) if line else text.count("\n") + 1,
            expected="rules = '''...''', [groups] and [concepts]",
            got=str(error),
        ) from None
    for key in given:
        if key not in ("rules", "groups", "concepts"):
            _wrong(text, key, f"{key!r} means nothing here", "rules, [groups], [concepts]", key)
    rules = given.get("rules")
    if not isinstance(rules, str):
        got = "no rules" if rules is None else type(rules).__name__
        _wrong(text, "rules", "rules are a text, one a line", "rules = '''...'''", got)
    groups, concepts = (_table(text, given, key) for key in ("groups", "concepts"))
    return Rules(
        _read(rules, _first_line(text)),
        {name: _group(text, name, value) for name, value in groups.items()},
        {name: _condition(text, name, value) for name, value in concepts.items()},
    )


def _table(text: str, given: dict[str, Any], key: str) -> dict[str, Any]:
    found = given.get(key, {})
    if not isinstance(found, dict):
        _wrong(text, key, f"{key} are a table", f"[{key}]", type(found).__name__)
    return found


def _group(text: str, name: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(member, str) for member in value):
        _wrong(text, name, f"the group {name!r} is no list of features", '["age", "sex"]', value)
    return value


def _condition(text: str, name: str, value: Any) -> Condition:
    expected = '{ feature = "age", above = 65 }, { feature = "age", below = 18 } or { feature = "drug", is = "yes" }'
    wrong = f"the concept {name!r} cannot be read"
    if not isinstance(value, dict) or set(value) - {"feature", "above", "below", "is"} or len(value) < 2:
        _wrong(text, name, wrong, expected, value)
    if not isinstance(value.get("feature"), str) or ("is" in value and len(value) > 2):
        _wrong(text, name, wrong, expected, value)
    bounds = {key: value[key] for key in ("above", "below") if key in value}
    if any(isinstance(bound, bool) or not isinstance(bound, int | float) for bound in bounds.values()):
        _wrong(text, name, wrong, expected, value)
    return Condition(value["feature"], **bounds, level=str(value["is"]) if "is" in value else None)


def _wrong(text: str, key: str, reason: str, expected: str, got: object) -> NoReturn:
    raise RuleError(reason, line=_line_of(text, key), expected=expected, got=got)


def _line_of(text: str, key: str) -> int:
    """Where a key of the file, or a table of that name, stands; the first line for a key that is nowhere."""
    place = re.search(rf"""^\s*(?:\[+\s*)?["']?{re.escape(key)}["']?\s*[=\].]""", text, re.MULTILINE)
    return 1 if place is None else text.count("\n", 0, place.end()) + 1


def _first_line(text: str) -> int:
    """Where the text of the rules starts: TOML leaves out a line break right behind the opening quotes."""
    place = re.search(r"""^\s*["']?rules["']?\s*=\s*(?:\"{3}\n|'{3}\n)?""", text, re.MULTILINE)
    return 1 if place is None else text.count("\n", 0, place.end()) + 1
