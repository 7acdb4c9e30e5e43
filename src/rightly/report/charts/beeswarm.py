"""The beeswarm: one dot per row of data and feature, placed by its attribution, coloured by the feature's value."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rightly.report.charts import axes, lettering, svg
from rightly.report.charts.scales import Scale, linear
from rightly.report.palette import MUTED, css, low_to_high

#: more dots than this in one row are thinned out evenly, or the page grows by megabytes
MOST_DOTS = 500

_PITCH, _DOT, _STEPS = 26.0, 3.0, 9


@dataclass(frozen=True)
class Swarm:
    """One feature: its values from 0 (lowest) to 1 (highest) or None where unknown, and its attributions."""

    feature: str
    values: Sequence[float | None]
    attributions: Sequence[float]


def reach(swarms: Sequence[Swarm]) -> float:
    """How far an axis must reach to hold, of every feature, all but the most extreme 0.5% of the attributions."""
    return max((_extent(swarm) for swarm in swarms), default=0.0) or 1.0


def _extent(swarm: Swarm) -> float:
    sizes = [abs(value) for value in swarm.attributions]
    if not sizes:
        return 0.0
    # "higher", not an average between two sizes: a lone large one must stay inside
    return float(np.quantile(sizes, 0.995, method="higher")) or max(sizes)


def thinned(swarm: Swarm, most: int = MOST_DOTS) -> Swarm:
    """Keep ``most`` dots, evenly spaced in the order of the attributions, the two extremes among them."""
    count = len(swarm.attributions)
    if count <= most:
        return swarm
    by_size = sorted(range(count), key=lambda index: swarm.attributions[index])
    kept = sorted(by_size[round(at)] for at in np.linspace(0, count - 1, most))
    return Swarm(swarm.feature, [swarm.values[index] for index in kept], [swarm.attributions[index] for index in kept])


def beeswarm(title: str, description: str, swarms: Sequence[Swarm], span: float) -> str:
    """Draw ``swarms`` under each other on one axis from ``-span`` to ``span``; dots beyond are drawn at its ends."""
    left = axes.gutter([swarm.feature for swarm in swarms], most=112)
    scale = linear([-span, span], left, svg.PANEL - 8, margin=0.05)
    head, top = axes.heading(title)
    bottom = top + _PITCH * len(swarms)
    parts = [
        head,
        axes.x_axis(scale, top, bottom, "Attribution: lowers the output \u2190 0 \u2192 raises it"),
        svg.line(scale(0), top, scale(0), bottom, MUTED),
    ]
    for index, swarm in enumerate(swarms):
        middle = top + _PITCH * (index + 0.5)
        parts.append(axes.row_label(swarm.feature, left - 7, middle, lines=2, size=11))
        parts.append(_dots(thinned(swarm), scale, span, middle))
    parts.append(_colour_bar(bottom + 40))
    return svg.document(svg.PANEL, bottom + 58, title, description, "".join(parts))


def _dots(swarm: Swarm, scale: Scale, span: float, middle: float) -> str:
    """The dots of one feature as one path per colour: a tenth of the size of circles."""
    xs = [scale(min(max(value, -span), span)) for value in swarm.attributions]
    stacks: dict[int, list[int]] = defaultdict(list)
    for index, x in enumerate(xs):
        stacks[round(x / (_DOT * 0.8))].append(index)
    paths: dict[str, list[str]] = defaultdict(list)
    for stack in stacks.values():
        gap = min(_DOT * 0.85, (_PITCH - 5) / len(stack))
        for at, index in enumerate(stack):
            y = middle + (at - (len(stack) - 1) / 2) * gap
            paths[_colour(swarm.values[index])].append(f"M{svg.coordinate(xs[index])} {svg.coordinate(y)}h0")
    return "".join(
        svg.path("".join(paths[colour]), stroke=colour, width=_DOT, opacity="0.9") for colour in sorted(paths)
    )


def _colour(value: float | None) -> str:
    if value is None:
        return "#9a9a9a"
    return css(low_to_high(np.array(round(value * (_STEPS - 1)) / (_STEPS - 1))))


def _colour_bar(top: float) -> str:
    """The legend of the colours."""
    steps = 24
    left, wide = 130.0, 110.0
    blocks = [
        svg.element(
            "rect",
            x=left + wide * step / steps,
            y=top,
            width=wide / steps + 0.3,
            height=8,
            fill=css(low_to_high(np.array(step / (steps - 1)))),
        )
        for step in range(steps)
    ]
    ends = svg.text(left - 6, top + 8, "Feature value: low", size=lettering.SMALL, anchor="end", fill=MUTED)
    return "".join(blocks) + ends + svg.text(left + wide + 6, top + 8, "high", size=lettering.SMALL, fill=MUTED)
