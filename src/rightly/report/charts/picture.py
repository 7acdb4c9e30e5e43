"""Pictures: an image or an attribution map with the outline of an annotation drawn in."""

from __future__ import annotations

import numpy as np

from rightly.report.charts import svg
from rightly.report.palette import INK, PAPER, Bytes, Floats, diverging
from rightly.report.png import data_uri

#: larger arrays are averaged down: a page of photographs would weigh tens of megabytes
_MOST_PIXELS = 288

_SIDE = 120.0
#: how far black is lifted, and how much of a pixel is its group's colour
_FAINT, _WASH = 0.25, 0.7


def shrunk(array: Floats) -> Floats:
    """Average blocks of pixels until neither side is longer than the limit; shape (H, W) or (H, W, 3)."""
    block = -(-max(array.shape[:2]) // _MOST_PIXELS)
    if block == 1:
        return array
    height, width = (max(side // block, 1) for side in array.shape[:2])
    cut = array[: height * block, : width * block]
    split = cut.reshape(height, cut.shape[0] // height, width, cut.shape[1] // width, *array.shape[2:])
    return np.asarray(split.mean(axis=(1, 3)), dtype=float)


def shade(image: Floats) -> Bytes:
    """Pixels from 0 to 1 as bytes."""
    return (np.clip(shrunk(image), 0, 1) * 255).round().astype(np.uint8)


def tint(attributions: Floats, span: float) -> Bytes:
    """Signed attributions as colours; ``span`` and beyond are full colour."""
    return diverging(shrunk(attributions) / span)


def span_of(maps: list[Floats]) -> float:
    """The common scale of several maps: the largest of their 99th percentiles, so that one pixel hides nothing."""
    sizes = [abs(array) for array in maps]
    most = max((float(np.quantile(size, 0.99)) for size in sizes), default=0.0)
    return most or max((float(size.max()) for size in sizes), default=0.0) or 1.0


def filled(image: Floats, groups: Floats, colours: Bytes) -> Bytes:
    """The image in grey, each group of pixels washed with its colour: (H, W) of group numbers, -1 for none."""
    grey = image if image.ndim == 2 else image.mean(2)
    pixels = np.repeat(_FAINT + (1 - _FAINT) * np.clip(grey, 0, 1)[:, :, None], 3, 2)
    inside = groups >= 0
    wash = colours[groups[inside].astype(int)] / 255
    pixels[inside] = (1 - _WASH) * pixels[inside] + _WASH * wash
    return shade(pixels)


def outline(annotation: Floats) -> str:
    """Path data along the border between marked (over a half) and unmarked pixels, in pixel units."""
    return borders(np.where(np.asarray(annotation) > 0.5, 0.0, -1.0))


def borders(groups: Floats) -> str:
    """Path data along the borders between pixels of different groups, in pixel units; -1 is no group."""
    marked = np.pad(np.asarray(groups), 1, constant_values=-1)
    across = marked[1:, 1:-1] != marked[:-1, 1:-1]  # (H + 1, W): a border above row y at column x
    along = marked[1:-1, 1:] != marked[1:-1, :-1]  # (H, W + 1)
    parts = [f"M{x} {y}h{size}" for y, row in enumerate(across) for x, size in _stretches(row)]
    parts += [f"M{x} {y}v{size}" for x, column in enumerate(along.T) for y, size in _stretches(column)]
    return "".join(parts)


def _stretches(line: np.typing.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Start and length of each unbroken stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(int), [0]])))
    return [(int(start), int(end - start)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def picture(
    title: str, description: str, pixels: Bytes, size: tuple[int, int], border: str = "", *, dashed: bool = True
) -> str:
    """Draw pixels, scaled to a panel, with an outline (path data in pixels of an image of ``size``) on top.

    An outline that is not ``dashed`` is a thin line.
    """
    height, width = size
    scale = _SIDE / max(height, width)
    shown = svg.element(
        "image",
        x=0,
        y=0,
        width=width * scale,
        height=height * scale,
        href=data_uri(pixels),
        preserveAspectRatio="none",
        style="image-rendering:pixelated" if max(size) <= 64 else None,
    )
    frame = svg.element(
        "rect", x=0.5, y=0.5, width=width * scale - 1, height=height * scale - 1, fill="none", stroke="#b5b5b5"
    )
    strokes = _DASHES if dashed else _LINE
    body = shown + frame + _border(border, scale, strokes)
    return svg.document(width * scale, height * scale, title, description, body)


#: colour, width and dashes: a white line with black dashes on it is seen on any colour
_DASHES: list[tuple[str, float, str | None]] = [(PAPER, 2.4, None), (INK, 1.4, "3 2.4")]
_LINE: list[tuple[str, float, str | None]] = [(INK, 0.9, None)]


def _border(data: str, scale: float, strokes: list[tuple[str, float, str | None]]) -> str:
    if not data:
        return ""
    return "".join(
        svg.element(
            "path",
            d=data,
            fill="none",
            stroke=colour,
            stroke_width=width,
            stroke_dasharray=dash,
            stroke_linecap="square" if dash is None else None,
            vector_effect="non-scaling-stroke",
            transform=f"scale({scale:.5f})",
        )
        for colour, width, dash in strokes
    )
