"""A progress bar on the terminal's error stream; nothing at all when it is not wanted or nobody looks."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(title: str, *, enabled: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Yields ``report(done, total)``; a terminal gets a rewritten line, a log file a line every thirty seconds."""
    if not enabled:
        yield None
        return
    live = sys.stderr.isatty()
    start = shown = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if done < total and now - shown < (0.1 if live else 30.0):
            return
        shown = now
        left = (now - start) / max(done, 1) * (total - done)
        line = f"{title}: {done}/{total} ({100 * done // max(total, 1)} %), {left:.0f} s left"
        sys.stderr.write(f"\r{line}\033[K" if live else f"{line}\n")
        sys.stderr.flush()

    yield report
    if live:
        sys.stderr.write("\n")
