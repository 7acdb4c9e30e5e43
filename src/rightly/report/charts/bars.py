"""Grouped bars: the importance of features, runs under each other for the same feature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rightly.report.charts import axes, svg
from rightly.report.charts.scales import Scale, linear
from rightly.report.numerals import percent
from rightly.report.palette import INK


@dataclass(frozen=True)
class Bars:
    """One run's bars: ``shares[feature]`` is (mean, low, high), the ends None without an interval."""

    label: str
    colour: str
    shape: str
    shares: Mapping[str, tuple[float, float | None, float | None]]


def bars(title: str, description: str, features: Sequence[str], groups: Sequence[Bars]) -> str:
    """Draw a bar per group for each of ``features``, with whiskers, on one axis in percent."""
    head, height = axes.heading(title)
    keys, taken = axes.legend([axes.Key(g.label, g.colour, g.shape) for g in groups], svg.PANEL, height)
    thick = 9.0 if len(groups) < 4 else 6.0
    pitch = max(thick * len(groups) + 10, 22.0)
    top = height + taken + 2
    bottom = top + pitch * len(features)
    left = axes.gutter(features, most=126)
    values = [v for g in groups for f in features for v in g.shares.get(f, ()) if v is not None]
    scale = linear(values, left, svg.PANEL - 14, include=(0.0,), margin=0.04)
    parts = [
        head,
        keys,
        axes.x_axis(scale, top, bottom, "Share of the model's total importance", percent=True),
    ]
    for index, feature in enumerate(features):
        start = top + pitch * index
        parts.append(axes.row_label(feature, left - 7, start + pitch / 2, lines=2 if pitch > 26 else 1, size=11.5))
        first = start + (pitch - thick * len(groups)) / 2
        parts += [_bar(g, feature, scale, first + thick * at, thick) for at, g in enumerate(groups)]
    parts.append(svg.line(scale(0), top, scale(0), bottom, INK))
    return svg.document(svg.PANEL, bottom + axes.FOOT + 14, title, description, "".join(parts))


def _bar(bar: Bars, feature: str, scale: Scale, top: float, thick: float) -> str:
    share = bar.shares.get(feature)
    if share is None:
        return ""
    mean, low, high = share
    ends = sorted((scale(0), scale(mean)))
    parts = [svg.element("rect", x=ends[0], y=top + 0.5, width=ends[1] - ends[0], height=thick - 1, fill=bar.colour)]
    if low is not None and high is not None and low < high:
        middle = top + thick / 2
        parts.append(svg.line(scale(low), middle, scale(high), middle, INK, 1.2))
        parts += [svg.line(x, middle - 2, x, middle + 2, INK, 1.2) for x in (scale(low), scale(high))]
    return svg.group(parts, hint=f"{feature}, {bar.label}: {percent(mean)}")
