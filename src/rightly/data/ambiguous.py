"""Planted ambiguity: training data that either of two rules explains, and a test part for each rule alone.

Source: Ross, "Training Machine Learning Models by Regularizing their Explanations", 2018: toy colours (section 2.3.1),
two quadrants (appendix 2.C), squares (section 4.2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError

_COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 128, 255), (128, 0, 255)], dtype=np.float32) / 255
_CORNERS, _TOP_MIDDLE = ((0, 0), (0, 4), (4, 0), (4, 4)), ((0, 1), (0, 2), (0, 3))


class Part(NamedTuple):
    """Inputs (N, ...) float32 and labels (N,) int64, 0 or 1."""

    inputs: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class TwoRules:
    """Data that two rules explain.

    Attributes:
        train, test: both rules tell the label.
        alone: for each rule a test part where it alone tells the label and the other one says nothing.
        regions: for each rule the features that it reads, (1, ...) bool, where they are always the same.
    """

    train: Part
    test: Part
    alone: Mapping[str, Part]
    regions: Mapping[str, np.ndarray]


def toy_colors(seed: int, rows: int = 20_000, test_rows: int = 20_000) -> TwoRules:
    """Pictures (N, 3, 5, 5) of four colours. In class 1 all ``corners`` are alike and the ``top_middle`` three differ.

    In class 0 neither is so. The rules are drawn evenly: a corner pattern among the 4 that are alike or the 252 that
    are not, three top colours among the 24 that differ or the 40 that do not; the other pixels are drawn freely.
    """

    def draw(count: int, first: np.ndarray, second: np.ndarray, draws: np.random.Generator) -> np.ndarray:
        cells = draws.integers(0, 4, (count, 5, 5))
        for places, patterns, says in ((_CORNERS, _ALIKE, first), (_TOP_MIDDLE, _DIFFERENT, second)):
            chosen = [found[draws.integers(0, len(found), count)] for found in patterns]
            values = np.where(says[:, None] == 1, chosen[1], chosen[0])
            cells[:, [y for y, _ in places], [x for _, x in places]] = values
        return np.ascontiguousarray(_COLOURS[cells].transpose(0, 3, 1, 2))

    regions = {}
    for name, places in (("corners", _CORNERS), ("top_middle", _TOP_MIDDLE)):
        regions[name] = np.zeros((1, 1, 5, 5), dtype=bool)
        for y, x in places:
            regions[name][..., y, x] = True
    return _two_rules(("corners", "top_middle"), draw, regions, seed, rows, test_rows)


def two_quadrants(seed: int, rows: int = 500, test_rows: int = 2000) -> TwoRules:
    """Points (N, 2): class 1 evenly over the first quadrant up to 1, class 0 over the third."""

    def draw(count: int, first: np.ndarray, second: np.ndarray, draws: np.random.Generator) -> np.ndarray:
        sides = np.stack([first, second], 1) * 2 - 1
        return (sides * draws.uniform(0, 1, (count, 2))).astype(np.float32)

    regions = {name: np.array([[at == 0, at == 1]]) for at, name in enumerate(("first", "second"))}
    return _two_rules(("first", "second"), draw, regions, seed, rows, test_rows)


def confounded_squares(seed: int, rows: int = 4000, test_rows: int = 2000, side: int = 16) -> TwoRules:
    """Grey pictures (N, 1, side, side) of a white square somewhere: class 1 has a light background and a large square.

    Class 0 has a dark background and a small square. The background is uniform in 0 to 0.25, or 0.45 to 0.7; the
    square's sides are an eighth to a quarter, or three to four eighths, of the picture's.
    """
    check_count("side", side, least=8)
    sizes = [np.arange(side // 8, side // 4 + 1), np.arange(3 * side // 8, side // 2 + 1)]

    def draw(count: int, first: np.ndarray, second: np.ndarray, draws: np.random.Generator) -> np.ndarray:
        shade = draws.uniform(0, 0.25, count) + 0.45 * first
        width = np.where(second == 1, *(draws.choice(options, count) for options in reversed(sizes)))
        down, right = (np.floor(draws.uniform(0, side - width + 1)).astype(int) for _ in range(2))
        place = np.arange(side)
        inside = [(place >= at[:, None]) & (place < (at + width)[:, None]) for at in (down, right)]
        square = inside[0][:, :, None] & inside[1][:, None, :]
        return np.where(square, 1.0, shade[:, None, None]).astype(np.float32)[:, None]

    return _two_rules(("background", "size"), draw, {}, seed, rows, test_rows)


Draw = Callable[[int, np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def _two_rules(
    names: tuple[str, str], draw: Draw, regions: Mapping[str, np.ndarray], seed: int, rows: int, test_rows: int
) -> TwoRules:
    """Each part from a stream of its own; where a rule says nothing, it says one or the other by a fair coin."""
    for name, value in (("rows", rows), ("test_rows", test_rows)):
        check_count(name, value)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ArgumentError(
            "the seed is a number", expected="a whole number of at least 0", got=repr(seed), mend="such as seed=0"
        )

    def part(stream: int, count: int, heard: tuple[bool, bool]) -> Part:
        draws = np.random.Generator(np.random.PCG64([seed, stream]))
        labels = draws.integers(0, 2, count)
        first, second = (labels if rule else draws.integers(0, 2, count) for rule in heard)
        return Part(draw(count, first, second, draws), labels.astype(np.int64))

    alone = {names[0]: part(2, test_rows, (True, False)), names[1]: part(3, test_rows, (False, True))}
    return TwoRules(part(0, rows, (True, True)), part(1, test_rows, (True, True)), alone, regions)


def _patterns(length: int, distinct: int) -> tuple[np.ndarray, np.ndarray]:
    """All colourings of so many pixels: those with another number of distinct colours, and those with this one."""
    every = np.stack(np.meshgrid(*[np.arange(4)] * length, indexing="ij"), -1).reshape(-1, length)
    hit = np.array([len(set(row)) == distinct for row in every.tolist()])
    return every[~hit], every[hit]


_ALIKE, _DIFFERENT = _patterns(4, 1), _patterns(3, 3)
