"""Small networks: the papers' own, and a sound default for tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from rightly.core import seeding
from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError, DataError


def mlp(
    n_in: int, hidden: Sequence[int], n_out: int, *, dropout: float = 0.0, seed: int | None = None
) -> nn.Sequential:
    """Linear and ReLU layers, a linear one last: (B, n_in) or (B, ...) flattened -> (B, n_out).

    The thesis' network is ``hidden=(50, 30)`` (Ross 2018, 2.3), that of the mortality experiments
    ``hidden=(512, 128, 32)`` with ``n_out=1`` (Erion et al. 2021, methods).

    Args:
        n_in, hidden, n_out: layer sizes.
        dropout: after every hidden layer.
        seed: of the initial weights; None takes the global state, as torch does.
    """
    for size in (n_in, *hidden, n_out):
        check_count("a layer's size", size)
    with seeding.guarded(seed, "mlp") if seed is not None else nullcontext():
        layers: list[nn.Module] = [nn.Flatten()]
        for size in hidden:
            layers += [nn.Linear(n_in, size), nn.ReLU()]
            if dropout:
                layers.append(nn.Dropout(dropout))
            n_in = size
        return nn.Sequential(*layers, nn.Linear(n_in, n_out))


def paper_cnn(
    n_out: int = 10,
    *,
    channels: int = 1,
    size: int | Sequence[int] = 28,
    filters: tuple[int, int] = (32, 64),
    width: int = 1024,
    seed: int | None = None,
) -> nn.Sequential:
    """The papers' image network: 5 x 5 x 32, pool, 5 x 5 x 64, pool, a hidden layer of 1024, dropout 0.5.

    Batch norm after each, as in the code of Erion et al. 2021 (their text does not mention it); padding keeps the
    size, so pooling leaves a quarter of it.

    Args:
        n_out: classes.
        channels: of the images (B, channels, height, width).
        size: height and width, or one number for square images; at least 4 pixels each.
        filters: of the two convolutions.
        width: of the hidden layer.
        seed: as in ``mlp``.
    """
    if not isinstance(size, int) and (not isinstance(size, Sequence) or len(size) != 2):
        raise ArgumentError("size counts pixels", expected="one number, or (height, width)", got=repr(size))
    tall, wide = (size, size) if isinstance(size, int) else size
    first, second = filters
    counts = {"n_out": n_out, "channels": channels, "filters": first, "the second of filters": second, "width": width}
    for name, value in counts.items():
        check_count(name, value)
    for side in (tall, wide):
        check_count("size", side, least=4)
    with seeding.guarded(seed, "paper_cnn") if seed is not None else nullcontext():
        flat = second * (tall // 4) * (wide // 4)
        return nn.Sequential(
            nn.Conv2d(channels, first, 5, padding=2),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(first, second, 5, padding=2),
            nn.BatchNorm2d(second),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(flat, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(width, n_out),
        )


class Standardised(nn.Module):
    """Colour pictures in [0, 1], less ImageNet's mean and divided by its standard deviation, colour by colour."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, values in (("mean", (0.485, 0.456, 0.406)), ("deviation", (0.229, 0.224, 0.225))):
            # not part of the weights that others publish
            self.register_buffer(name, torch.tensor(values).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> the same."""
        return (x - self.mean) / self.deviation


def load_published(model: nn.Module, weights: Mapping[str, Tensor], name: str, mend: str) -> None:
    """Put published weights into a model. Raises ``DataError`` where names or shapes differ."""
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items() if "num_batches" not in key}
    found = {key: tuple(value.shape) for key, value in weights.items() if "num_batches" not in key}
    if found != wanted:
        odd = [key for key in {**wanted, **found} if wanted.get(key) != found.get(key)]
        raise DataError(
            f"these are not the weights of {name}",
            expected=f"{len(wanted)} arrays, {odd[0]} of shape {wanted.get(odd[0])}",
            got=f"{len(found)} arrays, that one of shape {found.get(odd[0])}",
            mend=mend,
        )
    model.load_state_dict(dict(weights), strict=False)
