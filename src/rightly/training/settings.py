"""How a training goes: the arguments of ``rt.fit`` that its trial runs share, checked before anything starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from rightly.core.checks import check_count, check_number
from rightly.core.errors import ArgumentError
from rightly.training.batches import Batches, Data

Schedule = Literal["joint", "alternate"]
Precision = Literal["float32", "bfloat16"]
Monitor = Callable[[Tensor, Tensor], float]
MakeOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
MakeScheduler = Callable[[torch.optim.Optimizer], Any]

_OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """See ``rt.fit``, whose arguments these are. Raises ``ArgumentError`` for one that cannot be used."""

    epochs: int
    batch_size: int
    optimizer: str | MakeOptimizer
    lr: float
    weight_decay: float
    scheduler: MakeScheduler | None
    schedule: Schedule
    prior_optimizer: str | MakeOptimizer | None
    monitor: Monitor | None
    patience: int | None
    restore_best: bool
    precision: Precision
    device: torch.device | str | None
    seed: int
    always: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            check_count(name, getattr(self, name))
        if self.patience is not None:
            check_count("patience", self.patience)
        check_number("lr", self.lr, positive=True)
        check_number("weight_decay", self.weight_decay, positive=False)
        if not isinstance(self.seed, int) or isinstance(self.seed, bool):
            raise ArgumentError("the seed is a number", expected="a whole number", got=repr(self.seed))
        for name, known in (("schedule", get_args(Schedule)), ("precision", get_args(Precision))):
            if getattr(self, name) not in known:
                raise ArgumentError(f"unknown {name}", expected=", ".join(known), got=repr(getattr(self, name)))
        for name in ("scheduler", "monitor"):
            if getattr(self, name) is not None and not callable(getattr(self, name)):
                raise ArgumentError(f"the {name} is called", expected="a function", got=repr(getattr(self, name)))
        for maker in (self.optimizer, *([] if self.prior_optimizer is None else [self.prior_optimizer])):
            _check_maker(maker)
        if self.prior_optimizer is not None and self.schedule != "alternate":
            raise ArgumentError(
                "an optimizer of its own for the terms needs steps of their own",
                expected="schedule='alternate'",
                got=repr(self.schedule),
            )
        if self.device is not None:
            _check_device(self.device)

    def batches(self, train: Data, validation: Data | None) -> tuple[Batches, Batches | None]:
        """The training data in the order of the seed, and the validation data as they come."""
        size, seed, device = self.batch_size, self.seed, self.device
        batches = Batches(train, batch_size=size, shuffle=True, seed=seed, device=device, always=self.always)
        if validation is None:
            return batches, None
        return batches, Batches(validation, batch_size=max(size, 1024), shuffle=False, seed=seed, device=device)

    def optimizers(self, module: nn.Module) -> list[torch.optim.Optimizer]:
        """The optimizer of the task, and the terms' own if there is one."""
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        if not parameters:
            raise ArgumentError("there is nothing to train", expected="parameters with requires_grad", got="none")
        makers = [self.optimizer] if self.prior_optimizer is None else [self.optimizer, self.prior_optimizer]
        return [self._make(maker, parameters) for maker in makers]

    def _make(self, maker: str | MakeOptimizer, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        if isinstance(maker, str):
            return _OPTIMIZERS[maker](parameters, lr=self.lr, weight_decay=self.weight_decay)  # type: ignore[call-arg]
        made = maker(parameters)
        if not isinstance(made, torch.optim.Optimizer):
            raise ArgumentError(
                "the function made no optimizer", expected="torch.optim.Optimizer", got=type(made).__name__
            )
        return made


def _check_maker(maker: object) -> None:
    if maker not in _OPTIMIZERS if isinstance(maker, str) else not callable(maker):
        raise ArgumentError(
            "unknown optimizer",
            expected=", ".join(_OPTIMIZERS) + ", or a function from the parameters to an optimizer",
            got=repr(maker) if isinstance(maker, str) else type(maker).__name__,
        )


def _check_device(device: torch.device | str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ArgumentError(
            "there is no such device here", expected="'cpu', or one that this PyTorch can use", got=repr(device)
        ) from error
