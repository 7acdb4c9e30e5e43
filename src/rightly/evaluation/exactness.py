"""How exact explanations are and what they cost: local accuracy, convergence, exact Shapley values, runtime."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import comb
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError, ShapeError
from rightly.evaluation.statistics import Interval, interval


def local_accuracy(attributions: Tensor, outputs: Tensor) -> float:
    """std(sum of attributions - output) / (std of outputs + 1e-6); 0 when they add up to the output and a constant.

    Source: the SHAP package's benchmark. A method whose base value differs between examples (its references are drawn
    for each) errs here by that difference.

    Args:
        attributions: (N, *F).
        outputs: (N,) or (N, 1), what was explained.
    """
    total = attributions.detach().double().flatten(1).sum(1)
    if outputs.shape not in {(len(total),), (len(total), 1)}:
        raise ShapeError("every example needs its output", expected=(len(total),), got=tuple(outputs.shape))
    explained = outputs.detach().double().reshape(-1)
    return float((total - explained).std(correction=0) / (explained.std(correction=0) + 1e-6))


#: more groups than these are refused: their coalitions are 4,096 times the examples
_MOST_GROUPS = 12
Players = Literal["all", "two"]


def exact_shapley(
    value: Callable[[Tensor], Tensor],
    inputs: Tensor,
    groups: Tensor,
    *,
    baseline: float | Tensor = 0.0,
    players: Players = "all",
) -> Tensor:
    """Shapley values of groups of features with every coalition evaluated: the truth that small cases allow.

    Args:
        value: (M, *F) -> (M,), what is shared out.
        inputs: (B, *F).
        groups: (R, *F) bool, disjoint.
        baseline: what absent features are, broadcastable to the inputs.
        players: ``"all"``: the groups play with each other, at most 12 of them; features of no group are always
            there. ``"two"``: each group plays with all other features together, which is what contextual decomposition
            splits an output between.

    Returns:
        (B, R), without a graph. With ``"all"`` they add up to value(inputs) - value(inputs without all groups).

    Source: Shapley (1953).
    """
    if players not in get_args(Players):
        raise ArgumentError("unknown players", expected="'all' or 'two'", got=repr(players))
    if groups.dtype != torch.bool or groups.ndim != inputs.ndim or groups.shape[1:] != inputs.shape[1:]:
        expected = f"bool (R, {', '.join(map(str, inputs.shape[1:]))})"
        raise ShapeError("groups are choices of features", expected=expected, got=f"{groups.dtype} {groups.shape}")
    if bool((groups.sum(0) > 1).any()):
        raise ArgumentError("groups are disjoint", expected="a feature in at most one group", got="some in several")
    count = len(groups)
    absent = torch.as_tensor(baseline, dtype=inputs.dtype, device=inputs.device)

    @torch.no_grad()
    def of(shown: Tensor) -> Tensor:
        """(K, *F) bool -> (K, B)."""
        return torch.stack([value(torch.where(mask, inputs, absent)).detach() for mask in shown])

    if players == "two":
        ends = of(torch.stack([torch.ones_like(groups[0]), torch.zeros_like(groups[0])]))
        return ((of(groups) - ends[1] + ends[0] - of(~groups)) / 2).T
    if count > _MOST_GROUPS:
        raise ArgumentError("too many coalitions", expected=f"at most {_MOST_GROUPS} groups", got=count)
    members = (torch.arange(2**count)[:, None] >> torch.arange(count)) % 2 == 1
    flat = groups.flatten(1)
    shown = ((members.to(flat.device).float() @ flat.float()) > 0) | ~flat.any(0)
    values = of(shown.reshape(-1, *groups.shape[1:]))
    sizes = members.sum(1)
    chances = torch.tensor([1 / (count * comb(count - 1, size)) for size in range(count)], dtype=torch.float64)
    found = []
    for group in range(count):
        before = (~members[:, group]).nonzero()[:, 0]
        gains = values[before + 2**group] - values[before]
        found.append(chances[sizes[before]].to(gains) @ gains)
    return torch.stack(found, 1)


@dataclass(frozen=True)
class Convergence:
    """How fast an explanation by sampling comes near its limit.

    Attributes:
        evaluations: gradient evaluations an example, rising.
        errors: at each of them, the mean absolute difference to the limit, over repeats.
        scale: mean absolute value of the limit, which makes errors comparable.
    """

    evaluations: tuple[int, ...]
    errors: tuple[Interval, ...]
    scale: float

    def needed(self, error: float) -> float:
        """Evaluations after which the mean error is ``error``; between the measured ones on a straight log-log line.

        Infinity where it is not reached; the fewest measured where it is never above.
        """
        means = [found.mean for found in self.errors]
        for (n, m), (above, below) in zip(pairwise(self.evaluations), pairwise(means), strict=True):
            if above > error >= below:
                if below <= 0:
                    return float(m)
                share = np.log(above / error) / np.log(above / below)
                return float(n * (m / n) ** share)
        return float(self.evaluations[0]) if means[0] <= error else float("inf")


def convergence(
    explain: Callable[[int, int], Tensor], limit: Tensor, evaluations: Sequence[int], repeats: int = 5
) -> Convergence:
    """Error of an explanation against its own many-sample limit (Erion et al. 2019, supplement 3.1).

    Args:
        explain: (gradient evaluations an example, seed) -> attributions (N, *F).
        limit: (N, *F), what they come near with ever more evaluations.
        evaluations: rising numbers.
        repeats: seeds 0, 1, ... at each.
    """
    numbers = tuple(check_count("evaluations", n) for n in evaluations)
    if not numbers or list(numbers) != sorted(set(numbers)):
        raise ArgumentError("evaluations rise", expected="at least one, each more than the last", got=numbers)
    check_count("repeats", repeats)
    truth = limit.detach().double()

    def error(n: int, seed: int) -> float:
        found = explain(n, seed).detach().double()
        if found.shape != truth.shape:
            raise ShapeError("explanations look like their limit", expected=tuple(truth.shape), got=tuple(found.shape))
        return float((found - truth).abs().mean())

    errors = tuple(interval([error(n, seed) for seed in range(repeats)], (0.0, float("inf"))) for n in numbers)
    return Convergence(numbers, errors, float(truth.abs().mean()))


def runtime(explain: Callable[[], object], examples: int, repeats: int = 3) -> Interval:
    """Seconds of wall clock for 1,000 explanations, over repeats.

    Args:
        explain: explains ``examples`` examples; called once more before the clock runs.
        examples: how many that are.
        repeats: timed calls.
    """
    check_count("examples", examples)
    check_count("repeats", repeats)
    explain()
    return interval([_seconds(explain) * 1000 / examples for _ in range(repeats)])


def _seconds(explain: Callable[[], object]) -> float:
    _wait()
    began = time.perf_counter()
    explain()
    _wait()
    return time.perf_counter() - began


def _wait() -> None:
    """Until an accelerator has finished what it was asked."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
