"""Choosing a term's weight by validation: a coarse log grid, a finer one, then the largest that costs nothing."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rightly.core.batch import call, outputs_of
from rightly.core.errors import ArgumentError
from rightly.objectives import Objective
from rightly.training.batches import Batches, Data

#: relative to the balanced weight: three decades down, two up
COARSE = tuple(10.0**e for e in (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0))
#: relative to the best of the coarse grid
FINE = tuple(10.0**e for e in (-0.5, 0.5))

Score = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Candidate:
    """One weight that was tried: its mean validation loss, and the standard error of that against the best's."""

    weight: float
    mean: float
    error: float
    chosen: bool = False


@dataclass(frozen=True)
class WeightChoice:
    """How a weight was chosen."""

    weight: float
    reason: str
    candidates: tuple[Candidate, ...]


def choose_weight(
    objective: Objective,
    name: str,
    train: Data,
    validation: Data,
    fit: Callable[..., Any],
    *,
    score: Score | None = None,
    coarse: Sequence[float] = COARSE,
    fine: Sequence[float] = FINE,
    **arguments: Any,
) -> WeightChoice:
    """Train copies of the objective with different weights of one term and pick by validation.

    The grids are relative to the balanced weight (term as large as the task loss on the first batches), so that no
    unit has to be known. Picked is the largest weight whose mean validation loss is within one standard error of
    the best one's, the error being that of the difference example by example: the strongest prior that the data
    cannot tell from the best. A weight of zero takes part as the yardstick.

    Args:
        objective: in its initial state; it is not changed.
        name: of the term.
        train, validation: as ``rt.fit`` takes them. The validation data must not be the test data.
        fit: trains a copy: ``fit(objective, train, validation, **arguments)``.
        score: (outputs, labels) -> loss of each example (B,); by default the objective's own loss.
        coarse, fine: multiples.
        **arguments: passed on to ``fit``.
    """
    term = next((t for t in objective.terms if t.name == name), None)
    if term is None:
        raise ArgumentError("no such term", expected=", ".join(objective.weights), got=name)
    scale = _balanced(objective, name, train, arguments)
    losses: dict[float, Tensor] = {}

    def trial(weight: float) -> None:
        if weight in losses:
            return
        copied = copy.deepcopy(objective)
        copied.set_weight(name, weight)
        fit(copied, train, validation, **arguments)
        losses[weight] = _losses(copied, validation, score)

    for weight in (0.0, *(scale * factor for factor in coarse)):
        trial(weight)
    best = _best(losses)
    if best > 0:
        for factor in fine:
            trial(best * factor)
    return _pick(losses)


def _balanced(objective: Objective, name: str, train: Data, arguments: dict[str, Any]) -> float:
    copied = copy.deepcopy(objective)
    term = next(t for t in copied.terms if t.name == name)
    batches = Batches(train, batch_size=arguments.get("batch_size", 256), shuffle=True, seed=arguments.get("seed", 0))
    sums = [0.0, 0.0]
    with torch.no_grad():
        for (inputs, labels, annotation), _ in zip(batches.epoch(0), range(10), strict=False):
            sums[0] += float(copied(inputs, labels, annotation, part="task").total)
            sums[1] += float(copied.penalty(term, inputs, labels, annotation))
    return sums[0] / sums[1] if sums[1] > 0 else 1.0


@torch.no_grad()
def _losses(objective: Objective, validation: Data, score: Score | None) -> Tensor:
    """The validation loss of every example, in order."""
    objective.eval()
    parts = []
    for inputs, labels, _ in Batches(validation, batch_size=1024, shuffle=False, seed=0).epoch(0):
        outputs = outputs_of(call(objective.model, inputs)).float()
        each = (
            score(outputs, labels)
            if score
            else torch.stack([objective.loss(outputs[i : i + 1], labels[i : i + 1]) for i in range(len(labels))])
        )
        parts.append(each.flatten().double())
    return torch.cat(parts)


def _best(losses: dict[float, Tensor]) -> float:
    finite = {w: float(v.mean()) for w, v in losses.items() if bool(v.isfinite().all())}
    if not finite:
        raise ArgumentError("no weight gave a finite validation loss", got=list(losses), mend="lower the learning rate")
    return min(finite, key=lambda weight: finite[weight])


def _pick(losses: dict[float, Tensor]) -> WeightChoice:
    best = _best(losses)
    candidates = []
    for weight in sorted(losses):
        difference = losses[weight] - losses[best]
        error = float(difference.std() / math.sqrt(len(difference))) if len(difference) > 1 else 0.0
        candidates.append(Candidate(weight, float(losses[weight].mean()), error))
    floor = next(c.mean for c in candidates if c.weight == best)
    good = [c for c in candidates if math.isfinite(c.mean) and c.mean <= floor + c.error]
    chosen = max(good, key=lambda c: c.weight).weight
    reason = (
        f"the largest of {len(candidates)} weights whose validation loss is within one standard error of the best "
        f"(best: {best:.3g})"
    )
    marked = (Candidate(c.weight, c.mean, c.error, c.weight == chosen) for c in candidates)
    return WeightChoice(chosen, reason, tuple(marked))
