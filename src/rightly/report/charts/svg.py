"""SVG by hand: a few elements, each a pure function from numbers and words to a string."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

from rightly.report.charts.lettering import SIZE
from rightly.report.palette import INK, PAPER

#: width of a panel in its own units, about one pixel each on a phone
PANEL = 340


def coordinate(value: float) -> str:
    """Write a coordinate with one decimal; raises ``ValueError`` rather than write a NaN into a path."""
    if not math.isfinite(value):
        raise ValueError(f"a coordinate must be finite, got {value}")
    written = f"{value:.1f}".removesuffix(".0")
    return "0" if written == "-0" else written


def element(name: str, content: str = "", **attributes: str | float | None) -> str:
    """Write one element; ``content`` is SVG already, attribute values are escaped, None leaves one out.

    An underscore stands for a hyphen (``stroke_width``), and one at the end is dropped (``class_``).
    """
    parts = [name]
    for key, value in attributes.items():
        if value is not None:
            written = value if isinstance(value, str) else coordinate(value)
            parts.append(f'{key.rstrip("_").replace("_", "-")}="{escape(written)}"')
    head = " ".join(parts)
    return f"<{head}>{content}</{name}>" if content else f"<{head}/>"


def group(parts: Iterable[str], hint: str = "", **attributes: str | float | None) -> str:
    """Put parts together; ``hint`` shows when the pointer rests on them."""
    tip = element("title", escape(hint)) if hint else ""
    return element("g", tip + "".join(parts), **attributes)


def text(
    x: float,
    y: float,
    content: str,
    *,
    size: float = SIZE,
    anchor: str = "start",
    fill: str = INK,
    bold: bool = False,
    turn: float | None = None,
) -> str:
    """Write text with its baseline at ``y``; ``turn`` rotates it by so many degrees about its anchor."""
    rotation = None if turn is None else f"rotate({coordinate(turn)} {coordinate(x)} {coordinate(y)})"
    return element(
        "text",
        escape(content),
        x=x,
        y=y,
        font_size=size,
        text_anchor=None if anchor == "start" else anchor,
        fill=fill,
        font_weight="600" if bold else None,
        transform=rotation,
    )


def line(x1: float, y1: float, x2: float, y2: float, stroke: str, width: float = 1, dash: str | None = None) -> str:
    """Draw a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke=stroke, stroke_width=width, stroke_dasharray=dash)


def trace(points: Iterable[tuple[float, float] | None]) -> str:
    """Path data through ``points``; None lifts the pen. A point alone between gaps becomes a dot of the pen."""
    data, pen_down, alone = [], False, False
    for point in [*points, None]:
        if point is None:
            if alone:
                data.append("h0")
            pen_down = alone = False
            continue
        data.append(f"{'L' if pen_down else 'M'}{coordinate(point[0])} {coordinate(point[1])}")
        pen_down, alone = True, not pen_down
    return "".join(data)


def path(
    data: str,
    *,
    stroke: str = "none",
    width: float = 1,
    fill: str = "none",
    dash: str | None = None,
    opacity: str | None = None,
) -> str:
    """Draw path data; nothing for empty data."""
    if not data:
        return ""
    return element(
        "path",
        d=data,
        fill=fill,
        stroke=stroke,
        stroke_width=width if stroke != "none" else None,
        stroke_dasharray=dash,
        stroke_linejoin="round" if stroke != "none" else None,
        stroke_linecap="round" if stroke != "none" else None,
        opacity=opacity,
    )


def marker(shape: str, x: float, y: float, radius: float, fill: str, stroke: str = PAPER) -> str:
    """Draw a circle, square, diamond or triangle of equal visual size about (x, y)."""
    if shape == "circle":
        return element("circle", cx=x, cy=y, r=radius, fill=fill, stroke=stroke)
    r = radius * {"square": 0.9, "diamond": 1.25, "triangle": 1.15}[shape]
    corners = {
        "square": [(-r, -r), (r, -r), (r, r), (-r, r)],
        "diamond": [(0, -r), (r, 0), (0, r), (-r, 0)],
        "triangle": [(0, -r), (r, 0.85 * r), (-r, 0.85 * r)],
    }[shape]
    return path(trace((x + dx, y + dy) for dx, dy in corners) + "Z", fill=fill, stroke=stroke)


def document(width: float, height: float, title: str, description: str, body: str) -> str:
    """Wrap a body as one accessible SVG picture of ``width`` by ``height`` units.

    Args:
        title: what the picture is, a few words.
        description: what it shows, one or two sentences, for a reader who cannot see it.
    """
    about = element("title", escape(title)) + element("desc", escape(description))
    return element(
        "svg",
        about + body,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {coordinate(width)} {coordinate(height)}",
        role="img",
        aria_label=f"{title}. {description}",
        class_="chart",
    )
