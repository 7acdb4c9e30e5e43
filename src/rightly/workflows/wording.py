"""Results and titles in the sentences of claims and tables."""

from __future__ import annotations

from collections.abc import Sequence

from rightly.evaluation import Comparison, interval
from rightly.workflows.reproduce import Row


def mean_told(rows: Sequence[Row], key: str, *, scale: float = 1.0, places: int = 2) -> str:
    """Mean of a result over trials with its 95 % interval: ``0.53 (0.41 to 0.65)``."""
    found = interval([scale * row[key] for row in rows])
    return f"{found.mean:.{places}f} ({found.low:.{places}f} to {found.high:.{places}f})"


def p_told(test: Comparison) -> str:
    """What follows a difference in brackets, of a test among several: ``, corrected p = 0.03``; nothing without a p."""
    return "" if test.p is None else f", corrected p = {test.p:.2g}"


def in_sentence(title: str) -> str:
    """A title that does not begin its sentence: ``right reasons``, but ``CDEP, L1`` and ``DeepLIFT`` as they are.

    A first word with capitals or digits further in is a name. Other names (Laplace) are not told from words: let them
    not come first, or put the title behind a colon as it is.
    """
    named = any(sign.isupper() or sign.isdigit() for sign in title.split(maxsplit=1)[0][1:])
    return title if named else title[:1].lower() + title[1:]
