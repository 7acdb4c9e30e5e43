"""Orthogonal wavelet filters by rotation angles: valid for every angle, so that nothing has to be penalised.

The two polyphase parts of a low-pass filter of 2 L numbers start as (cos t_1, sin t_1); each further angle delays the
odd part by a step and rotates the two (Vaidyanathan 1993, chapter 6). The filter is orthogonal to its even shifts and
of norm one whatever the angles are; its sum is sqrt(2), which is one vanishing moment of the wavelet, where the angles
add up to pi / 4.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from rightly.core.errors import ShapeError


def filter_of(angles: Tensor) -> Tensor:
    """Low-pass filter (2 L,) of the L - 1 free angles (L - 1,); the last angle is what pi / 4 leaves."""
    last = math.pi / 4 - angles.sum()
    whole = torch.cat([angles, last[None]])
    even, odd = whole[0].cos()[None], whole[0].sin()[None]
    for angle in whole[1:]:
        even, odd = F.pad(even, (0, 1)), F.pad(odd, (1, 0))
        cos, sin = angle.cos(), angle.sin()
        even, odd = cos * even - sin * odd, sin * even + cos * odd
    return torch.stack([even, odd], 1).flatten()


def angles_of(low: Tensor) -> Tensor:
    """The free angles (L - 1,) of an orthogonal low-pass filter (2 L,) with sum sqrt(2): the inverse of ``filter_of``.

    Raises ``ShapeError`` for a filter that is none.
    """
    even, odd = low.detach().double()[0::2], low.detach().double()[1::2]
    found: list[Tensor] = []
    while len(even) > 1:
        # what makes the odd part begin, and the even part end, with zero; of the two the better conditioned
        first, last = torch.hypot(even[0], odd[0]), torch.hypot(even[-1], odd[-1])
        angle = torch.atan2(odd[0], even[0]) if first >= last else torch.atan2(-even[-1], odd[-1])
        cos, sin = angle.cos(), angle.sin()
        even, odd = (cos * even + sin * odd)[:-1], (cos * odd - sin * even)[1:]
        found.append(angle)
    found.append(torch.atan2(odd[0], even[0]))
    angles = torch.stack(found[::-1])[:-1]
    if low.ndim != 1 or len(low) % 2 or not torch.allclose(filter_of(angles), low.detach().double(), rtol=0, atol=1e-6):
        raise ShapeError(
            "this is no orthogonal low-pass filter",
            expected="(L,) numbers, orthogonal to their even shifts, of norm 1 and sum sqrt(2)",
            got=[round(float(number), 4) for number in low.detach().flatten()],
        )
    return angles
