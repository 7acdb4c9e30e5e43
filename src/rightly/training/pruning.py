"""Stop hopeless trainings early, by the pruner of a tuner (Optuna, the extra ``sweep``)."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any

from rightly.core.errors import ArgumentError
from rightly.core.extras import require
from rightly.training.run import Run

#: of a pruner given by name: settings of a seed that are never stopped, and the share of the epochs that all get
_FIRST, _SHARE = 3, 4


class Pruning:
    """Studies of the tuner that are only asked whether to go on, one for each seed and split.

    Settings are compared within a seed: between seeds the data and the starting weights differ as well, and a good
    setting would lose its less lucky seeds.

    Args:
        pruner: ``"median"`` (worse than the median of the finished ones at the same epoch), ``"halving"`` (of those
            that came as far the better part goes on), or a pruner of Optuna's.
        epochs: of a training at most.

    Raises:
        ArgumentError: it is none of these.
        MissingExtraError: Optuna is not installed.
    """

    def __init__(self, pruner: Any, epochs: int) -> None:
        self.optuna = require("optuna")
        kinds = self.optuna.pruners
        if pruner == "median":
            pruner = kinds.MedianPruner(n_startup_trials=_FIRST, n_warmup_steps=epochs // _SHARE)
        elif pruner == "halving":
            pruner = kinds.SuccessiveHalvingPruner(min_resource=max(1, epochs // _SHARE), reduction_factor=2)
        if not isinstance(pruner, kinds.BasePruner):
            raise ArgumentError("unknown pruner", expected="'median', 'halving', or one of Optuna's", got=repr(pruner))
        self.pruner = pruner
        self.studies: dict[Hashable, Any] = {}

    def begin(self, group: Hashable) -> Any:
        """A training of the seed and split ``group`` starts; what is returned stands for it."""
        return self._study(group).ask()

    def hopeless(self, trial: Any, epoch: int, value: float) -> bool:
        """Whether to stop the training, whose validated number after ``epoch`` is ``value``."""
        trial.report(value, epoch)
        return bool(trial.should_prune())

    def end(self, trial: Any, status: str, run: Run) -> None:
        """The training has ended."""
        value = run.best_value if status == "trained" else None
        trial.study.tell(trial, values=value, state=self._state(status, value))

    def recall(self, group: Hashable, status: str, run: Run) -> None:
        """A training that ended in an earlier session."""
        values = {entry["epoch"]: entry["validation"] for entry in run.history if entry["validation"] is not None}
        value = run.best_value if status == "trained" else None
        make = self.optuna.trial.create_trial
        self._study(group).add_trial(make(state=self._state(status, value), value=value, intermediate_values=values))

    def _study(self, group: Hashable) -> Any:
        if group not in self.studies:
            with self._quiet():
                sampler = self.optuna.samplers.RandomSampler(seed=0)
                made = self.optuna.create_study(direction="minimize", sampler=sampler, pruner=self.pruner)
            self.studies[group] = made
        return self.studies[group]

    def _state(self, status: str, value: float | None) -> Any:
        states = self.optuna.trial.TrialState
        if status == "pruned":
            return states.PRUNED
        return states.FAIL if value is None else states.COMPLETE

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Without the tuner's own messages; its level of logging is put back."""
        logging = self.optuna.logging
        level = logging.get_verbosity()
        logging.set_verbosity(logging.WARNING)
        try:
            yield
        finally:
            logging.set_verbosity(level)
