"""The dot-and-interval chart: one row per run, its mean, its interval and each seed's value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rightly.report.charts import axes, svg
from rightly.report.charts.scales import Scale, linear
from rightly.report.palette import MUTED

_ROW = 38.0


@dataclass(frozen=True)
class Row:
    """One row: ``values`` are the seeds', ``written`` the number with its interval, as text."""

    label: str
    colour: str
    shape: str
    mean: float
    low: float | None
    high: float | None
    values: Sequence[float]
    written: str


def intervals(title: str, description: str, rows: Sequence[Row], *, zero: bool = False) -> str:
    """Draw ``rows`` under each other on one axis; ``zero`` puts 0 on the axis."""
    left, right = axes.gutter([row.label for row in rows], most=112), svg.PANEL - 6
    everything = [value for row in rows for value in (row.mean, row.low, row.high, *row.values) if value is not None]
    scale = linear(everything, left, right, include=(0.0,) if zero else ())
    head, top = axes.heading(title)
    bottom = top + _ROW * len(rows)
    parts = [head, axes.x_axis(scale, top, bottom)]
    if zero:
        parts.append(svg.line(scale(0), top, scale(0), bottom, MUTED))
    parts += [_row(row, scale, left, top + _ROW * index) for index, row in enumerate(rows)]
    return svg.document(svg.PANEL, bottom + axes.FOOT, title, description, "".join(parts))


def _row(row: Row, scale: Scale, left: float, top: float) -> str:
    middle, below = top + 13, top + 27
    parts = [
        axes.row_label(row.label, left - 8, top + _ROW / 2 - 1, lines=2, size=11.5),
    ]
    if row.low is not None and row.high is not None:
        low, high = scale(row.low), scale(row.high)
        parts.append(svg.line(low, middle, high, middle, row.colour, 2))
        parts += [svg.line(x, middle - 4, x, middle + 4, row.colour, 2) for x in (low, high)]
    seeds = [svg.element("circle", cx=scale(value), cy=below, r=2.4) for value in row.values]
    parts.append(svg.group(seeds, fill=row.colour, fill_opacity="0.55"))
    parts.append(svg.marker(row.shape, scale(row.mean), middle, 5, row.colour))
    return svg.group(parts, hint=f"{row.label}: {row.written}")
