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
#: relative to the pick from the coarse grid
FINE = tuple(10.0**e for e in (-0.5, 0.5))

Score = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Candidate:
    """One weight that was tried: its mean validation loss, with the standard error of that mean."""

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
    scale: float,
    score: Score | None = None,
    coarse: Sequence[float] = COARSE,
    fine: Sequence[float] = FINE,
    **arguments: Any,
) -> WeightChoice:
    """Train copies of the objective with different weights of one term and pick by validation.

    The grids are relative to the balanced weight (term as large as the task loss on the first batches), so that no
    unit has to be known. Picked is the largest weight whose mean validation loss is within one standard error of
    the best one's (the one-standard-error rule): the strongest prior that does not clearly cost accuracy. A weight
    of zero takes part as the yardstick; around the largest good weight of the coarse grid a finer one is tried.

    Args:
        objective: in its initial state; it is not changed.
        name: of the term.
        train, validation: as ``rt.fit`` takes them. The validation data must not be the test data.
        fit: trains a copy: ``fit(objective, train, validation, **arguments)``.
        scale: the balanced weight, to which the grids are relative.
        score: (outputs, labels) -> loss of each example (B,); by default the objective's own loss.
        coarse, fine: multiples.
        **arguments: passed on to ``fit``.
    """
    term = next((t for t in objective.terms if t.name == name), None)
    if term is None:
        raise ArgumentError("no such term", expected=", ".join(objective.weights), got=name)
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
    around = _pick(losses).weight
    if around > 0:
        for factor in fine:
            trial(around * factor)
    return _pick(losses)


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
    means = {weight: float(values.mean()) for weight, values in losses.items()}
    errors = {weight: _standard_error(values) for weight, values in losses.items()}
    good = [w for w, mean in means.items() if math.isfinite(mean) and mean <= means[best] + errors[best]]
    chosen = max(good)
    reason = (
        f"the largest of {len(losses)} weights whose validation loss is within one standard error of the best "
        f"({means[best]:.4f} +- {errors[best]:.4f} at weight {best:.3g})"
    )
    tried = (Candidate(w, means[w], errors[w], w == chosen) for w in sorted(losses) if math.isfinite(means[w]))
    return WeightChoice(chosen, reason, tuple(tried))


def _standard_error(values: Tensor) -> float:
    return float(values.std() / math.sqrt(len(values))) if len(values) > 1 else 0.0
