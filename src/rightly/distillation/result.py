"""A wavelet that was distilled from a model, and what can be asked of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rightly.core.checks import check_count, check_number
from rightly.core.errors import ShapeError
from rightly.core.types import Space
from rightly.spaces import Wavelet
from rightly.spaces.filters import Bank, bank, high_pass
from rightly.spaces.wavelet import analyse


class WaveletFunctions(NamedTuple):
    """Scaling function and wavelet, (P,) each, at times (P,) in steps of the finest scale."""

    times: Tensor
    scaling: Tensor
    wavelet: Tensor


@dataclass(frozen=True, eq=False)
class DistilledWavelet:
    """An orthogonal wavelet learned from signals and a model's gradients.

    Attributes:
        low: the low-pass filter (L,), float64.
        levels, dims: of the transform.
        sparsity, interpretation: the strengths that it was trained with.
        losses: every part of the loss over all signals, unweighted, and ``total``, weighted.
        history: the total loss of each step's batch, of the restart that was kept.
        finals: the total loss over all signals of each start that was trained to the end.
        path: where strengths were sequences, the wavelet of every pair, in order.
    """

    low: Tensor
    levels: int
    dims: int
    sparsity: float
    interpretation: float
    losses: dict[str, float]
    history: tuple[float, ...]
    finals: tuple[float, ...]
    path: tuple[DistilledWavelet, ...] = ()

    @property
    def high(self) -> Tensor:
        """The high-pass filter (L,)."""
        return high_pass(self.low)

    def space(self, of: Space | None = None) -> Wavelet:
        """The space of this wavelet's coefficients, for any attribution and any prior."""
        return Wavelet(self.low, self.levels, self.dims, **({} if of is None else {"of": of}))

    def functions(self, iterations: int = 8) -> WaveletFunctions:
        """Scaling function and wavelet by the cascade algorithm, on a grid of 2^-iterations."""
        return cascade(self.low, iterations)

    def distance(self, other: str | Tensor) -> float:
        """To another wavelet's filter, see ``filter_distance``."""
        return filter_distance(self.low, bank(other).low if isinstance(other, str) else other)


def cascade(low: Tensor, iterations: int = 8) -> WaveletFunctions:
    """phi(t) = sqrt(2) sum_n h[n] phi(2 t - n), iterated from a box; psi likewise with g in the last step.

    Args:
        low: h (L,).
        iterations: J; the functions are returned on a grid of 2^-J over their support, L - 1 steps.
    """
    check_count("iterations", iterations)
    low = low.detach().double()
    phi = torch.ones(1, dtype=torch.float64)
    for step in range(iterations - 1):
        phi = _refined(phi, low, 1 << step)
    last = 1 << (iterations - 1)
    points = (len(low) - 1) * 2 * last + 1
    scaling, wavelet = (_refined(phi, taps, last) for taps in (low, high_pass(low)))
    filled = (torch.nn.functional.pad(values, (0, points - len(values))) for values in (scaling, wavelet))
    return WaveletFunctions(torch.arange(points, dtype=torch.float64) / (2 * last), *filled)


def _refined(values: Tensor, taps: Tensor, spacing: int) -> Tensor:
    """sqrt(2) sum_n taps[n] values[. - n spacing], ``values`` on a grid of spacing steps between filter taps."""
    total = values.new_zeros(len(values) + (len(taps) - 1) * spacing)
    for n, tap in enumerate(taps):
        total[n * spacing : n * spacing + len(values)] += tap * values
    return total * 2**0.5


def filter_distance(first: Tensor, second: Tensor) -> float:
    """Euclidean distance of two low-pass filters, the least over circular shifts and reversal.

    The shorter one is filled up with zeros. A wavelet is the same wavelet when it is moved or mirrored.
    """
    for taps in (first, second):
        if taps.ndim != 1 or not len(taps):
            raise ShapeError("a filter is a row of numbers", expected="(L,)", got=tuple(taps.shape))
    size = max(len(first), len(second))
    a, b = (torch.nn.functional.pad(t.detach().double(), (0, size - len(t))) for t in (first, second))
    return min(float((a - way.roll(shift)).norm()) for way in (b, b.flip(0)) for shift in range(size))


def compression(space: Wavelet, signals: Tensor, gradients: Tensor, threshold: float = 1e-3) -> float:
    """Share of coefficients that are large in size and in saliency: what a model of them has to look at (table 4).

    Args:
        space: of the coefficients.
        signals, gradients: (N, *X), examples and the model's input gradients there.
        threshold: both |coefficient| and |gradient in the space| have to be above it.
    """
    check_number("threshold", threshold, positive=False)
    if signals.shape != gradients.shape:
        raise ShapeError("a gradient for every signal", expected=tuple(signals.shape), got=tuple(gradients.shape))
    # the synthesis filters, transposed: the same as the analysis for an orthogonal wavelet
    mirrored = Bank(space.bank.synthesis, space.bank.analysis)
    slopes = analyse(gradients, mirrored, space.depth(tuple(gradients.shape[1:])), space.dims)
    return float(((space.encode(signals).abs() > threshold) & (slopes.abs() > threshold)).double().mean())
