"""How exact explanations are and what they cost: local accuracy, convergence, runtime."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

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
