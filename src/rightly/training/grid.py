"""Which trainings a grid asks for: alternative priors x splits x weights x seeds, in a stable order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rightly.core.errors import ArgumentError
from rightly.objectives.model_term import AnyTerm
from rightly.objectives.term import Weight
from rightly.training.batches import Data

Split = tuple[Data, Data | None]
Terms = Sequence[AnyTerm] | Callable[[Data], Sequence[AnyTerm]]
Splits = Mapping[str, Split] | Callable[[int], Split]
Grid = Mapping[str, Sequence[Weight]]


@dataclass(frozen=True)
class Spec:
    """One training of a grid.

    Attributes:
        number: its place in the order.
        setting: ``prior`` and ``split`` (names, where there are several) and the weights as the grid names them.
        seed: of the model, the order of the batches and all draws.
        train, validation, terms: what ``rt.fit`` is given, weights set.
    """

    number: int
    setting: dict[str, Any]
    seed: int
    train: Data
    validation: Data | None
    terms: tuple[AnyTerm, ...]


def specs(
    terms: Terms | Mapping[str, Terms],
    train: Data | None,
    validation: Data | None,
    grid: Grid,
    seeds: Iterable[int],
    splits: Splits | None,
) -> list[Spec]:
    """Every training, priors first and seeds last."""
    numbers = _seeds(seeds)
    if (train is None) == (splits is None):
        got = "both" if splits is not None else "neither"
        raise ArgumentError("data come in one way", expected="train (and validation), or splits=", got=got)
    _check_grid(grid)
    alternatives = terms if isinstance(terms, Mapping) else {"": terms}
    if not alternatives:
        raise ArgumentError("there is no alternative to train", expected="{name: [rt.Term(...)]}", got="{}")
    parts = _parts(splits, train, validation, numbers)
    found: list[Spec] = []
    used: set[str] = set()
    for prior, given in alternatives.items():
        for name, by_seed in parts.items():
            lists = {seed: _list(given(split[0]) if callable(given) else given) for seed, split in by_seed.items()}
            axes = _axes(grid, next(iter(lists.values())))
            used |= set(axes)
            named = ({"prior": prior} if prior else {}) | ({"split": name} if name else {})
            for weights in itertools.product(*axes.values()):
                for seed in numbers:
                    setting = dict(zip(axes, weights, strict=True))
                    one = tuple(_weighted(term, setting, len(lists[seed])) for term in lists[seed])
                    found.append(Spec(len(found), named | setting, seed, *by_seed[seed], one))
    if unknown := [name for name in grid if name not in used]:
        raise ArgumentError(
            "the grid names what is no term",
            expected="'weight' for the only term of a list, or the names of terms",
            got=", ".join(unknown),
            mend="Term(..., name=...) names a term",
        )
    return found


def _list(terms: object) -> tuple[AnyTerm, ...]:
    if isinstance(terms, list | tuple) and all(isinstance(term, AnyTerm) for term in terms):
        return tuple(terms)
    raise ArgumentError("terms come in a list", expected="[rt.Term(...)]", got=repr(terms))


def _parts(
    splits: Splits | None, train: Data | None, validation: Data | None, seeds: Sequence[int]
) -> dict[str, dict[int, Split]]:
    """Name of the split -> seed -> its data; a function's splits have no name, every seed has its own."""
    if splits is None:
        return {"": dict.fromkeys(seeds, (train, validation))}  # type: ignore[arg-type]
    if callable(splits):
        return {"": {seed: splits(seed) for seed in seeds}}
    if not splits:
        raise ArgumentError("there is no split", expected="{name: (train, validation)}", got="{}")
    return {name: dict.fromkeys(seeds, split) for name, split in splits.items()}


def _axes(grid: Grid, terms: Sequence[AnyTerm]) -> dict[str, Sequence[Weight]]:
    """The part of the grid that says something about these terms."""
    names = [term.name for term in terms]
    if "weight" in grid and "weight" not in names and len(terms) > 1:
        raise ArgumentError(
            "the grid's 'weight' could mean any of several terms", expected=", ".join(names), got="weight"
        )
    return {name: weights for name, weights in grid.items() if name in names or (name == "weight" and terms)}


def _weighted(term: AnyTerm, setting: Mapping[str, Weight], terms: int) -> AnyTerm:
    weight = setting.get(term.name, setting.get("weight", term.weight) if terms == 1 else term.weight)
    return term.with_weight(weight)


def _check_grid(grid: Grid) -> None:
    for name, weights in grid.items():
        if isinstance(weights, str) or not isinstance(weights, Sequence) or not weights:
            raise ArgumentError(f"the grid of {name!r} is a list of weights", expected="[0, 0.1, 1]", got=repr(weights))
        if len(set(weights)) < len(weights):
            raise ArgumentError(f"the grid of {name!r} names a weight twice", expected="each once", got=list(weights))


def _seeds(seeds: Iterable[int]) -> list[int]:
    numbers = list(seeds)
    if not numbers or any(not isinstance(seed, int) or isinstance(seed, bool) for seed in numbers):
        raise ArgumentError("seeds are whole numbers, at least one", expected="range(5)", got=repr(numbers))
    if len(set(numbers)) < len(numbers):
        raise ArgumentError("a seed comes twice", expected="each once", got=numbers)
    return numbers
