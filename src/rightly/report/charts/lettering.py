"""Type in charts: how wide a text is (estimated, no font is at hand), and how to make it fit."""

from __future__ import annotations

import re
import unicodedata

SIZE = 12.0
SMALL = 10.5

ELLIPSIS = "\u2026"

#: advance widths in em of Helvetica and its like, rounded up; anything else counts as _OTHER
_WIDTHS = {
    **dict.fromkeys("ijl.,:;'|!\u2019", 0.28),
    **dict.fromkeys('ftrI()[]{}-/\\ "`\u00b7', 0.35),
    **dict.fromkeys("abcdefghknopqsuvxyzJL0123456789?$#_=+<>\u2212", 0.58),
    **dict.fromkeys("ABEFKPRSTUVXYZCDGHNOQ&", 0.75),
    **dict.fromkeys("mwMW@%\u2026", 0.95),
}
_OTHER = 0.7


def _advance(character: str) -> float:
    if unicodedata.combining(character):
        return 0.0
    if unicodedata.east_asian_width(character) in "WF":
        return 1.05
    return _WIDTHS.get(character, _OTHER)


def width_of(text: str, size: float = SIZE) -> float:
    """Estimate the width of a text, a little too wide rather than too narrow."""
    return size * sum(_advance(character) for character in text)


def fitted(text: str, width: float, size: float = SIZE) -> str:
    """Shorten a text in its middle until it fits: names often differ at their ends."""
    if width_of(text, size) <= width:
        return text
    for kept in range(min(len(text) - 1, 200), 1, -1):
        head = (kept + 1) // 2
        short = f"{text[:head].rstrip()}{ELLIPSIS}{text[len(text) - kept + head :].lstrip()}"
        if width_of(short, size) <= width:
            return short
    return ELLIPSIS


def wrapped(text: str, width: float, size: float = SIZE, lines: int = 2) -> list[str]:
    """Break a text after spaces, hyphens, underscores and slashes into at most ``lines`` lines that fit."""
    if width_of(text, size) <= width or lines == 1:
        return [fitted(text, width, size)]
    pieces = [piece for piece in re.split(r"(?<=[\s_/\-])", text) if piece]
    head = ""
    for piece in pieces:
        if width_of((head + piece).rstrip(), size) > width:
            break
        head += piece
    if not head.strip():
        return [fitted(text, width, size)]
    return [head.rstrip(), *wrapped(text[len(head) :].lstrip(), width, size, lines - 1)]
