"""Train a grid of models: together where it pays, one after the other where it does not."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rightly.core import seeding
from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError
from rightly.core.progress import bar
from rightly.objectives import Objective, Term
from rightly.objectives.blocks import UnstackableError
from rightly.objectives.model_term import AnyTerm, learned_by
from rightly.objectives.objective import Loss
from rightly.training.batches import Data
from rightly.training.fit import fit
from rightly.training.grid import Grid, Spec, Splits, Terms, specs
from rightly.training.loop import DivergedError
from rightly.training.pruning import Pruning
from rightly.training.run import Run
from rightly.training.settings import MakeOptimizer, MakeScheduler, Monitor, Precision, Schedule, Settings
from rightly.training.sizes import measured_size
from rightly.training.together import Member, shapes_of, train_together
from rightly.training.trials import Folder, Trial


def fit_many(
    model_factory: Callable[[int], nn.Module],
    loss: Loss,
    terms: Terms | Mapping[str, Terms],
    train: Data | None = None,
    validation: Data | None = None,
    *,
    grid: Grid | None = None,
    seeds: Iterable[int] = (0,),
    splits: Splits | None = None,
    epochs: int = 10,
    batch_size: int = 256,
    optimizer: str | MakeOptimizer = "adam",
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    scheduler: MakeScheduler | None = None,
    schedule: Schedule = "joint",
    prior_optimizer: str | MakeOptimizer | None = None,
    monitor: Monitor | None = None,
    patience: int | None = None,
    restore_best: bool = True,
    precision: Precision = "float32",
    device: torch.device | str | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    keep_models: bool = True,
    pruner: Any = None,
    at_once: int | None = None,
    progress: bool = False,
) -> list[Trial]:
    """Train priors x splits x weights x seeds.

    Every trial ends where this would have brought it alone, ``model_factory`` being called with its own random state::

        objective = rt.Objective(model_factory(seed), loss, terms, seed=seed)
        run = rt.fit(objective, train, validation, seed=seed, ...)

    Models of linear layers, layer norms, activations and dropout on tensors in memory are trained several at once as
    one larger model, where that is faster; the result is then the same up to rounding. All others are trained one
    after the other, to the same bits.

    Args:
        model_factory: seed -> an untrained model.
        loss: (outputs, labels) -> scalar, a mean over the batch.
        terms: a list of terms, each trial with a copy of a prior that learns; or a function from the training data to
            such a list, for references that are drawn from it; or ``{name: one of these}``, alternative priors.
        train, validation: data as ``rt.fit`` takes them, the same for all trials.
        grid: weights to try, ``{"weight": [0, 0.1, 1]}`` for a single term, ``{TERM: [...], OTHER: [...]}`` by the
            names of terms; every combination is trained.
        seeds: each a training of every setting.
        splits: in place of ``train``: ``{name: (train, validation)}``, every one with every seed, or a function
            seed -> (train, validation), which gives each seed a split of its own.
        epochs, batch_size, optimizer, lr, weight_decay, scheduler, schedule, prior_optimizer, monitor, patience,
            restore_best, precision, device: as in ``rt.fit``.
        folder: where to write ``trials.jsonl``, a line for each trial as it ends, and the weights of the models.
        resume: go on with what is in the folder; trials that have ended are not repeated.
        keep_models: False forgets the models, which saves memory and disk.
        pruner: stop hopeless trainings early, by the monitored number on the validation data: ``"median"``,
            ``"halving"`` or a pruner of Optuna's (extra ``sweep``). It compares a setting with those that were trained
            before with the same seed and split. Do not use it where a prior may cost some accuracy; and what is left
            of a setting may be its better seeds, so do not compare means of settings that lost some.
        at_once: how many models to train at once, 1 for one after the other; chosen by measuring a few steps if not
            given. Give it where two sweeps must have the same bits.
        progress: show a bar over trials.

    Returns:
        The trials, priors first, then splits, weights and seeds; each with its model, and with what its priors learned
        (``trial.terms``).

    Raises:
        ArgumentError, ShapeError: an argument or the data cannot be used.
        NotConnectedError, DoubleBackwardError: the loss or a term cannot train.
        CheckpointError: the folder holds another sweep, or is damaged.
        MissingExtraError: ``pruner`` needs Optuna.
    """
    seeds = list(seeds)
    numbers = {
        "epochs": epochs,
        "batch_size": batch_size,
        "optimizer": optimizer,
        "lr": lr,
        "weight_decay": weight_decay,
        "scheduler": scheduler,
        "schedule": schedule,
        "prior_optimizer": prior_optimizer,
        "monitor": monitor,
        "patience": patience,
        "restore_best": restore_best,
        "precision": precision,
        "device": device,
    }
    wanted = specs(terms, train, validation, grid or {}, seeds, splits)
    for name, value in (("patience", patience), ("monitor", monitor), ("pruner", pruner)):
        if value is not None and any(spec.validation is None for spec in wanted):
            raise ArgumentError(f"{name} watches the validation data", expected="validation=...", got=None)
    if folder is None and resume:
        raise ArgumentError("there is nothing to resume from", expected="folder=...", got=None)
    if at_once is not None:
        check_count("at_once", at_once)
    settings = {seed: Settings(**numbers, seed=seed) for seed in seeds}  # type: ignore[arg-type]
    pruning = None if pruner is None else Pruning(pruner, epochs)
    identity = {
        "trials": [[spec.setting, spec.seed] for spec in wanted],
        "terms": [
            [f"{term.name}: {term.weight} {term.about}, {term.schedule}" for term in spec.terms] for spec in wanted
        ],
        "settings": {key: _written(value) for key, value in numbers.items()},
        "data": sorted(_groups(wanted)),
        "pruner": _written(pruner),
        "at_once": at_once,
        "models": keep_models,
    }
    sweep = _Sweep(
        wanted,
        model_factory,
        loss,
        settings,
        None if folder is None else Folder(folder, identity, resume=resume),
        pruning,
        keep_models,
        at_once,
    )
    with bar("fit_many", enabled=progress) as report:
        return sweep.run(report)


def _written(value: object) -> object:
    """An argument as far as it can be written down."""
    plain = value is None or isinstance(value, bool | int | float | str)
    return value if plain else getattr(value, "__name__", type(value).__name__)


@dataclass
class _Sweep:
    """A sweep that is going on."""

    wanted: list[Spec]
    model_factory: Callable[[int], nn.Module]
    loss: Loss
    settings: Mapping[int, Settings]
    folder: Folder | None
    pruning: Pruning | None
    keep_models: bool
    at_once: int | None

    def run(self, report: Callable[[int, int], None] | None) -> list[Trial]:
        """Train what is not done yet; all trials in order."""
        done = {} if self.folder is None else {n: self._recalled(self.folder, n) for n in self.folder.done}
        if self.pruning is not None:
            for number, trial in done.items():
                self.pruning.recall(_peers(self.wanted[number]), trial.status, trial.run)
        for name, group in _groups(self.wanted).items():
            size, reason = self._size(name, group)
            for stack in _even(group, size):
                if all(spec.number in done for spec in stack):
                    continue
                ended = self._train(stack, reason)
                if self.folder is not None:
                    self.folder.append(ended)
                done = ended | done
                if report:
                    report(len(done), len(self.wanted))
        return [done[spec.number] for spec in self.wanted]

    def _recalled(self, folder: Folder, number: int) -> Trial:
        spec = self.wanted[number]
        return folder.trial(number, self._model(spec.seed) if self.keep_models else None, _own(spec.terms))

    def _size(self, name: str, group: list[Spec]) -> tuple[int, str]:
        """How many of a group to train at once, and why."""
        if self.at_once is not None:
            return self.at_once, "given"
        if self.folder is not None and name in self.folder.sizes:
            size, reason = self.folder.sizes[name]
            return int(size), str(reason)
        size, reason = measured_size(lambda count: [self._member(spec) for spec in group[:count]], len(group))
        if self.folder is not None:
            self.folder.remember(name, size, reason)
        return size, reason

    def _model(self, seed: int) -> nn.Module:
        with seeding.guarded(seed, "model"):
            model = self.model_factory(seed)
        if not isinstance(model, nn.Module):
            raise ArgumentError("model_factory makes models", expected="a torch.nn.Module", got=type(model).__name__)
        return model

    def _member(self, spec: Spec) -> Member:
        settings = self.settings[spec.seed]
        # a loss with a state (rt.GroupDRO) is each trial's own, like what its terms learn
        loss = copy.deepcopy(self.loss) if isinstance(self.loss, nn.Module) else self.loss
        objective = Objective(self._model(spec.seed), loss, _own(spec.terms), seed=spec.seed)
        if settings.device is not None:
            objective.to(settings.device)
        return Member(objective, settings, *settings.batches(spec.train, spec.validation))

    def _train(self, stack: Sequence[Spec], reason: str) -> dict[int, Trial]:
        """Train these at once; or one after the other, when it shows only now that they cannot be one."""
        watches = [_Watch(self.pruning, spec) for spec in stack]
        if len(stack) > 1:
            try:
                members = [self._member(spec) for spec in stack]
                for member, watch in zip(members, watches, strict=True):
                    member.watch = watch
                train_together(members)
            except UnstackableError as error:
                for watch in watches:
                    watch.end("diverged", Run())
                reason = f"one after the other: {error.what}"
                return {n: t for spec in stack for n, t in self._train([spec], reason).items()}
        else:
            members = [self._alone(stack[0], watches[0])]
        ended = {}
        for spec, member, watch in zip(stack, members, watches, strict=True):
            status = "diverged" if member.failure else "pruned" if member.run.stopped == "pruned" else "trained"
            watch.end(status, member.run)
            kept = self.keep_models and status == "trained"
            ended[spec.number] = Trial(
                spec.setting,
                spec.seed,
                status,  # type: ignore[arg-type]
                member.run,
                member.objective.model if kept else None,
                len(stack),
                reason,
                member.objective.terms if kept else (),
            )
        return ended

    def _alone(self, spec: Spec, watch: _Watch) -> Member:
        """``rt.fit``, in the form of a member that has ended."""
        member = self._member(spec)
        seen = Run()

        def look(epoch: int, entry: dict[str, Any]) -> None:
            seen.add(entry, member.settings.patience)
            last = epoch + 1 == member.settings.epochs or seen.stopped != "epochs"
            if watch(epoch, entry) and not last:
                raise _PrunedError

        member.run = seen
        try:
            member.run = fit(member.objective, spec.train, spec.validation, callback=look, **vars(member.settings))
        except DivergedError as error:
            member.failure = error
        except _PrunedError:
            seen.stopped = "pruned"
        member.run.weights = dict(member.objective.weights)
        return member


def _own(terms: Sequence[AnyTerm]) -> tuple[AnyTerm, ...]:
    """The terms with what they learn of their own: a trial must not go on from where another one ended.

    What two of them share they share in the copies.
    """
    memo: dict[int, Any] = {}

    def own(term: AnyTerm) -> AnyTerm:
        if learned_by(term) is None:
            return term
        if isinstance(term, Term):
            return replace(term, prior=copy.deepcopy(term.prior, memo))
        return copy.deepcopy(term, memo)

    return tuple(own(term) for term in terms)


class _PrunedError(Exception):
    """Leaves ``rt.fit`` from its callback."""


class _Watch:
    """Tells the pruner of a training's epochs."""

    def __init__(self, pruning: Pruning | None, spec: Spec) -> None:
        self.pruning = pruning
        self.trial = None if pruning is None else pruning.begin(_peers(spec))

    def __call__(self, epoch: int, entry: dict[str, Any]) -> bool:
        """Whether to stop."""
        return self.pruning is not None and self.pruning.hopeless(self.trial, epoch, entry["validation"])

    def end(self, status: str, run: Run) -> None:
        """The training has ended."""
        if self.pruning is not None:
            self.pruning.end(self.trial, status, run)


def _peers(spec: Spec) -> tuple[object, int]:
    """The split and seed within which the pruner compares."""
    return spec.setting.get("split"), spec.seed


def _groups(wanted: Sequence[Spec]) -> dict[str, list[Spec]]:
    """Trainings that could be one: the same prior, sizes of data, and terms that rest."""
    groups: dict[str, list[Spec]] = {}
    for spec in wanted:
        groups.setdefault(_shared(spec), []).append(spec)
    return groups


def _shared(spec: Spec) -> str:
    """What trainings that could be one share."""
    resting = [term.name for term in spec.terms if term.weight == 0]
    opened = [term.name for term in spec.terms if isinstance(term.weight, str)]
    return repr((spec.setting.get("prior"), resting, opened, _size_of(spec.train), _size_of(spec.validation)))


def _size_of(data: Data | None) -> object:
    try:
        return shapes_of(data)
    except UnstackableError:
        return type(data).__name__


def _even(group: Sequence[Spec], size: int) -> list[Sequence[Spec]]:
    """Parts of at most ``size``, as equal as they can be."""
    count = -(-len(group) // size)
    bounds = [len(group) * i // count for i in range(count + 1)]
    return [group[start:end] for start, end in itertools.pairwise(bounds)]
