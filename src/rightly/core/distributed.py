"""Sums over all processes that keep their gradient, so that a prior over the batch sees the global batch.

Rule (shared facts, ecosystem e2): only sums travel; every process adds the same penalty, unscaled; the mean that
``DistributedDataParallel`` takes over processes then cancels the sum of the backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _AllReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _AllReduceSum.apply(gradients[0].contiguous())  # type: ignore[no-untyped-call]


def world_size() -> int:
    """Number of processes; 1 when no process group was started."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process' number; 0 when no process group was started."""
    return dist.get_rank() if world_size() > 1 else 0


def global_sum(value: Tensor) -> Tensor:
    """Sum over all processes, differentiable any number of times."""
    if world_size() == 1:
        return value
    return _AllReduceSum.apply(value)  # type: ignore[no-any-return,no-untyped-call]


def summed(numbers: Sequence[float], device: torch.device) -> list[float]:
    """Sums over all processes of numbers without a gradient; they travel from the device that the data are on."""
    if world_size() == 1:
        return list(numbers)
    total = torch.tensor(numbers, device=device, dtype=torch.float64)
    dist.all_reduce(total)
    found: list[float] = total.tolist()
    return found


def global_mean(values: Tensor) -> Tensor:
    """Mean over the first dimension of the global batch: (B, *F) -> (*F)."""
    if world_size() == 1:
        return values.mean(0)
    count = torch.tensor(float(values.shape[0]), device=values.device, dtype=values.dtype)
    return global_sum(values.sum(0)) / global_sum(count)


def global_rows(values: Tensor) -> Tensor:
    """The numbers (B,) of all processes in one list, without a graph: what is to be compared with each other."""
    values = values.detach()
    if world_size() == 1:
        return values
    counts = global_sum(torch.eye(world_size(), dtype=torch.int64, device=values.device)[rank()] * len(values))
    found = values.new_zeros(int(counts.sum()))
    start = int(counts[: rank()].sum())
    found[start : start + len(values)] = values
    return global_sum(found)


def local_share(batch: int, device: torch.device) -> float:
    """What to multiply this process' mean with, so that the mean over processes is the mean over all examples."""
    if world_size() == 1:
        return 1.0
    count = torch.tensor(float(batch), device=device)
    dist.all_reduce(count)
    return batch * world_size() / float(count)
