"""Regions of a sequence that were the same in all steps so far: they have one state, which is computed once.

The spans of T words are T (T + 1) / 2 regions, but after t words they have t (t + 1) / 2 + 1 pasts: in all steps
together little more than a third as many states.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rightly.core.kernels.share import TINY


class Fork(NamedTuple):
    """Groups of regions with one past, after a step.

    Attributes:
        members: (N,), a region of each group.
        parents: (N,), the group that each was part of a step before, at first the region; None where they are the same.
        groups: (R,), the group of each region.
    """

    members: Tensor
    parents: Tensor | None
    groups: Tensor


def alike(total: Tensor, part: Tensor, groups: Sequence[Tensor]) -> list[Tensor]:
    """What tells regions apart at each step, (T, R) each: the same numbers, the same part.

    Args:
        total: (T, 1, B, I).
        part: (T, R, B, I).
        groups: (T, R) each, by which it is known. Where it is not, none of a step is 0 and all of it 1, and any other
            part is taken for the only one of its kind. So is that of a step of nearly nothing, where it is a matter
            of the whole region whose the biases are (``cells.owned``).
    """
    each = torch.arange(2, 2 + part.shape[1], device=part.device)
    if not groups:
        none, all_ = (x.abs().sum((-2, -1)) == 0 for x in (part, total - part))
        groups = [torch.where(none, 0, torch.where(all_, 1, each))]
    something = (total.abs().sum(-1) > TINY / torch.finfo(total.dtype).eps).all(-1)
    return [torch.where(something, group, each) for group in groups]


def forks(start: Sequence[Tensor], numbers: Sequence[Tensor]) -> list[Fork]:
    """The groups of regions that have been the same so far, step by step.

    Args:
        start: (R, B, H) each, the parts of the states before.
        numbers: (T, R) each, see ``alike``.
    """
    device, (_, count) = numbers[0].device, numbers[0].shape
    one = all(torch.equal(part, part[:1].expand_as(part)) for part in start)
    first = np.zeros((1, count), dtype=np.int64) if one else np.arange(count)[None]
    codes = np.concatenate([first, torch.stack(list(numbers), 1).flatten(0, 1).cpu().numpy()])
    order = np.lexsort(codes[::-1])
    apart = np.ones(codes.shape, dtype=bool)  # from the region before in this order
    np.logical_or.accumulate(np.diff(codes[:, order]) != 0, out=apart[:, 1:])
    apart = apart[:: len(numbers)]
    number = apart.cumsum(1) - 1
    groups = np.empty_like(number[1:])
    groups[:, order] = number[1:]
    number[0] = order
    apart = apart[1:]
    sizes = apart.sum(1).tolist()
    firsts = np.broadcast_to(order, apart.shape)[apart], number[:-1][apart]
    members, parents = (torch.from_numpy(each).to(device).split(sizes) for each in firsts)
    same = [False, *(now == before for before, now in pairwise(sizes))]
    rows = torch.from_numpy(groups).to(device).unbind()
    return [Fork(m, None if kept else p, row) for m, p, kept, row in zip(members, parents, same, rows, strict=True)]
