"""The training loop: one for every method, so that comparisons are fair."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from rightly.core import seeding
from rightly.core.errors import ArgumentError
from rightly.core.progress import bar
from rightly.objectives import Objective
from rightly.training import checkpoint as files
from rightly.training.balance import BALANCED, balanced_weights
from rightly.training.batches import Batches, Data
from rightly.training.loop import Loop, Monitor, Precision, Schedule
from rightly.training.run import Run
from rightly.training.selection import WeightChoice, choose_weight

MakeOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]

_OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


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
    scheduler: Callable[[torch.optim.Optimizer], Any] | None = None,
    schedule: Schedule = "joint",
    prior_optimizer: str | MakeOptimizer | None = None,
    monitor: Monitor | None = None,
    patience: int | None = None,
    restore_best: bool = True,
    precision: Precision = "float32",
    device: torch.device | str | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
    callback: Callable[[int, dict[str, Any]], None] | None = None,
) -> Run:
    """Train ``objective.model`` in place.

    The same seed gives the same bits on the same machine, also when the run was killed and resumed: order, dropout
    and draws are seeded by epoch and step. The global random state is left as it was.

    Args:
        objective: model, loss and terms. Terms with ``weight="auto"`` are settled first, on ``validation``; those
            with ``"balance"`` by a short training without
            terms (see ``rightly.training.balance``).
        train, validation: ``(inputs, labels[, annotation])``, a dataset, a loader or an iterable of batches.
        epochs, batch_size: as usual; a loader keeps its own batch size.
        optimizer: ``"adam"``, ``"adamw"``, ``"sgd"``, or a function from parameters to an optimizer.
        lr, weight_decay: for optimizers given by name.
        scheduler: from the optimizer to a learning-rate scheduler, stepped once an epoch.
        schedule: ``"joint"`` steps on the total; ``"alternate"`` steps on the task and then on the terms, each on
            its own batch, as the papers' image code does.
        prior_optimizer: an optimizer of its own for the terms' steps; by default they share. Attention: an Adam of
            its own ignores the scale of its loss, so that weights act only through its epsilon.
        monitor: (outputs, labels) -> number to minimise on the validation data; the task loss by default.
        patience: stop after so many epochs without improvement.
        restore_best: end with the weights of the best validated epoch.
        precision: ``"bfloat16"`` runs under autocast.
        device: where to train; by default where the model is.
        checkpoint: folder of this run's checkpoint, written after every epoch.
        resume: go on from that checkpoint if there is one.
        progress: show a bar.
        callback: called with (epoch, that epoch's history).

    Raises:
        NotConnectedError, DoubleBackwardError: a term cannot train.
        CheckpointError: the checkpoint belongs to another run or is damaged.
    """
    _check(epochs, schedule, precision, patience, validation, prior_optimizer)
    if device is not None:
        objective.to(device)
    batches = Batches(train, batch_size=batch_size, shuffle=True, seed=seed, device=device)
    valid = None
    if validation is not None:
        valid = Batches(validation, batch_size=max(batch_size, 1024), shuffle=False, seed=seed, device=device)
    parameters = [p for p in objective.parameters() if p.requires_grad]
    if not parameters:
        raise ArgumentError("there is nothing to train", expected="parameters with requires_grad", got="none")
    first = make_optimizer(optimizer, parameters, lr, weight_decay)
    second = None if prior_optimizer is None else make_optimizer(prior_optimizer, parameters, lr, weight_decay)
    loop = Loop(
        objective=objective,
        optimizers=[first] if second is None else [first, second],
        scheduler=None if scheduler is None else scheduler(first),
        schedule=schedule,
        precision=precision,
        monitor=monitor,
    )
    run = Run()
    path = None if checkpoint is None else Path(checkpoint) / "checkpoint.safetensors"
    identity = {"seed": seed, "batch_size": batch_size, "schedule": schedule, "terms": list(objective.weights)}
    best: dict[str, Tensor] | None = None
    if resume and path is not None and path.exists():
        best = loop.load(path, run, identity)
    if any(map(math.isnan, objective.weights.values())):
        settings: dict[str, Any] = {
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
            "precision": precision,
            "device": device,
            "seed": seed,
        }
        run.choices = _settle(objective, batches, train, validation, settings)
    with bar("fit", enabled=progress) as report:
        for epoch in range(len(run.history), epochs):
            if run.stopped == "patience":
                break
            start = time.monotonic()
            with seeding.guarded(seed, "epoch", epoch):
                entry = loop.epoch(batches, epoch)
                entry["validation"] = None if valid is None else loop.validate(valid)
            run.history.append(entry)
            run.weights = dict(objective.weights)
            if _improved(entry["validation"], run):
                run.best_epoch, run.best_value = epoch, entry["validation"]
                best = files.clone_state(objective.model) if valid is not None and restore_best else None
            elif patience is not None and epoch - run.best_epoch >= patience:
                run.stopped = "patience"
            run.seconds += time.monotonic() - start
            if path is not None:
                loop.save(path, run, identity, best)
            if callback:
                callback(epoch, entry)
            if report:
                report(epoch + 1, epochs)
    if best is not None:
        objective.model.load_state_dict(best)
    return run


def make_optimizer(
    optimizer: str | MakeOptimizer, parameters: list[nn.Parameter], lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """An optimizer by name, or by the user's function."""
    if not isinstance(optimizer, str):
        return optimizer(parameters)
    if optimizer not in _OPTIMIZERS:
        raise ArgumentError(
            "unknown optimizer", expected=", ".join(_OPTIMIZERS) + ", or a function of the parameters", got=optimizer
        )
    return _OPTIMIZERS[optimizer](parameters, lr=lr, weight_decay=weight_decay)  # type: ignore[call-arg]


def _improved(value: float | None, run: Run) -> bool:
    return value is None or run.best_value is None or value < run.best_value


def _check(
    epochs: int,
    schedule: str,
    precision: str,
    patience: int | None,
    validation: Data | None,
    prior_optimizer: object,
) -> None:
    if epochs < 1:
        raise ArgumentError("epochs counts epochs", expected="at least 1", got=epochs)
    if schedule not in get_args(Schedule):
        raise ArgumentError("unknown schedule", expected=", ".join(get_args(Schedule)), got=repr(schedule))
    if precision not in get_args(Precision):
        raise ArgumentError("unknown precision", expected=", ".join(get_args(Precision)), got=repr(precision))
    if patience is not None and (patience < 1 or validation is None):
        raise ArgumentError(
            "patience watches the validation data", expected="patience >= 1 and validation=...", got=patience
        )
    if prior_optimizer is not None and schedule != "alternate":
        raise ArgumentError(
            "an optimizer of its own for the terms needs steps of their own",
            expected="schedule='alternate'",
            got=repr(schedule),
        )


def _settle(
    objective: Objective, batches: Batches, train: Data, validation: Data | None, settings: dict[str, Any]
) -> dict[str, WeightChoice]:
    """Settle the weights given as "balance" (by a short training without terms) and "auto" (by validation)."""

    def make(probe: Objective) -> torch.optim.Optimizer:
        parameters = [p for p in probe.parameters() if p.requires_grad]
        return make_optimizer(settings["optimizer"], parameters, settings["lr"], settings["weight_decay"])

    shared = {key: settings[key] for key in ("epochs", "seed", "precision")}
    balanced = balanced_weights(objective, batches, make, **shared)
    choices = {}
    for term in objective.terms:
        if not math.isnan(objective.weights[term.name]):
            continue
        scale = balanced[term.name] if math.isfinite(balanced[term.name]) else 1.0
        if term.weight == "balance":
            choices[term.name] = WeightChoice(scale, BALANCED, ())
        elif validation is None:
            raise ArgumentError(
                "weight='auto' is chosen by validation", expected="validation=...", got=None, mend="or give a number"
            )
        else:
            choices[term.name] = choose_weight(objective, term.name, train, validation, fit, scale=scale, **settings)
        objective.set_weight(term.name, choices[term.name].weight)
    return choices
