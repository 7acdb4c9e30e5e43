"""A sentence with the phrases that a prediction is built of, each over its words, coloured by its score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rightly.report.charts import svg
from rightly.report.charts.lettering import SIZE, SMALL, width_of
from rightly.report.numerals import number
from rightly.report.palette import INK, PAPER, RULE, css, diverging

_ROW, _GAP, _EDGE, _HEAD = 24.0, 12.0, 8.0, 24.0
#: scores are written into blocks that are at least so wide; colours at least so strong carry white letters
_LEAST_WIDTH, _STRONG = 26.0, 0.75


@dataclass(frozen=True)
class Phrase:
    """Words ``first`` to ``last`` (both included), their score, and the row that they are drawn in, 0 at the words."""

    first: int
    last: int
    score: float
    row: int


def phrases(title: str, description: str, words: Sequence[str], found: Sequence[Phrase]) -> str:
    """Draw ``words`` in a line and ``found`` above them; full colour is the largest score in size."""
    widths = [max(width_of(word), _LEAST_WIDTH) for word in words]
    starts = [_EDGE + sum(widths[:place]) + _GAP * place for place in range(len(words))]
    most = max((abs(phrase.score) for phrase in found), default=0.0) or 1.0
    rows = 1 + max((phrase.row for phrase in found), default=0)
    bottom = _HEAD + _ROW * rows + 16
    parts = [svg.text(_EDGE, 14, title, bold=True)]
    for phrase in sorted(found, key=lambda phrase: phrase.row):
        left, right = starts[phrase.first], starts[phrase.last] + widths[phrase.last]
        top = _HEAD + _ROW * (rows - 1 - phrase.row)
        parts.append(_block(left, right, top, phrase, most, " ".join(words[phrase.first : phrase.last + 1])))
    parts += [
        svg.text(start + width / 2, bottom, word, anchor="middle")
        for start, width, word in zip(starts, widths, words, strict=True)
    ]
    across = max(starts[-1] + widths[-1] + _EDGE, width_of(title) + 2 * _EDGE)
    return svg.document(across, bottom + 8, title, description, "".join(parts))


def _block(left: float, right: float, top: float, phrase: Phrase, most: float, words: str) -> str:
    share = phrase.score / most
    middle = (left + right) / 2
    box = svg.element(
        "rect",
        x=left - 3,
        y=top,
        width=right - left + 6,
        height=_ROW - 4,
        rx=4,
        fill=css(diverging(np.array(share))),
        stroke=RULE,
    )
    written = number(phrase.score)
    size = SMALL if width_of(written, SMALL) <= right - left + 4 else SMALL - 2
    ink = PAPER if abs(share) > _STRONG else INK
    # a number that does not fit is told by the hint alone
    fits = width_of(written, size) <= right - left + 6
    label = svg.text(middle, top + SIZE + 2, written, size=size, anchor="middle", fill=ink) if fits else ""
    return svg.group([box, label], hint=f"{words}: {written}")
