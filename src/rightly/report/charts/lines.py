"""Line charts: training curves, Lorenz curves and any other curve, with bands, dashes and marks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rightly.report.charts import axes, lettering, svg
from rightly.report.charts.scales import Scale, linear, logarithmic
from rightly.report.palette import MUTED

#: a line of more points than this is thinned out: no screen shows them
_MOST_POINTS = 400

Value = float | None


@dataclass(frozen=True)
class Line:
    """One line. ``y``, ``low`` and ``high`` may hold None where there is no value; ``marks`` are points to mark."""

    x: Sequence[float]
    y: Sequence[Value]
    colour: str
    low: Sequence[Value] = ()
    high: Sequence[Value] = ()
    width: float = 1.8
    dash: str | None = None
    opacity: str | None = None
    shape: str | None = None
    hollow: bool = False
    marks: Sequence[tuple[float, float]] = field(default=())

    def numbers(self) -> list[float]:
        """All y values that must fit on the axis."""
        marked = [y for _, y in self.marks]
        return [value for value in (*self.y, *self.low, *self.high, *marked) if value is not None]


@dataclass(frozen=True)
class Frame:
    """The fixed parts of a chart.

    ``square`` is the span of both axes when they run from 0 to a known end; ``log`` is of y, ``log_x`` of x;
    ``whole_x`` counts something: its ticks are whole numbers.
    """

    title: str
    description: str
    x_label: str = ""
    y_label: str = ""
    keys: Sequence[axes.Key] = ()
    height: float = 150
    square: float | None = None
    log: bool = False
    log_x: bool = False
    whole_x: bool = False


def lines(frame: Frame, drawn: Sequence[Line]) -> str:
    """Draw ``drawn`` in a frame with a legend, both axes and their labels (y's above the axis, upright)."""
    head, height = axes.heading(frame.title)
    keys, taken = axes.legend(frame.keys, svg.PANEL, height)
    top = height + taken + (16 if frame.y_label else 4)
    bottom = top + frame.height
    y = _y_scale(frame, drawn, bottom, top)
    left = axes.y_gutter(y)
    x = _x_scale(frame, drawn, left, svg.PANEL - 12)
    y_label = lettering.fitted(frame.y_label, svg.PANEL, lettering.SMALL)
    parts = [
        head,
        keys,
        svg.text(0, top - 8, y_label, size=lettering.SMALL, fill=MUTED) if y_label else "",
        axes.x_axis(x, top, bottom, frame.x_label, whole=frame.whole_x),
        axes.y_axis(y, left, svg.PANEL - 12),
        *(_band(line, x, y) for line in drawn),
        *(_line(line, x, y) for line in drawn),
        *(_marks(line, x, y) for line in drawn),
    ]
    foot = axes.FOOT + (14 if frame.x_label else 0)
    return svg.document(svg.PANEL, bottom + foot, frame.title, frame.description, "".join(parts))


def wants_log(numbers: Sequence[float], factor: float = 50) -> bool:
    """Whether numbers spread over so many sizes (more than a ``factor``) that an even axis would hide most of them."""
    return bool(numbers) and min(numbers) > 0 and max(numbers) / factor > min(numbers)


def _y_scale(frame: Frame, drawn: Sequence[Line], bottom: float, top: float) -> Scale:
    if frame.square is not None:
        return Scale(0, frame.square, bottom, top)
    numbers = [value for line in drawn for value in line.numbers()]
    return logarithmic(numbers, bottom, top) if frame.log else linear(numbers, bottom, top)


def _x_scale(frame: Frame, drawn: Sequence[Line], left: float, right: float) -> Scale:
    if frame.square is not None:
        return Scale(0, frame.square, left, right)
    values = [value for line in drawn for value in line.x]
    return logarithmic(values, left, right) if frame.log_x else linear(values, left, right, margin=0.02)


def _points(xs: Sequence[float], ys: Sequence[Value], x: Scale, y: Scale) -> list[tuple[float, float] | None]:
    points = [
        None if value is None or (y.log and value <= 0) else (x(at), y(value)) for at, value in zip(xs, ys, strict=True)
    ]
    step = -(-len(points) // _MOST_POINTS)
    return points if step == 1 or not points else [*points[:-1:step], points[-1]]


def _band(line: Line, x: Scale, y: Scale) -> str:
    if not line.low or not line.high:
        return ""
    low, high = _points(line.x, line.low, x, y), _points(line.x, line.high, x, y)
    whole = [(a, b) for a, b in zip(low, high, strict=True) if a is not None and b is not None]
    if len(whole) < 2:
        return ""
    outline = [a for a, _ in whole] + [b for _, b in reversed(whole)]
    return svg.path(svg.trace(outline) + "Z", fill=line.colour, opacity="0.18")


def _line(line: Line, x: Scale, y: Scale) -> str:
    points = _points(line.x, line.y, x, y)
    drawn = svg.path(svg.trace(points), stroke=line.colour, width=line.width, dash=line.dash, opacity=line.opacity)
    if line.shape is None or len(points) > 40:
        return drawn
    return drawn + "".join(_dot(line, point) for point in points if point is not None)


def _dot(line: Line, point: tuple[float, float]) -> str:
    fill, stroke = ("#ffffff", line.colour) if line.hollow else (line.colour, "#ffffff")
    return svg.marker(line.shape or "circle", *point, 3.6, fill, stroke)


def _marks(line: Line, x: Scale, y: Scale) -> str:
    return "".join(
        svg.marker("circle", x(at), y(value), 3.2, "#ffffff", line.colour)
        for at, value in line.marks
        if not y.log or value > 0
    )
