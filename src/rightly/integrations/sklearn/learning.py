"""Train a network on an encoded table, and explain it in terms of the original columns."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rightly.attributions import attribute
from rightly.core import seeding
from rightly.core.annotation import Annotation
from rightly.core.errors import ArgumentError, ShapeError
from rightly.integrations.sklearn.settings import Settings
from rightly.integrations.sklearn.terms import sum_columns
from rightly.models import mlp
from rightly.objectives import Objective, Term
from rightly.references import Sample
from rightly.training import Run, fit

#: training rows that are kept to explain against, and rows that importances are averaged over
BACKGROUND, IMPORTANCE_ROWS = 200, 500
_ROWS_A_PASS = 2**14


class Network(nn.Module):
    """A network with outputs that mean one thing.

    A class' score becomes the score minus the mean over classes: adding one number to all scores changes no
    probability, and would change explanations. A regression always gives (B, 1).
    """

    def __init__(self, inner: nn.Module, n_out: int) -> None:
        super().__init__()
        self.inner, self.n_out = inner, n_out

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, F) -> (B, n_out)."""
        outputs: Tensor = self.inner(inputs)
        if self.n_out == 1:
            return outputs.reshape(len(inputs), 1)
        return outputs - outputs.mean(1, keepdim=True)


@dataclass(frozen=True)
class Table:
    """Encoded training rows (N, F) float32, their labels (N,) (class numbers, or standardised values), annotations."""

    inputs: Tensor
    labels: Tensor
    annotation: Annotation | None

    def take(self, index: Tensor, device: torch.device) -> tuple[Tensor, Tensor, Annotation | None]:
        """Some rows, on a device."""
        annotation = None if self.annotation is None else self.annotation.take(index).to(device)
        return self.inputs[index].to(device), self.labels[index].to(device), annotation


def make_network(settings: Settings, n_in: int, n_out: int) -> Network:
    """The network at its initial weights, which hang on the seed alone.

    Raises:
        ArgumentError, ShapeError: ``network`` makes no module, or one whose outputs do not fit.
    """
    if settings.network is None:
        return Network(mlp(n_in, settings.hidden, n_out, seed=settings.seed), n_out)
    with seeding.guarded(settings.seed, "network"):
        inner = settings.network(n_in, n_out)
        if not isinstance(inner, nn.Module):
            raise ArgumentError("network must make a module", expected="torch.nn.Module", got=type(inner).__name__)
        _check_outputs(inner, n_in, n_out)
    # a copy, because a function may hand out one module of its own again and again
    return Network(copy.deepcopy(inner), n_out)


def _check_outputs(inner: nn.Module, n_in: int, n_out: int) -> None:
    inner.eval()
    with torch.no_grad():
        shape = tuple(inner(torch.zeros(2, n_in)).shape)
    inner.train()
    if shape != (2, n_out) and not (n_out == 1 and shape == (2,)):
        raise ShapeError("the network's outputs do not fit", expected=f"(rows, {n_out})", got=f"{shape} for 2 rows")


def train(network: Network, table: Table, term: Term | None, settings: Settings) -> Run:
    """Train in place, stopping early where rows are held out.

    The network is then on the CPU, in float64 and in evaluation mode: in float32 a row's prediction would change a
    little with the rows beside it.
    """
    train_rows, held_out = split(table.labels, settings.validation_fraction, network.n_out > 1, settings.seed)
    network.to(settings.device)
    loss = F.cross_entropy if network.n_out > 1 else squared_loss
    objective = Objective(network, loss, [] if term is None else [term], seed=settings.seed)
    watched = len(held_out) > 0
    run = fit(
        objective,
        table.take(torch.from_numpy(train_rows), settings.device),
        table.take(torch.from_numpy(held_out), settings.device) if watched else None,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        patience=settings.patience if watched else None,
        seed=settings.seed,
        device=settings.device,
        progress=settings.verbose,
    )
    network.to("cpu").double().eval()
    return run


def squared_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean squared error of outputs (B, 1)."""
    return F.mse_loss(outputs[:, 0], labels)


def split(labels: Tensor, fraction: float, by_class: bool, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows held out, each rising.

    Of every class its share is held out, but never its last row. If that leaves nothing, one row is taken from the
    largest class that has two; no row is held out for ``fraction`` 0.
    """
    draws = np.random.default_rng(seed)
    numbers = labels.numpy() if by_class else np.zeros(len(labels))
    groups = [draws.permutation(np.flatnonzero(numbers == value)) for value in np.unique(numbers)]
    counts = [min(round(fraction * len(group)), len(group) - 1) for group in groups]
    largest = max(range(len(groups)), key=lambda index: len(groups[index]))
    if fraction > 0 and sum(counts) == 0 and len(groups[largest]) > 1:
        counts[largest] = 1
    held_out = [group[:count] for group, count in zip(groups, counts, strict=True)]
    kept = [group[count:] for group, count in zip(groups, counts, strict=True)]
    return np.sort(np.concatenate(kept)), np.sort(np.concatenate(held_out))


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: the steps of a small table are too short to be shared out. Put back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def outputs(network: Network, encoded: np.ndarray) -> np.ndarray:
    """(N, F) -> (N, n_out) float64."""
    parts = torch.tensor(encoded, dtype=torch.float64).split(_ROWS_A_PASS)
    return torch.cat([network(part) for part in parts]).numpy()


def explain(
    network: Network,
    encoded: np.ndarray,
    background: np.ndarray,
    groups: np.ndarray,
    columns: int,
    *,
    n_samples: int,
    target: np.ndarray | None,
    seed: int,
) -> np.ndarray:
    """Expected gradients of rows (N, F) against ``background`` (M, F), summed by column: (N, columns) float64.

    Args:
        target: (N,) class numbers; None for the predicted ones. Of no matter to a regression.
    """
    inputs = torch.tensor(encoded, dtype=torch.float64)
    found = attribute(
        network,
        inputs,
        reference=Sample(torch.tensor(background, dtype=torch.float64)),
        n_samples=n_samples,
        target="predicted" if target is None else torch.tensor(target, dtype=torch.int64),
        seed=seed,
    )
    return sum_columns(found.attributions, torch.tensor(groups, dtype=torch.int64), columns).numpy()


def some_rows(count: int, most: int, seed: int) -> np.ndarray:
    """At most ``most`` of ``range(count)``, drawn at random, rising."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng([seed, 1]).permutation(count)[:most])
