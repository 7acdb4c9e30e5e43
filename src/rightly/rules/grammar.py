"""The language: a line of text becomes a ``Rule``, or a ``RuleError`` that says where it stops making sense.

    rule       sentence [condition] [options]
    sentence   things ("increase" | "decrease") prediction
               things "do not matter" ["for" prediction]
               "ignore" things ["for" prediction]
               likes ("act alike" | "matter alike") ["for" prediction]
               "examples" NAME "and" NAME "are alike"
               "only" ("few" | NUMBER) "features matter" ["for" prediction]
    things     ("feature" | "features" | "group" | "region" | "concept") NAMES
    likes      "features" NAMES, or ("features" | "genes") "of" ("group" | "pathway") NAME
    prediction NAME of a class, or "the prediction" of a regression
    condition  ("unless" | "when") "concept" NAME
    options    "(" option {"," option} ")";  option: "weight" | "threshold" | "exceptions" | "name", and its value

NAME stands in double quotes, NAMES are several joined by "and" or commas; "does" and "increases" are as good as "do"
and "increase". What follows # is a comment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NoReturn

from rightly.core.errors import RuleError
from rightly.objectives.term import Weight

Kind = Literal["increase", "decrease", "irrelevant", "act alike", "matter alike", "examples", "few"]
Subject = Literal["feature", "group", "region", "concept", "example", "all"]

_TOKEN = re.compile(r'\s*(?:"([^"]*)"|([A-Za-z][A-Za-z-]*)|([-+]?\d[\w.+-]*)|([(),]))')
_SUBJECTS: dict[str, Subject] = {
    "feature": "feature",
    "features": "feature",
    "group": "group",
    "region": "region",
    "concept": "concept",
}
_STARTS = "feature, features, group, region, concept, ignore, genes, examples, only"
_OPTIONS = ("weight", "threshold", "exceptions", "name")


@dataclass(frozen=True)
class Rule:
    """What one line says.

    Attributes:
        text: as it was written, without its comment.
        line: where, from 1.
        kind: what is asked.
        subject: of what.
        names: of the things.
        prediction: the class named; ``""`` for "the prediction"; None where no prediction is named.
        condition: ``("unless" or "when", concept)``, or None.
        count: of features that may matter; None for "few".
        name: of the term: the sentence without its quotes unless one is given.
        weight: strength of the term.
        threshold: the share of an example's explanation that may go against the rule before it is broken there.
        exceptions: share of the examples that may break it.
    """

    text: str
    line: int
    kind: Kind
    subject: Subject
    names: tuple[str, ...] = ()
    prediction: str | None = None
    condition: tuple[Literal["unless", "when"], str] | None = None
    count: int | None = None
    name: str = ""
    weight: Weight = 1.0
    threshold: float = 0.05
    exceptions: float = 0.0

    def wrong(self, reason: str, *, expected: object = None, mend: str | None = None) -> RuleError:
        """The error that this rule deserves."""
        return RuleError(reason, line=self.line, expected=expected, got=self.text, mend=mend)


def read_rule(text: str, line: int) -> Rule:
    """The rule that a line of text holds. Raises ``RuleError``."""
    return _Reader(text.strip(), line).rule()


def without_comment(text: str) -> str:
    """The line up to a # that stands outside quotes."""
    return re.match(r'(?:[^"#]|"[^"]*"?)*', text)[0].rstrip()  # type: ignore[index]


@dataclass(frozen=True)
class _Token:
    kind: Literal["name", "word", "number", "mark", "end"]
    text: str

    def __str__(self) -> str:
        return {"name": f'"{self.text}"', "end": "the end of the line"}.get(self.kind, self.text)


