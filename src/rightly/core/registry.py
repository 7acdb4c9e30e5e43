"""The one list of components: the command line, the reference pages and the contract tests read it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from rightly.core.citations import CITATIONS
from rightly.core.errors import ArgumentError

Family = Literal["space", "reference", "attribution", "prior"]

#: the rooms whose import fills the registry
_ROOMS = {
    "space": "rightly.spaces",
    "reference": "rightly.references",
    "attribution": "rightly.attributions",
    "prior": "rightly.priors",
}

#: What a component can declare; the contract tests hold it to its word.
TRAITS = frozenset(
    {
        "complete",  # sum(phi) = f(x) - E f(x') to 1e-10 in float64
        "implementation_invariant",  # equal functions, equal attributions
        "sensitive",  # a feature that the function ignores gets zero
        "linear",  # phi of a sum of models is the sum of the phis
        "symmetric",  # interchangeable features with equal values get equal attributions
        "pairwise",  # explains pairs of features: (B, *F, *F)
        "images",  # wants (B, C, H, W)
        "vectors",  # a space that gives (B, K), whatever the examples' shape
        "relative",  # a space where all examples have the same coordinates, so that one is no reference for another
        "sampled",  # draws random numbers
    }
)


@dataclass(frozen=True)
class Entry:
    """A registered component.

    Attributes:
        name: how the command line calls it.
        cls: the class.
        example: makes keyword arguments for the contract tests, given the shape (*F) of one example.
        traits: see ``TRAITS``.
        citation: key into the bibliography.
    """

    name: str
    family: Family
    cls: type[Any]
    example: Callable[[tuple[int, ...]], Mapping[str, Any]]
    traits: frozenset[str]
    citation: str

    @property
    def summary(self) -> str:
        """First line of the class' docstring."""
        return (self.cls.__doc__ or "").strip().split("\n")[0]


_ENTRIES: dict[tuple[str, str], Entry] = {}
_C = TypeVar("_C", bound=type[Any])


def register(
    family: Family,
    *,
    citation: str,
    traits: tuple[str, ...] = (),
    example: Callable[[tuple[int, ...]], Mapping[str, Any]] = lambda shape: {},
) -> Callable[[_C], _C]:
    """Class decorator that adds a component under its name in snake_case."""
    if unknown := set(traits) - TRAITS:
        raise ArgumentError("unknown trait", expected=sorted(TRAITS), got=sorted(unknown))
    if citation not in CITATIONS:
        raise ArgumentError("unknown citation", expected=sorted(CITATIONS), got=citation)

    def add(cls: _C) -> _C:
        name = snake_case(cls.__name__)
        if (family, name) in _ENTRIES:
            raise ArgumentError(f"there is already a {family} called {name}")
        _ENTRIES[family, name] = Entry(name, family, cls, example, frozenset(traits), citation)
        return cls

    return add


def snake_case(name: str) -> str:
    """``InputXGradient`` -> ``input_x_gradient``, ``L1`` -> ``l1``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def family(name: Family) -> dict[str, Entry]:
    """All components of a family by name, in the order of their registration."""
    if name not in _ROOMS:
        raise ArgumentError("there is no such family", expected=", ".join(_ROOMS), got=repr(name))
    importlib.import_module(_ROOMS[name])
    return {entry.name: entry for entry in _ENTRIES.values() if entry.family == name}


def find(family_name: Family, name: str) -> Entry:
    """The component ``name``, written in snake_case, with hyphens, or as the class is called."""
    entries = family(family_name)
    wanted = snake_case(str(name)).replace("-", "_")
    if wanted not in entries:
        raise ArgumentError(f"there is no {family_name} called {name!r}", expected=", ".join(entries), got=name)
    return entries[wanted]


def name_of(component: object) -> str:
    """The registered name of an instance; for others its class name in snake_case."""
    return snake_case(cast(type[Any], type(component)).__name__)
