"""The thesis' rule for a term's weight: as large as the task loss, at the moment when that means something."""

from __future__ import annotations

import copy
import itertools
from collections import deque
from dataclasses import replace

from rightly.core import seeding
from rightly.objectives import Objective
from rightly.training.batches import Batches
from rightly.training.loop import Loop
from rightly.training.settings import Settings

#: steps that a loss is averaged over, and batches that the ratio is measured on
_BATCHES = 10


def balanced_weights(objective: Objective, batches: Batches, settings: Settings) -> dict[str, float]:
    """The weight of every term that makes it as large as the task loss (Ross 2018, appendix 2.A).

    Measured not at the initial weights, where today's initialisations make all input gradients nearly zero (the
    ratio is then off by four decades; the thesis drew its weights from N(0, 0.1^2)), but on a copy trained without
    terms until its loss has halved (a mean over ten steps, so that in a large data set this is long before the
    first epoch ends), at most a quarter of the epochs.

    Args:
        objective: in its initial state; it is not changed.
        batches: of the training data.
        settings: of the training to come.

    Returns:
        By term; NaN where the penalty was zero.
    """
    probe = copy.deepcopy(objective)
    probe.weights = dict.fromkeys(probe.weights, 0.0)
    probe.train()
    loop = Loop(probe, replace(settings, schedule="joint", prior_optimizer=None, scheduler=None))
    recent: deque[float] = deque(maxlen=_BATCHES)
    first = None
    for epoch in range(max(1, settings.epochs // 4)):
        with seeding.guarded(settings.seed, "balance", epoch):
            for batch in batches.epoch(epoch):
                recent.append(loop.step(batch))
                first = recent[0] if first is None else first
                if len(recent) == _BATCHES and sum(recent) / _BATCHES <= first / 2:
                    return _ratios(probe, batches, settings)
    return _ratios(probe, batches, settings)


def _ratios(probe: Objective, batches: Batches, settings: Settings) -> dict[str, float]:
    probe.eval()
    with seeding.guarded(settings.seed, "balance"):
        return probe.ratios(itertools.islice(batches.epoch(0), _BATCHES))
