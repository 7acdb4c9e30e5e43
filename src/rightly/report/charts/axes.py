"""Axes, grids, labels beside rows and legends: what all charts share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rightly.report.charts import lettering, svg
from rightly.report.charts.scales import Scale, tick_labels
from rightly.report.palette import INK, MUTED, RULE

FOOT = 20.0
_TITLE, _TITLE_PITCH = 12.5, 15.0


def heading(title: str) -> tuple[str, float]:
    """The title of a panel, at its top left, in up to three lines; returns it and the height that it takes."""
    rows = lettering.wrapped(title, svg.PANEL, _TITLE, lines=3)
    drawn = [svg.text(0, 13 + _TITLE_PITCH * at, row, size=_TITLE, bold=True) for at, row in enumerate(rows)]
    return "".join(drawn), 24 + _TITLE_PITCH * (len(rows) - 1)


def x_axis(
    scale: Scale, top: float, bottom: float, label: str = "", *, percent: bool = False, whole: bool = False
) -> str:
    """Vertical grid lines from ``top`` to ``bottom`` with ticks under them, and a label under those.

    A tick whose label would touch the one before it keeps its line and loses its label; ``whole`` leaves only ticks
    at whole numbers. Labels at the edges are moved into the panel.
    """
    ticks = scale.ticks(max(3, int((scale.stop - scale.start) / 46)))
    ticks = [tick for tick in ticks if not whole or math.isclose(tick, round(tick), abs_tol=1e-9)]
    parts, taken = [], -1e9
    for tick, written in zip(ticks, tick_labels(ticks, log=scale.log, percent=percent), strict=True):
        x, half = scale(tick), lettering.width_of(written, lettering.SMALL) / 2
        parts.append(svg.line(x, top, x, bottom, RULE))
        at = max(min(x, svg.PANEL - half), half)
        if at - half > taken + 3:
            parts.append(svg.text(at, bottom + 13, written, size=lettering.SMALL, anchor="middle", fill=MUTED))
            taken = at + half
    middle = (scale.start + scale.stop) / 2
    if label:
        # centred under the axis, but moved in when that would run off the panel's right edge
        label = lettering.fitted(label, svg.PANEL, lettering.SMALL)
        half = lettering.width_of(label, lettering.SMALL) / 2
        middle = max(min(middle, svg.PANEL - half), half)
        parts.append(svg.text(middle, bottom + 28, label, size=lettering.SMALL, anchor="middle", fill=MUTED))
    return "".join(parts)


def y_gutter(scale: Scale, most: int = 5) -> float:
    """The room that the tick labels of a y axis need."""
    labels = tick_labels(scale.ticks(most), log=scale.log)
    return max((lettering.width_of(label, lettering.SMALL) for label in labels), default=0) + 8


def y_axis(scale: Scale, left: float, right: float, *, most: int = 5) -> str:
    """Horizontal grid lines from ``left`` to ``right`` with ticks at their left."""
    ticks = scale.ticks(most)
    return "".join(
        svg.line(left, scale(tick), right, scale(tick), RULE)
        + svg.text(left - 6, scale(tick) + 3.5, written, size=lettering.SMALL, anchor="end", fill=MUTED)
        for tick, written in zip(ticks, tick_labels(ticks, log=scale.log), strict=True)
    )


def gutter(labels: Sequence[str], least: float = 30, most: float = 130, size: float = lettering.SIZE) -> float:
    """The room at the left that row labels need, within limits; longer ones are broken or shortened."""
    return min(max([least, *(lettering.width_of(label, size) + 10 for label in labels)]), most)


def row_label(label: str, right: float, middle: float, *, lines: int = 2, size: float = lettering.SIZE) -> str:
    """A label that ends at ``right`` and is centred on ``middle``; its full text shows on hover."""
    broken = lettering.wrapped(label, right - 2, size, lines)
    first = middle + 4 - (len(broken) - 1) * (size + 1) / 2
    parts = [
        svg.text(right, first + index * (size + 1), part, size=size, anchor="end", fill=INK)
        for index, part in enumerate(broken)
    ]
    return svg.group(parts, hint=label if " ".join(broken) != label else "")


@dataclass(frozen=True)
class Key:
    """One entry of a legend."""

    label: str
    colour: str
    shape: str | None = "square"
    dash: str | None = None
    hollow: bool = False


def legend(keys: Sequence[Key], width: float, top: float) -> tuple[str, float]:
    """Draw a legend in as many rows as ``width`` needs; returns it and the height that it takes."""
    parts, x, y = [], 0.0, top + 10
    for key in keys:
        label = lettering.fitted(key.label, width - 30, lettering.SMALL)
        room = lettering.width_of(label, lettering.SMALL) + 34
        if x and x + room - 12 > width:
            x, y = 0.0, y + 16
        parts.append(_sample(key, x, y - 4) + svg.text(x + 22, y, label, size=lettering.SMALL))
        x += room
    return "".join(parts), y - top + 8 if keys else 0.0


def _sample(key: Key, x: float, y: float) -> str:
    drawn = "" if key.shape and not key.dash else svg.line(x, y, x + 17, y, key.colour, 2, key.dash)
    if key.shape:
        fill, stroke = ("#ffffff", key.colour) if key.hollow else (key.colour, "#ffffff")
        drawn += svg.marker(key.shape, x + 9, y, 4.5, fill, stroke)
    return drawn
