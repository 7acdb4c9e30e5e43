"""What the figures that go with a record must look like, as a table of checks. See docs/reference/report.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from rightly.report.checks import (
    LABEL,
    TRACE,
    Check,
    anything,
    both,
    equal_lengths,
    fields,
    flag,
    integer,
    mapping,
    nullable,
    number,
    problem,
    sequence,
    text,
)

#: resizing an image in single precision may leave its range by so much
_ROUNDING = 1e-3

_NUMBER = number()


def _array(channels: bool = False, low: float | None = None, high: float | None = None) -> Check:
    """A nested list (H, W), or (H, W, 3) where ``channels``, of finite numbers."""
    shape = "(height, width)" + (" or (height, width, 3)" if channels else "")
    span = f" from {low:g} to {high:g}" if low is not None and high is not None else ""

    def check(value: Any, path: str) -> Iterator[str]:
        try:
            array = np.asarray(value, dtype=float)
        except (TypeError, ValueError):
            yield problem(path, f"nested lists {shape} of numbers", value)
            return
        flat = array.ndim == 2 or (channels and array.ndim == 3 and array.shape[2] == 3)
        if not flat or array.size == 0:
            yield f"{path}: expected nested lists {shape}, got shape {array.shape}"
        elif not np.isfinite(array).all():
            yield f"{path}: expected finite numbers, got {int((~np.isfinite(array)).sum())} that are not"
        elif low is not None and high is not None and (array.min() < low - _ROUNDING or array.max() > high + _ROUNDING):
            yield f"{path}: expected numbers{span}, got {array.min():g} to {array.max():g}"

    return check


def _one_size(value: Any, path: str) -> Iterator[str]:
    size = np.shape(value["image"])[:2]
    arrays = {"annotation": value.get("annotation")}
    arrays |= {f"runs.{name}.map": run["map"] for name, run in value["runs"].items()}
    for key, array in arrays.items():
        if array is not None and np.shape(array) != size:
            yield f"{path}.{key}: expected the image's size {size}, got {np.shape(array)}"


_MAP = both(
    fields(
        {
            "image": _array(channels=True, low=0, high=1),
            "runs": mapping(fields({"map": _array()}, {"prediction": nullable(LABEL), "correct": nullable(flag)})),
        },
        {
            "title": nullable(text),
            "label": nullable(LABEL),
            "annotation": nullable(_array(low=0, high=1)),
        },
    ),
    _one_size,
)
_SERIES = both(
    fields(
        {"name": text, "x": sequence(_NUMBER), "y": TRACE},
        {"low": nullable(TRACE), "high": nullable(TRACE), "paper": nullable(flag)},
    ),
    equal_lengths("x", "y", "low", "high"),
)
_SWARM = both(
    fields({"feature": text, "values": sequence(nullable(number(0, 1))), "attributions": sequence(_NUMBER)}),
    equal_lengths("values", "attributions"),
)
_CELL = nullable(LABEL)


def _rows_fit(value: Any, path: str) -> Iterator[str]:
    width = len(value["columns"])
    for index, row in enumerate(value["rows"]):
        if len(row) != width:
            yield problem(f"{path}.rows[{index}]", f"a list of {width}, one per column", row)


def _phrases_fit(value: Any, path: str) -> Iterator[str]:
    for index, phrase in enumerate(value["phrases"]):
        if not 0 <= phrase["first"] <= phrase["last"] < len(value["words"]):
            ends = f"{phrase['first']} to {phrase['last']}"
            yield problem(f"{path}.phrases[{index}]", f"words within the {len(value['words'])}", ends)


def _groups_fit(value: Any, path: str) -> Iterator[str]:
    """Every level has the image's size, whole numbers from -1 on, and a score for each group."""
    for index, level in enumerate(value["levels"]):
        at, groups = f"{path}.levels[{index}]", np.asarray(level["groups"], dtype=float)
        if groups.shape != (size := np.shape(value["image"])[:2]):
            yield f"{at}.groups: expected the image's size {size}, got {groups.shape}"
        elif (groups != groups.round()).any() or groups.min() < -1 or groups.max() >= len(level["scores"]):
            expected = f"whole numbers, -1 or one of the {len(level['scores'])} scores"
            yield f"{at}.groups: expected {expected}, got {groups.min():g} to {groups.max():g}"


_LEVEL = fields({"title": text, "groups": _array(), "scores": sequence(_NUMBER)})
_PHRASE = fields({"first": integer(0), "last": integer(0), "row": integer(0), "score": _NUMBER}, {})

FIGURES = fields(
    {},
    {
        "beeswarm": mapping(sequence(_SWARM)),
        "maps": sequence(_MAP),
        "curves": sequence(
            fields(
                {"title": text, "series": sequence(_SERIES)},
                {"x_label": nullable(text), "y_label": nullable(text)},
            )
        ),
        "sentences": sequence(
            both(fields({"title": text, "words": sequence(text), "phrases": sequence(_PHRASE)}, {}), _phrases_fit)
        ),
        "regions": sequence(
            both(
                fields({"title": text, "image": _array(channels=True, low=0, high=1), "levels": sequence(_LEVEL)}),
                _groups_fit,
            )
        ),
        "tables": sequence(
            both(fields({"title": text, "columns": sequence(text), "rows": sequence(sequence(_CELL))}), _rows_fit)
        ),
    },
    others=anything,
)
