"""What an adaptive wavelet is asked for (Singh, Ha, Yu 2022, eq. 11), each part unweighted.

Scales are those of the published code: sums over a signal, means over signals, sparsity divided by the number of
scales, halves of the squares of what makes a filter a wavelet's.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rightly.spaces.filters import Bank, high_pass
from rightly.spaces.wavelet import analyse, synthesise


def validity(low: Tensor) -> dict[str, Tensor]:
    """The five conditions on a low-pass filter h (L,), g being its high-pass filter; all zero for a wavelet's.

    Returns:
        ``low_sum``: (sum h - sqrt(2))^2 / 2; ``high_sum``: (sum g)^2 / 2; ``norm``: (|h|^2 - 1)^2 / 2;
        ``modulus``: sum over half of the L frequencies of (|H(w)|^2 + |H(w + pi)|^2 - 2)^2 / 2;
        ``shift``: sum over k of (sum_n h[n] h[n - 2 k] - 1_{k = 0})^2 / 2.
    """
    taps = len(low)
    power = torch.view_as_real(torch.fft.fft(low)).square().sum(1)
    half = taps // 2
    pairs = torch.stack([(low[2 * k :] * low[: taps - 2 * k]).sum() for k in range(half)])
    wanted = torch.zeros_like(pairs)
    wanted[0] = 1
    # k and -k count both, as in the published autocorrelation
    count = torch.full_like(pairs, 2)
    count[0] = 1
    return {
        "low_sum": (low.sum() - math.sqrt(2)).square() / 2,
        "high_sum": high_pass(low).sum().square() / 2,
        "norm": (low.square().sum() - 1).square() / 2,
        "modulus": (power[:half] + power[half:] - 2).square().sum() / 2,
        "shift": (count * (pairs - wanted).square()).sum() / 2,
    }


def sparsities(
    low: Tensor,
    signals: Tensor,
    gradients: Tensor,
    levels: int,
    dims: int,
    product: bool,
    moves: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """L1 norms of coefficients and of their attributions: sum of absolute values / examples / (levels + 1).

    The attributions are those of f'(s) = f(T^-1(s) + residual) at s = T x. There f' sees x itself, whatever the filter
    is, and T^-1 is the transpose of T, so that their gradient is T of the gradient of f at x: the model is not called.

    Args:
        low: the filter (L,).
        signals, gradients: (M, *X), the examples and the model's input gradients there.
        levels, dims: of the transform.
        product: coefficient times gradient instead of the gradient alone.
        moves: (M, K, *X), with gradients (M, K, *X) along paths: the attribution is the mean over K of their product
            (see ``PathGradients``).
    """
    if moves is None:
        coefficients, slopes = analyse(torch.cat([signals, gradients]), Bank.orthogonal(low), levels, dims).chunk(2)
        scores = coefficients * slopes if product else slopes
    else:
        factors = torch.cat([signals.unsqueeze(1), moves, gradients], 1).flatten(0, 1)
        found = analyse(factors, Bank.orthogonal(low), levels, dims).unflatten(0, (len(signals), -1))
        coefficients = found[:, 0]
        scores = torch.mul(*found[:, 1:].chunk(2, 1)).mean(1)
    scale = len(signals) * (levels + 1)
    return coefficients.abs().sum() / scale, scores.abs().sum() / scale


def reconstruction(low: Tensor, signals: Tensor, levels: int, dims: int) -> Tensor:
    """Squared error of x against its reconstruction, summed over a signal, averaged over signals."""
    bank = Bank.orthogonal(low)
    again = synthesise(analyse(signals, bank, levels, dims), bank, levels, dims)
    for dim in range(-dims, 0):
        again = again.narrow(dim, 0, signals.shape[dim])
    return (signals - again).square().sum() / len(signals)
