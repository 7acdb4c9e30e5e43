"""The chart of candidate weights: the measure that chose among them, with error bars, on a log axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rightly.report.charts import axes, lettering, svg
from rightly.report.charts.scales import Scale, linear, logarithmic
from rightly.report.palette import INK, MUTED, VERMILION

_HEIGHT, _ZERO_ROOM = 160.0, 34.0


@dataclass(frozen=True)
class Candidate:
    """One weight that was tried: the mean of the measure, its error (None: not known), and whether it was taken."""

    weight: float
    mean: float
    error: float | None
    chosen: bool


def weights(title: str, description: str, candidates: Sequence[Candidate], measure: str, colour: str) -> str:
    """Draw the candidates; a weight of 0 has no place on a log axis and stands apart at its left."""
    candidates = sorted(candidates, key=lambda candidate: candidate.weight)
    head, height = axes.heading(title)
    top = height + 16
    bottom = top + _HEIGHT
    reach = [c.mean + sign * (c.error or 0.0) for c in candidates for sign in (-1, 1)]
    y = linear(reach, bottom, top, margin=0.2)
    left = axes.y_gutter(y)
    apart = any(candidate.weight == 0 for candidate in candidates)
    x = logarithmic([c.weight for c in candidates], left + (_ZERO_ROOM if apart else 4), svg.PANEL - 12)
    parts = [
        head,
        svg.text(0, top - 8, lettering.fitted(measure, svg.PANEL, lettering.SMALL), size=lettering.SMALL, fill=MUTED),
        axes.x_axis(x, top, bottom, "Weight of the prior (log scale)"),
        axes.y_axis(y, left, svg.PANEL - 12),
        _zero(left, bottom) if apart else "",
    ]
    spots = [(left + 12 if c.weight == 0 else x(c.weight), c) for c in candidates]
    line = [(at, y(c.mean)) for at, c in spots if c.weight > 0]
    parts.append(svg.path(svg.trace(line), stroke=colour, width=1.2, opacity="0.6"))
    parts += [_candidate(at, c, y, colour) for at, c in spots]
    return svg.document(svg.PANEL, bottom + axes.FOOT + 14, title, description, "".join(parts))


def _zero(left: float, bottom: float) -> str:
    return svg.text(left + 12, bottom + 13, "0", size=lettering.SMALL, anchor="middle", fill=MUTED)


def _candidate(x: float, candidate: Candidate, y: Scale, colour: str) -> str:
    middle = y(candidate.mean)
    parts = []
    if candidate.error is not None:
        low, high = y(candidate.mean - candidate.error), y(candidate.mean + candidate.error)
        parts.append(svg.line(x, low, x, high, colour, 1.6))
        parts += [svg.line(x - 3.5, end, x + 3.5, end, colour, 1.6) for end in (low, high)]
    parts.append(svg.marker("circle", x, middle, 4, colour))
    if candidate.chosen:
        parts.append(svg.element("circle", cx=x, cy=middle, r=8, fill="none", stroke=VERMILION, stroke_width=2))
        half = lettering.width_of("chosen") / 2
        above = (y(candidate.mean + candidate.error) if candidate.error is not None else middle) - 7
        at = min(x, svg.PANEL - half)
        parts.append(svg.text(at, min(above, middle - 13), "chosen", anchor="middle", fill=INK, bold=True))
    return svg.group(parts, hint=f"weight {candidate.weight:g}: {candidate.mean:.4g}")
