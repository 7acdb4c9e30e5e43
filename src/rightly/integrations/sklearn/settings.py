"""The constructor's arguments, checked when ``fit`` is called, as scikit-learn wants it."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import nn

from rightly.core.checks import check_count, check_number
from rightly.core.errors import ArgumentError
from rightly.objectives.term import Weight

MakeNetwork = Callable[[int, int], nn.Module]

#: rows a batch where ``batch_size`` is None: never fewer, never more, in between this share of the table
_LEAST, _MOST, _SHARE = 64, 1024, 50


@dataclass(frozen=True)
class Settings:
    """How a network is trained: the estimator's arguments of the same names, in plain Python types."""

    weight: Weight
    n_samples: int
    network: MakeNetwork | None
    hidden: tuple[int, ...]
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    validation_fraction: float
    patience: int | None
    seed: int
    verbose: bool
    device: torch.device


def read_settings(estimator: Any, rows: int) -> Settings:
    """The estimator's arguments for a table of ``rows`` training rows.

    Raises:
        ArgumentError: one of them cannot be used.
    """
    fraction = check_number("validation_fraction", _plain(estimator.validation_fraction), positive=False)
    if fraction >= 1:
        raise ArgumentError("validation_fraction is a share", expected="a number in [0, 1)", got=fraction)
    return Settings(
        weight=_weight(estimator.weight, estimator.prior, fraction),
        n_samples=check_count("n_samples", _plain(estimator.n_samples)),
        network=_network(estimator.network),
        hidden=_hidden(estimator.hidden),
        epochs=check_count("epochs", _plain(estimator.epochs)),
        batch_size=_batch_size(estimator.batch_size, rows),
        lr=check_number("lr", _plain(estimator.lr), positive=True),
        weight_decay=check_number("weight_decay", _plain(estimator.weight_decay), positive=False),
        validation_fraction=fraction,
        patience=None if estimator.patience is None else check_count("patience", _plain(estimator.patience)),
        seed=read_seed(estimator.random_state),
        verbose=bool(estimator.verbose),
        device=_device(estimator.device),
    )


def read_seed(random_state: Any) -> int:
    """A whole number >= 0 from ``random_state``; None takes a new one from the operating system.

    NumPy's global state is left alone, unlike in scikit-learn; of a ``RandomState`` one number is drawn.
    """
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    if isinstance(random_state, numbers.Integral) and not isinstance(random_state, bool):
        return check_count("random_state", int(random_state), least=0)
    if callable(getattr(random_state, "randint", None)) and hasattr(random_state, "get_state"):
        return int(check_random_state(random_state).randint(2**31 - 1))
    raise ArgumentError(
        "unusable random_state",
        expected="None, a whole number >= 0, or a numpy.random.RandomState",
        got=repr(random_state),
    )


def _plain(value: Any) -> Any:
    """Grids are often NumPy arrays: their numbers as Python's own."""
    return value.item() if isinstance(value, np.generic) else value


def _weight(weight: Any, prior: Any, fraction: float) -> Weight:
    if isinstance(weight, str):
        if weight not in ("auto", "balance"):
            raise ArgumentError("unusable weight", expected="'auto', 'balance' or a number >= 0", got=repr(weight))
        if weight == "auto" and prior is not None and fraction == 0:
            raise ArgumentError(
                "weight='auto' is chosen by validation",
                expected="validation_fraction > 0",
                got=fraction,
                mend="or give a number or 'balance' as weight",
            )
        return "auto" if weight == "auto" else "balance"
    return float(check_number("weight", _plain(weight), positive=False))


def _hidden(hidden: Any) -> tuple[int, ...]:
    if isinstance(hidden, str) or not isinstance(hidden, Sequence | np.ndarray):
        raise ArgumentError("hidden lists the sizes of layers", expected="such as (64, 32)", got=repr(hidden))
    return tuple(check_count("a size in hidden", _plain(size)) for size in hidden)


def _network(network: Any) -> MakeNetwork | None:
    if network is None or (callable(network) and not isinstance(network, nn.Module)):
        return network
    raise ArgumentError(
        "network makes a new network for every fit",
        expected="a function (n_in, n_out) -> torch.nn.Module, or None",
        got=f"a {type(network).__name__}",
        mend="lambda n_in, n_out: ...",
    )


def _batch_size(batch_size: Any, rows: int) -> int:
    if batch_size is None:
        return min(_MOST, max(_LEAST, rows // _SHARE))
    return check_count("batch_size", _plain(batch_size))


def _device(device: Any) -> torch.device:
    try:
        return torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError) as error:
        raise ArgumentError(
            "unknown device", expected="None, 'cpu', 'cuda', 'cuda:0', ...", got=repr(device)
        ) from error
