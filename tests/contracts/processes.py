"""Two processes on one machine, and what they must agree on."""

from __future__ import annotations

import multiprocessing
import tempfile
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import rightly as rt

WORLD = 2
SECONDS = 60
#: float64; sums in another order
EXACT = 1e-12


def in_two_processes(work: Callable[[int], Any]) -> list[Any]:
    """``work(rank)`` in two forked processes with a gloo group; the results, by rank.

    Raises:
        AssertionError: a process failed (with its traceback) or did not answer in time.
    """
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        children = [context.Process(target=_child, args=(rank, meeting, work, queue)) for rank in range(WORLD)]
        for child in children:
            child.start()
        try:
            answers = dict(queue.get(timeout=SECONDS) for _ in children)
        finally:
            for child in children:
                child.join(10)
                if child.is_alive():
                    child.kill()
    for rank, (ok, answer) in sorted(answers.items()):
        assert ok, f"process {rank} failed:\n{answer}"
    return [answers[rank][1] for rank in range(WORLD)]


def _child(rank: int, meeting: str, work: Callable[[int], Any], queue: Any) -> None:
    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            "gloo", init_method=meeting, rank=rank, world_size=WORLD, timeout=timedelta(seconds=SECONDS / 2)
        )
        answer = (True, work(rank))
        queue.put((rank, answer))
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:  # noqa: BLE001 (whatever it is, the parent has to hear of it)
        queue.put((rank, (False, traceback.format_exc())))


Batch = tuple[Tensor, Tensor, rt.Annotation | None]


def _rows(batch: Batch, index: Tensor) -> Batch:
    inputs, labels, note = batch
    return inputs[index], labels[index], None if note is None else note.take(index)


def _gradients(objective: rt.Objective) -> list[Any]:
    return [None if p.grad is None else p.grad.numpy().copy() for p in objective.parameters()]


def alone(make: Callable[[], rt.Objective], batch: Batch) -> tuple[float, list[Any], dict[str, float]]:
    """Total, parameter gradients and weights of one process that sees everything."""
    objective = make()
    report = objective(*batch)
    report.total.backward()
    return float(report.total.detach()), _gradients(objective), dict(objective.weights)


def together(
    make: Callable[[], rt.Objective], batch: Batch, shards: Sequence[Tensor], wrapped: bool, rank: int
) -> tuple[float, list[Any], dict[str, float]]:
    """The same in one of several processes, averaged by ``DistributedDataParallel`` or by hand."""
    objective = make()
    module = DistributedDataParallel(objective) if wrapped else objective
    report = module(*_rows(batch, shards[rank]))
    report.total.backward()
    if not wrapped:
        for parameter in objective.parameters():
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= WORLD
    total = report.total.detach().clone()
    dist.all_reduce(total)
    return float(total) / WORLD, _gradients(objective), dict(objective.weights)


def check_agreement(single: tuple, several: Sequence[tuple]) -> float:
    """Raise ``AssertionError`` unless every process has the single process' total, gradients and weights."""
    worst = 0.0
    total, gradients, weights = single
    scale = max(float(abs(g).max()) for g in gradients if g is not None)
    assert scale > 1e-8, "the gradient is zero, so that nothing would be checked"
    for rank, (other_total, other, other_weights) in enumerate(several):
        gap = abs(other_total - total) / abs(total)
        assert gap < EXACT, f"process {rank}: the total is off by {gap:.1e}"
        assert [g is None for g in other] == [g is None for g in gradients], f"process {rank} reaches other parameters"
        pairs = [(a, b) for a, b in zip(other, gradients, strict=True) if b is not None]
        gap = max(float(abs(a - b).max()) for a, b in pairs) / scale
        worst = max(worst, gap)
        assert gap < EXACT, f"process {rank}: the gradient is off by {gap:.1e} of its largest entry"
        for name, weight in weights.items():
            assert abs(other_weights[name] - weight) <= 1e-6 * weight, f"process {rank}: weight {other_weights}"
    return worst
