"""Hierarchies on images: the groups of pixels that an answer is built of, level by level."""

from __future__ import annotations

import numpy as np

from rightly.report.blocks import Gallery, Picture, Section
from rightly.report.charts.picture import borders, filled, picture, shade
from rightly.report.cleaning import Record
from rightly.report.numerals import number
from rightly.report.palette import diverging
from rightly.report.sections.maps import legend

_CAPTION = "Groups of pixels that the answer is built of, from the first joined to the last."
_NOTE = (
    "Vermilion: the group speaks for the answer. Blue: it speaks against it. The pictures of one image share one "
    "scale; what has no colour belongs to no group yet."
)


def regions(record: Record, figures: Record) -> Section | None:
    """A row of pictures per image, a picture per level."""
    images = [image for image in figures.get("regions") or [] if image["levels"]]
    if not images:
        return None
    rows = [(str(image["title"]), _row(image)) for image in images]
    return Section("regions", "Parts of an image", [Gallery(_CAPTION, _NOTE, rows, legend())])


def _row(image: Record) -> list[Picture]:
    pixels = np.asarray(image["image"], dtype=float)
    size = (pixels.shape[0], pixels.shape[1])
    most = max((abs(score) for level in image["levels"] for score in level["scores"]), default=0.0) or 1.0
    row = [Picture(picture("Image", "The image", shade(pixels), size), "Image")]
    for level in image["levels"]:
        groups, scores = np.asarray(level["groups"], dtype=float), np.asarray(level["scores"], dtype=float)
        told = _told(scores)
        drawn = filled(pixels, groups, diverging(scores / most))
        row.append(
            Picture(picture(level["title"], told, drawn, size, borders(groups), dashed=False), level["title"], told)
        )
    return row


def _told(scores: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> str:
    if len(scores) < 2:
        return f"one group: {number(float(scores[0]))}" if len(scores) else "no group"
    return f"{len(scores)} groups: {number(float(scores.min()))} to {number(float(scores.max()))}"
