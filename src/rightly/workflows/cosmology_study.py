"""The maps of weak lensing and the network that two reproductions share: ``awd-cosmology`` and ``trim-cosmology``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rightly.core import seeding
from rightly.data import load_arrays, lognormal_maps
from rightly.objectives import Objective
from rightly.training import fit

SIDE, DEGREES = 64, 3.5
PARTS = ("train", "validation", "test")
#: cosmologies of the stored spectra
COSMOLOGIES = 25


@dataclass(frozen=True)
class Maps:
    """Lognormal maps and what they were drawn from.

    Attributes:
        maps: (N, SIDE, SIDE) by part, over the standard deviation of the training pixels.
        truth: (N, P) float64 by part, the cosmology's parameters, Omega_m first.
    """

    maps: dict[str, Tensor]
    truth: dict[str, Tensor]


def draw_maps(counts: Sequence[int], draws: torch.Generator, data_dir: str | Path | None = None) -> Maps:
    """So many maps of each cosmology to train, to choose and to test."""
    arrays = load_arrays("lognormal_kappa_cls", data_dir=data_dir)
    parameters = torch.from_numpy(np.asarray(arrays["params"], dtype=np.float64))
    maps, truth = {}, {}
    for name, count in zip(PARTS, counts, strict=True):
        drawn = [
            lognormal_maps(arrays["ell"], power, count, side=SIDE, degrees=DEGREES, generator=draws)
            for power in arrays["cl"]
        ]
        maps[name], truth[name] = torch.cat(drawn), parameters.repeat_interleave(count, 0)
    size = maps["train"].std()
    return Maps({name: part / size for name, part in maps.items()}, truth)


@dataclass(frozen=True)
class Reader:
    """A network that says standardised Omega_m, (N, SIDE, SIDE) -> (N, 1), and the way back."""

    network: nn.Sequential
    mean: Tensor
    spread: Tensor

    @torch.no_grad()
    def __call__(self, maps: Tensor) -> Tensor:
        """Omega_m (N,), in double precision."""
        said = torch.cat([self.network(part)[:, 0] for part in maps.split(256)])
        return said.double() * self.spread + self.mean


def fresh_network(seed: int) -> nn.Sequential:
    """Three convolutions, mean over the map, one number."""
    with seeding.guarded("cosmology", seed):
        return nn.Sequential(
            *(nn.Unflatten(1, (1, SIDE)), nn.Conv2d(1, 12, 5, 2, 2), nn.ReLU(), nn.Conv2d(12, 24, 3, 2, 1), nn.ReLU()),
            *(nn.Conv2d(24, 48, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 1)),
        )


def train_reader(seed: int, drawn: Maps, epochs: int) -> Reader:
    """Trained on the training maps, stopped by the validation maps."""
    mean, spread = drawn.truth["train"][:, 0].mean(), drawn.truth["train"][:, 0].std()
    train, valid = (
        (drawn.maps[name], ((drawn.truth[name][:, :1] - mean) / spread).float()) for name in ("train", "validation")
    )
    network = fresh_network(seed)
    objective = Objective(network, nn.functional.mse_loss, [], seed=seed)
    fit(objective, train, valid, epochs=epochs, batch_size=32, lr=2e-3, seed=seed)
    return Reader(network.eval(), mean, spread)


def told(seeds: int, counts: Sequence[int]) -> str:
    """How much was drawn, in words."""
    return f"{seeds} seeds, {' / '.join(map(str, counts))} maps of each cosmology to train / choose / test"


def described(counts: Sequence[int]) -> dict[str, Any]:
    """What the record says of the data."""
    return {
        "name": f"Lognormal convergence maps of {COSMOLOGIES} cosmologies",
        "source": "drawn from spectra computed with camb",
        "kind": "custom",
        "rows": COSMOLOGIES * sum(counts),
        "features": SIDE * SIDE,
        "label": "Omega_m",
        "task": "regression",
        "split": {name: COSMOLOGIES * count for name, count in zip(PARTS, counts, strict=True)},
        "notes": ["Drawn anew for each seed."],
    }