class _Reader:
    """One line, read from left to right."""

    def __init__(self, text: str, line: int) -> None:
        self.text, self.line = text, line
        self.tokens = self._tokens()
        self.place = 0

    def _tokens(self) -> list[_Token]:
        kinds: tuple[Literal["name", "word", "number", "mark"], ...] = ("name", "word", "number", "mark")
        found, place = [], 0
        while place < len(self.text):
            match = _TOKEN.match(self.text, place)
            if match is None:
                rest = self.text[place:].lstrip()
                if rest.startswith('"'):
                    self.fail("a quote is not closed", 'a name in double quotes, as in feature "age"')
                self.fail(f"{rest[0]!r} means nothing here", 'words, numbers, and names in double quotes (")')
            position = next(i for i, group in enumerate(match.groups()) if group is not None)
            found.append(_Token(kinds[position], match.group(position + 1)))
            place = match.end()
        return [*found, _Token("end", "")]

    def fail(self, reason: str, expected: str) -> NoReturn:
        raise RuleError(reason, line=self.line, expected=expected, got=self.text)

    # ---- one token at a time

    @property
    def next(self) -> _Token:
        return self.tokens[self.place]

    def take(self, *words: str) -> str | None:
        """The next word, if it is one of these."""
        if self.next.kind in ("word", "mark") and self.next.text in words:
            self.place += 1
            return self.tokens[self.place - 1].text
        return None

    def need(self, *words: str, after: str) -> str:
        """The next word, which has to be one of these."""
        return self.take(*words) or self.fail(f"{after} cannot be followed by {self.next}", " or ".join(words))

    def quoted(self, what: str) -> str:
        """A name in quotes."""
        if self.next.kind != "name":
            self.fail(f"{what} needs its name, and there is {self.next}", 'a name in double quotes, as in "age"')
        if not self.next.text.strip():
            self.fail(f"{what} has an empty name", 'a name in double quotes, as in "age"')
        self.place += 1
        return self.tokens[self.place - 1].text

    def quoted_names(self, what: str) -> tuple[str, ...]:
        """Names joined by "and" or commas, none twice."""
        found = [self.quoted(what)]
        while self.take("and", ","):
            found.append(self.quoted(what))
        if len(set(found)) < len(found):
            twice = next(name for name in found if found.count(name) > 1)
            self.fail(f'"{twice}" is named twice', "different names")
        return tuple(found)

    # ---- the grammar

    def rule(self) -> Rule:
        kind, subject, names, count = self.sentence()
        prediction = self.prediction(kind)
        condition = self.condition(kind)
        name = " ".join(token.text for token in self.tokens[: self.place]).replace(" ,", ",")
        weight, threshold, exceptions, given = self.options(kind)
        if self.next.kind != "end":
            self.fail(f"the rule is complete before {self.next}", "one rule a line, options in brackets at its end")
        return Rule(
            self.text,
            self.line,
            kind,
            subject,
            names,
            prediction,
            condition,
            count,
            given or name,
            weight,
            threshold,
            exceptions,
        )

    def sentence(self) -> tuple[Kind, Subject, tuple[str, ...], int | None]:
        """Kind, subject, names, count."""
        if self.take("examples"):
            return "examples", "example", self.examples(), None
        if self.take("only"):
            return "few", "all", (), self.count()
        if self.take("ignore"):
            subject = _SUBJECTS[self.need(*_SUBJECTS, after='"ignore"')]
            return "irrelevant", subject, self.quoted_names(f"the {subject}"), None
        word = self.take("genes", *_SUBJECTS)
        if word is None:
            self.fail(f"no rule starts with {self.next}", _STARTS)
        if word == "genes" or (word == "features" and self.next.text == "of"):
            self.need("of", after=f'"{word}"')
            group = self.need("group", "pathway", after=f'"{word} of"')
            name = self.quoted(f"the {group}")
            return self.alike(), "group", (name,), None
        subject = _SUBJECTS[word]
        names = self.quoted_names(f"the {subject}")
        if subject == "feature" and self.next.text in ("act", "matter"):
            if len(names) < 2:
                self.fail("one feature cannot be alike", 'several, as in features "a" and "b" act alike')
            return self.alike(), "feature", names, None
        return self.effect(subject), subject, names, None

    def effect(self, subject: Subject) -> Kind:
        """What things do."""
        last = str(self.tokens[self.place - 1])
        verb = self.need("increases", "increase", "decreases", "decrease", "does", "do", after=last)
        if verb in ("does", "do"):
            self.need("not", after=f'"{verb}"')
            self.need("matter", after=f'"{verb} not"')
            return "irrelevant"
        if subject == "region":
            self.fail("a region has no direction", "regions can only be ignored; features increase and decrease")
        return "increase" if verb.startswith("increase") else "decrease"

    def alike(self) -> Kind:
        how = self.need("act", "matter", after=str(self.tokens[self.place - 1]))
        self.need("alike", after=f'"{how}"')
        return "act alike" if how == "act" else "matter alike"

    def examples(self) -> tuple[str, ...]:
        names = self.quoted_names("the example")
        if len(names) != 2:
            self.fail(f"{len(names)} examples cannot be compared", 'two, as in examples "a" and "b" are alike')
        self.need("are", after=f'"{names[-1]}"')
        self.need("alike", after='"are"')
        return names

    def count(self) -> int | None:
        found = None
        if not self.take("few"):
            if self.next.kind != "number":
                self.fail(f'"only" cannot be followed by {self.next}', "few, or a number")
            if not self.next.text.isdecimal() or int(self.next.text) < 1:
                self.fail(f"{self.next} features cannot be counted", "few, or a whole number of at least 1")
            found = int(self.next.text)
            self.place += 1
        self.need("features", "feature", after=f'"{self.tokens[self.place - 1]}"')
        self.need("matter", "matters", after='"features"')
        return found

    def prediction(self, kind: Kind) -> str | None:
        directed = kind in ("increase", "decrease")
        if kind == "examples" or not (directed or self.take("for")):
            return None
        if self.take("the"):
            self.need("prediction", after='"the"')
            return ""
        if self.next.kind != "name":
            after = f'"{self.tokens[self.place - 1].text}"'
            self.fail(
                f"{after} needs a prediction, and there is {self.next}", 'a class in double quotes, or "the prediction"'
            )
        return self.quoted("the class")

    def condition(self, kind: Kind) -> tuple[Literal["unless", "when"], str] | None:
        word = self.take("unless", "when")
        if word is None:
            return None
        if kind in ("few", "examples"):
            about = "all features" if kind == "few" else "two examples"
            self.fail(f'a rule about {about} has no "{word}"', "the rule without a condition")
        self.need("concept", after=f'"{word}"')
        name = self.quoted("the concept")
        if self.next.text in ("unless", "when", "and"):
            self.fail("a rule has one condition", f'{word} concept "{name}", and nothing more')
        return ("unless", name) if word == "unless" else ("when", name)

    def options(self, kind: Kind) -> tuple[Weight, float, float, str]:
        """Weight, threshold, exceptions, name."""
        found: dict[str, str] = {}
        if self.take("("):
            while True:
                option = self.need(*_OPTIONS, after=f"{self.tokens[self.place - 1]}")
                if option in found:
                    self.fail(f"{option} is given twice", "each option once")
                found[option] = self.value(option)
                if self.need(",", ")", after=f"{option} {found[option]}") == ")":
                    break
        if "exceptions" in found and kind in ("few", "examples"):
            about = "all features" if kind == "few" else "two examples"
            self.fail(f"a rule about {about} has no exceptions", "rules that are kept or broken by each example")
        return (
            self.weight(found.get("weight", "1")),
            self.share("threshold", found.get("threshold", "0.05")),
            self.share("exceptions", found.get("exceptions", "0")),
            found.get("name", ""),
        )

    def value(self, option: str) -> str:
        token = self.next
        fitting = {"name": ("name",), "weight": ("number", "word")}.get(option, ("number",))
        if token.kind not in fitting:
            expected = "a name in double quotes" if option == "name" else "a number"
            self.fail(f"{option} cannot be {token}", f"{option} and {expected}, as in (weight 2, threshold 0.1)")
        self.place += 1
        if option == "name" and not token.text.strip():
            self.fail("the rule has an empty name", "a name in double quotes")
        return token.text

    def weight(self, text: str) -> Weight:
        if text == "balance":
            return "balance"
        value = self.number(text)
        return value if 0 <= value < float("inf") else self.fail(f"weight cannot be {text}", "a number >= 0 or balance")

    def share(self, option: str, text: str) -> float:
        value = self.number(text)
        return value if 0 <= value < 1 else self.fail(f"{option} cannot be {text}", "a share from 0 to below 1")

    @staticmethod
    def number(text: str) -> float:
        """NaN where it is none, which fits nothing."""
        try:
            return float(text)
        except ValueError:
            return float("nan")
