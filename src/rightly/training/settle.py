"""Weights that the user left open: ``"balance"`` and ``"auto"`` become numbers before the training starts."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from rightly.core.batch import call
from rightly.core.errors import ArgumentError
from rightly.objectives import Objective
from rightly.training.balance import balanced_weights
from rightly.training.batches import Batches
from rightly.training.loop import wide_outputs
from rightly.training.run import WeightChoice
from rightly.training.selection import choose_weight
from rightly.training.settings import Settings

BALANCED = (
    "as large as the task loss, measured once training without the prior halved it or took a quarter of the epochs"
)
UNBALANCED = "1, for want of a scale: the penalty was zero, or the task loss not positive, where they were measured"


def settle(
    objective: Objective,
    batches: Batches,
    validation: Batches | None,
    settings: Settings,
    train: Callable[[Sequence[Objective]], Sequence[bool]],
) -> dict[str, WeightChoice]:
    """Choose the open weights; the objective is not changed.

    Balanced ones come first. Several ``"auto"`` are chosen one after the other, the later ones resting meanwhile:
    a joint grid would need a training for every combination.

    Args:
        objective: in its initial state.
        batches, validation: of the training to come, like ``settings``.
        train: trains copies of the objective, which differ in their weights, and says which came through.
    """
    wanted = {term.name: term.weight for term in objective.terms if math.isnan(objective.weights[term.name])}
    autos = [name for name, weight in wanted.items() if weight == "auto"]
    if validation is None:
        if autos:
            raise ArgumentError(
                "weight='auto' is chosen by validation", expected="validation=...", got=None, mend="or give a number"
            )
        validation = batches  # not read: nothing is chosen by it
    balanced = {name: w for name, w in balanced_weights(objective, batches, settings).items() if name in wanted}
    choices = {
        name: WeightChoice(weight, BALANCED, ()) if 0 < weight < math.inf else WeightChoice(1.0, UNBALANCED, ())
        for name, weight in balanced.items()
    }
    weights = {name: 0.0 if name in autos else choice.weight for name, choice in choices.items()}
    for name in autos:
        judge = partial(_trials, objective, weights, name, validation, train)
        choices[name] = choose_weight(judge, scale=choices[name].weight)
        weights[name] = choices[name].weight
    return choices


def _trials(
    objective: Objective,
    weights: dict[str, float],
    name: str,
    validation: Batches,
    train: Callable[[Sequence[Objective]], Sequence[bool]],
    tried: Sequence[float],
) -> list[Tensor]:
    """Validation losses (N,) of copies trained with these weights of the term ``name``; NaN where that broke down."""
    copies = []
    for weight in tried:
        copied = copy.deepcopy(objective)
        for other, value in {**weights, name: weight}.items():
            copied.set_weight(other, value)
        copies.append(copied)
    broken = torch.full((1,), torch.nan)
    came_through = train(copies)
    return [_losses(copied, validation) if ok else broken for copied, ok in zip(copies, came_through, strict=True)]


@torch.no_grad()
def _losses(objective: Objective, validation: Batches) -> Tensor:
    """The validation loss of every example (N,), in order."""
    objective.eval()
    parts = []
    for inputs, labels, _ in validation.epoch(0):
        outputs = wide_outputs(call(objective.model, inputs))
        each = [objective.loss(outputs[i : i + 1], labels[i : i + 1]) for i in range(len(labels))]
        parts.append(torch.stack(each).double())
    return torch.cat(parts)
