"""The rule that chooses a weight: a coarse log grid, a finer one, then the largest weight that costs nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from rightly.core.errors import ArgumentError
from rightly.training.run import Candidate, WeightChoice

#: relative to the balanced weight, which is also the largest that is tried: beyond it the term outweighs the task
COARSE = tuple(10.0**e for e in (-3.0, -2.0, -1.0, 0.0))
#: relative to the pick from the coarse grid
FINE = tuple(10.0**e for e in (-0.5, 0.5))


def choose_weight(
    trials: Callable[[Sequence[float]], Sequence[Tensor]],
    *,
    scale: float,
    coarse: Sequence[float] = COARSE,
    fine: Sequence[float] = FINE,
) -> WeightChoice:
    """Pick a weight by the validation loss of a training with it.

    The grids are relative to the balanced weight, so that no unit has to be known. Picked is the largest weight
    whose mean validation loss is within one standard error of the best one's (the one-standard-error rule): the
    strongest prior that does not clearly cost accuracy. A weight of zero takes part as the yardstick; around the
    largest good weight of the coarse grid a finer one is tried. No weight above the balanced one is: there the
    explanation outweighs the task, and a standard error of a small validation set hides what that costs.

    Args:
        trials: weights -> for each the validation loss of every example (N,), not finite where the training broke
            down. Called with weights that may be trained at once: none at all, the coarse grid, the finer one.
        scale: the balanced weight.
        coarse, fine: multiples, of the balanced weight and of the pick from the coarse grid.

    Raises:
        ArgumentError: no weight gave a finite loss.
    """
    losses: dict[float, Tensor] = {}

    def judge(weights: list[float]) -> None:
        new = [weight for weight in dict.fromkeys(weights) if weight not in losses]
        losses.update(zip(new, trials(new) if new else [], strict=True))

    judge([0.0])
    judge([scale * factor for factor in coarse])
    around = pick(losses).weight
    judge([weight for weight in (around * factor for factor in fine) if weight <= scale * max(coarse)])
    return pick(losses)


def pick(losses: dict[float, Tensor]) -> WeightChoice:
    means = {weight: float(values.double().mean()) for weight, values in losses.items()}
    usable = sorted(weight for weight, mean in means.items() if math.isfinite(mean))
    if not usable:
        raise ArgumentError("no weight gave a finite validation loss", got=list(losses), mend="lower the learning rate")
    errors = {weight: _standard_error(losses[weight]) for weight in usable}
    best = min(usable, key=lambda weight: means[weight])
    chosen = max(weight for weight in usable if means[weight] <= means[best] + errors[best])
    broken = len(losses) - len(usable)
    reason = (
        f"the largest of {len(usable)} weights whose validation loss is within one standard error of the best "
        f"({means[best]:.4f} +- {errors[best]:.4f} at weight {best:.3g})"
        + (f"; {broken} more gave no finite loss" if broken else "")
    )
    return WeightChoice(chosen, reason, tuple(Candidate(w, means[w], errors[w], w == chosen) for w in usable))


def _standard_error(values: Tensor) -> float:
    return float(values.double().std() / math.sqrt(len(values))) if len(values) > 1 else 0.0
