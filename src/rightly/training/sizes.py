"""How many models to train at once: as many as a few timed steps show to be fastest."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch

from rightly.core import seeding
from rightly.objectives.blocks import UnstackableError
from rightly.training.loop import DivergedError, Loop
from rightly.training.together import Member, Together

#: numbers of models that are tried, in this order until one is clearly slower; timed steps; what is clear
_SIZES, _STEPS, _SLOWER = (1, 4, 16, 64, 256), 5, 1.2
#: largest part of all steps that measuring may take
_SHARE = 0.03


def measured_size(make: Callable[[int], list[Member]], most: int) -> tuple[int, str]:
    """The number of models at once that gives the shortest time a model and step, and why.

    Larger stacks spread the overhead of a step over more models, until their weights no longer fit the cache.

    Args:
        make: count -> that many of the trainings to come, fresh; a few steps are taken with them.
        most: how many trainings there are.
    """
    if most == 1:
        return 1, "one after the other: it is the only one of its kind"
    try:
        first = make(1)[0]
        Together(make(min(2, most)))
    except UnstackableError as error:
        return 1, f"one after the other: {error.what}"
    steps = most * first.settings.epochs * sum(1 for _ in first.train.epoch(0))
    largest = min(most, _SIZES[-1], int(_SHARE * steps / (_STEPS + 1)))
    if largest < 2:
        size = min(most, _SIZES[1])
        return size, f"{size} at once: too few steps to measure"
    times: dict[int, float] = {}
    for size in (*(size for size in _SIZES if size < largest), largest):
        fastest = min(times.values(), default=math.inf)
        try:
            times[size] = _alone(first) if size == 1 else _stacked(make(size))
        except UnstackableError as error:
            return 1, f"one after the other: {error.what}"
        except DivergedError:
            return 1, "one after the other: the loss was not finite in the first steps"
        if times[size] > _SLOWER * fastest:
            break
    best = min(times, key=lambda size: times[size])
    told = ", ".join(f"{1000 * seconds:.2f} ms at {size}" for size, seconds in times.items())
    return best, f"{best} at once: a step of a model took {told}"


def _alone(member: Member) -> float:
    """Seconds a step."""
    loop = Loop(member.objective, member.settings)
    batch = next(member.train.epoch(0))
    member.objective.train()
    return _seconds(lambda: loop.step(batch))


def _stacked(members: list[Member]) -> float:
    """Seconds a step and model."""
    together = Together(members)
    batches = next(together.batches(0))
    together.start(0)
    return _seconds(lambda: together.joint_step(batches)) / len(members)


def _seconds(step: Callable[[], object]) -> float:
    """Of the fastest step: other processes make a step slower, never faster."""
    seconds = []
    with seeding.guarded("measure"):
        for _ in range(_STEPS + 1):
            start = time.perf_counter()
            step()
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    return min(seconds[1:])  # the first one also allocates
