"""The one training loop of all methods, so that comparisons are fair."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rightly.core import seeding
from rightly.core.errors import ArgumentError
from rightly.core.progress import bar
from rightly.objectives import Objective
from rightly.objectives.blocks import UnstackableError
from rightly.training import checkpoint as files
from rightly.training.batches import Data
from rightly.training.loop import DivergedError, Loop
from rightly.training.run import Run
from rightly.training.settings import MakeOptimizer, MakeScheduler, Monitor, Precision, Schedule, Settings
from rightly.training.settle import settle
from rightly.training.together import Member, train_together

#: weights of a model up to which several trained at once on a processor are faster than one after the other
_SMALL = 2**18


def fit(
    objective: Objective,
    train: Data,
    validation: Data | None = None,
    *,
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
    always: Tensor | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
    callback: Callable[[int, dict[str, Any]], None] | None = None,
) -> Run:
    """Train ``objective.model`` in place.

    The same seed gives the same bits on the same machine, also when the run was killed and resumed: order, dropout
    and draws are seeded by epoch and step. (Not seeded are a loader with a generator of its own, NumPy and Python.)
    The global random state and the train/eval mode are left as they were, and no gradient stays behind.

    Args:
        objective: model, loss and terms. Weights left open are settled first: ``"balance"`` by a short training
            without terms (see ``rightly.training.balance``), ``"auto"`` by trainings of copies, judged on
            ``validation`` (see ``rightly.training.selection``).
        train, validation: ``(inputs, labels[, annotation])``, a dataset, a loader or an iterable of batches.
        epochs, batch_size: as usual; a loader keeps its own batch size. A last batch of one joins the one before.
        optimizer: ``"adam"``, ``"adamw"``, ``"sgd"``, or a function from parameters to an optimizer.
        lr, weight_decay: for optimizers given by name.
        scheduler: from the optimizer to a learning-rate scheduler, stepped once an epoch; one that waits for a
            plateau watches the monitored number (the task loss without validation).
        schedule: ``"joint"`` steps on the total; ``"alternate"`` steps on the task and then on the terms, each on
            its own batch, as the papers' image code does.
        prior_optimizer: an optimizer of its own for the terms' steps; by default they share. Attention: an Adam of
            its own ignores the scale of its loss, so that weights act only through its epsilon.
        monitor: (outputs, labels) -> number to minimise on the validation data; the task loss by default.
        patience: stop after so many epochs without improvement.
        restore_best: end with the weights of the best validated epoch.
        precision: ``"bfloat16"`` runs under autocast.
        device: where to train; by default where the model is.
        always: rows (R,) of ``train`` that are in every batch, beside ``batch_size`` of the others: the annotated ones,
            where they are few (Ross 2018, 2.3.1). Task loss and terms both see them more often than the rest: an
            annotation on R of N examples weighs N / (batch_size + R) times what it would.
        checkpoint: folder of this run's checkpoint, written after every epoch.
        resume: go on from that checkpoint if there is one.
        progress: show a bar.
        callback: called with (epoch, that epoch's history).

    Raises:
        ArgumentError, ShapeError: an argument or the data cannot be used.
        NotConnectedError, DoubleBackwardError: the loss or a term cannot train.
        DivergedError: a loss is no longer a finite number.
        CheckpointError: the checkpoint belongs to another run or is damaged.
    """
    settings = Settings(
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        scheduler=scheduler,
        schedule=schedule,
        prior_optimizer=prior_optimizer,
        monitor=monitor,
        patience=patience,
        restore_best=restore_best,
        precision=precision,
        device=device,
        seed=seed,
        always=always,
    )
    _check(objective, validation, settings, callback)
    path = _checkpoint_file(checkpoint, resume)
    if device is not None:
        objective.to(device)
    batches, valid = settings.batches(train, validation)

    def train_copies(copies: Sequence[Objective]) -> list[bool]:
        if len(copies) > 1 and _small(objective):
            # by size and not by measuring, as ``fit_many`` does: the choice must not depend on what a clock said
            members = [Member(copied, settings, batches, valid) for copied in copies]
            with suppress(UnstackableError):
                train_together(members)
                return [member.failure is None for member in members]
        return [_comes_through(copied, train, validation, settings) for copied in copies]

    run, best = Run(), None
    with seeding.guarded(seed, "fit"), _mode_kept(objective), bar("fit", enabled=progress) as report:
        loop = Loop(objective, settings)
        if resume and path is not None and path.exists():
            best = loop.load(path, run)
        if any(map(math.isnan, objective.weights.values())):
            run.choices = settle(objective, batches, valid, settings, train_copies)
            for name, choice in run.choices.items():
                objective.set_weight(name, choice.weight)
        run.weights = dict(objective.weights)
        for epoch in range(len(run.history), epochs):
            if run.stopped == "patience":
                break
            start = time.monotonic()
            with seeding.guarded(seed, "epoch", epoch):
                entry = loop.epoch(batches, epoch)
                entry["validation"] = None if valid is None else loop.validate(valid)
            loop.advance(entry["task"] if valid is None else entry["validation"])
            if run.add(entry, patience):
                best = files.clone_state(objective.trained()) if valid is not None and restore_best else None
            run.note_engines(objective.engines.choices)
            run.seconds += time.monotonic() - start
            if path is not None:
                loop.save(path, run, best)
            if callback:
                callback(epoch, entry)
            if report:
                report(epoch + 1, epochs)
        if best is not None:
            objective.trained().load_state_dict(best)
        objective.zero_grad(set_to_none=True)
    return run


def _small(objective: Objective) -> bool:
    """Whether a step is mostly overhead, which several models trained at once share."""
    weights = list(objective.parameters())
    return weights[0].device.type != "cpu" or sum(weight.numel() for weight in weights) <= _SMALL


def _comes_through(objective: Objective, train: Data, validation: Data | None, settings: Settings) -> bool:
    """Train with these settings; whether the loss stayed finite."""
    try:
        fit(objective, train, validation, **vars(settings))
    except DivergedError:
        return False
    return True


@contextmanager
def _mode_kept(module: nn.Module) -> Iterator[None]:
    """Put every training flag back afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _check(objective: Objective, validation: Data | None, settings: Settings, callback: object) -> None:
    """Raise ``ArgumentError`` for what ``Settings`` alone cannot know."""
    if not isinstance(objective, Objective):
        raise ArgumentError(
            "fit trains an objective",
            expected="rt.Objective(model, loss, terms)",
            got=type(objective).__name__,
        )
    for name in ("patience", "monitor"):
        if getattr(settings, name) is not None and validation is None:
            raise ArgumentError(
                f"{name} watches the validation data", expected="validation=...", got=None, mend=f"or leave out {name}"
            )
    if callback is not None and not callable(callback):
        raise ArgumentError("the callback is called", expected="a function (epoch, history)", got=repr(callback))


def _checkpoint_file(folder: str | Path | None, resume: bool) -> Path | None:
    if folder is None:
        if resume:
            raise ArgumentError("there is nothing to resume from", expected="checkpoint=folder", got=None)
        return None
    if Path(folder).exists() and not Path(folder).is_dir():
        raise ArgumentError("checkpoint names a folder", expected="a folder, or a new name", got=str(folder))
    return Path(folder) / "checkpoint.safetensors"
