"""Colours: the Okabe-Ito set, which readers with any colour vision can tell apart, and two ramps made from it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

INK, MUTED, RULE, PAPER = "#1c1c1c", "#595959", "#dcdcdc", "#ffffff"
PLAIN = "#767676"
BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"

_COLOURS, _SHAPES = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION), ("square", "diamond", "triangle", "circle")

#: colour and marker of the runs that are not plain, in order, twelve different pairs: what a colour tells, a shape
#: tells too
RUNS = [(_COLOURS[index % 6], _SHAPES[index % 4]) for index in range(12)]

_LOW, _MIDDLE, _HIGH = (0, 114, 178), (190, 174, 200), (213, 94, 0)
_WHITE = (255, 255, 255)

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]


def _ramp(positions: Floats, stops: tuple[tuple[int, int, int], ...]) -> Bytes:
    """Interpolate ``stops`` (evenly spaced from 0 to 1) at ``positions``; shape (...) to (..., 3)."""
    at = np.linspace(0, 1, len(stops))
    channels = [np.interp(positions, at, [stop[channel] for stop in stops]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def diverging(values: Floats) -> Bytes:
    """Blue for -1, white for 0, vermilion for 1; anything beyond is drawn as the end."""
    return _ramp((np.clip(values, -1, 1) + 1) / 2, (_LOW, _WHITE, _HIGH))


def low_to_high(values: Floats) -> Bytes:
    """Blue for 0, pale violet for 0.5, vermilion for 1: visible on white all along."""
    return _ramp(np.clip(values, 0, 1), (_LOW, _MIDDLE, _HIGH))


def css(colour: npt.NDArray[np.uint8]) -> str:
    """Write one colour (3,) for SVG."""
    return "#" + "".join(f"{int(channel):02x}" for channel in colour)
