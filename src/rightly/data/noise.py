"""Noise on pictures, as the papers' robustness experiments add it to their test sets.

Each function takes pictures (B, C, H, W), a level and a generator, and returns new pictures. ``low`` and ``high`` are
what black and white are in the pictures' units; a level means the same in any units.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rightly.core.checks import check_number
from rightly.core.errors import ArgumentError

Noise = Callable[[Tensor, float, torch.Generator, float, float], Tensor]


def gaussian_noise(
    images: Tensor, level: float, generator: torch.Generator, low: float = 0.0, high: float = 1.0
) -> Tensor:
    """Normal noise on every number, not clipped (Erion et al. 2021, figures 2 and 3).

    Args:
        images: (B, C, H, W).
        level: standard deviation, in units of ``high - low``.
        generator: of the draws.
        low, high: black and white.
    """
    _check(images, level, low, high)
    return images + level * (high - low) * torch.randn(images.shape, generator=generator).to(images)


def salt_and_pepper_noise(
    images: Tensor, level: float, generator: torch.Generator, low: float = 0.0, high: float = 1.0
) -> Tensor:
    """A share of the pixels becomes black or white, either with one half, in all channels (Erion et al. 2019, 4.1).

    The authors' code for MNIST moves a share of the pixels by the whole span, up or down, and clips: the same.

    Args:
        images: (B, C, H, W).
        level: the share, 0 to 1.
        generator: of the draws.
        low, high: black and white.
    """
    _check(images, level, low, high, most=1)
    draws = torch.rand(images.shape[0], 1, *images.shape[2:], generator=generator).to(images.device)
    return images.masked_fill(draws < level, low).masked_fill(draws < level / 2, high)


#: name -> function
NOISES: dict[str, Noise] = {
    "gaussian": gaussian_noise,
    "salt_and_pepper": salt_and_pepper_noise,
}


def _check(images: Tensor, level: float, low: float, high: float, most: float | None = None) -> None:
    if not images.is_floating_point():
        raise ArgumentError(
            "noise is no whole number", expected="floating images", got=images.dtype, mend="images.float() / 255"
        )
    check_number("level", level, positive=False)
    if most is not None and level > most:
        raise ArgumentError(
            "the level is a share of the pixels",
            expected=f"0 to {most:g}",
            got=level,
            mend="0.1 is a tenth of the pixels",
        )
    if not low < high:
        raise ArgumentError(
            "black is below white", expected="low < high", got=(low, high), mend="the darkest value first"
        )
