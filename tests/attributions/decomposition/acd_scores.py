"""Scores that the authors' package gives (acd 0.0.2), stored in ``acd_scores.npz`` with the weights and inputs.

Made by ``PYTHONPATH=.:tests:FOLDER python tests/attributions/decomposition/acd_scores.py``, with the package in FOLDER
(``pip install --no-deps --target FOLDER acd==0.0.2``; it needs scipy and scikit-image), in double precision, which its
pooling is told to be ``torch.float``. ``benchmarks.decomposition.authors`` lets it run on a processor and a new NumPy.
"""

from __future__ import annotations

import types
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

FILE = Path(__file__).with_suffix(".npz")
WORDS = 7


def pictures() -> nn.Module:
    """Every kind of layer that the package takes in any order: its inputs are (2, 1, 12, 12)."""
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.LeakyReLU(0.1),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 3),
    ).double().eval()  # fmt: skip


class Sentences(nn.Module):
    """Word vectors, an LSTM, two classes without a bias, under the names that the package asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm, self.hidden_dim = nn.Embedding(12, 5), nn.LSTM(5, 6, batch_first=True), 6
        self.hidden_to_label = nn.Linear(6, 2, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.hidden_to_label(self.lstm(self.embed(tokens))[0][:, -1])


def sentences() -> nn.Module:
    return Sentences().double().eval()


def spans() -> list[tuple[int, int]]:
    return [(first, last) for first in range(WORDS) for last in range(first, WORDS)]


def given(stored: dict[str, np.ndarray], kind: str, model: nn.Module) -> nn.Module:
    """The model with the stored weights."""
    state = {name: torch.from_numpy(stored[f"{kind}.{name}"]) for name in model.state_dict()}
    model.load_state_dict(state)
    return model


def drawn(kind: str, model: nn.Module, draws: torch.Generator) -> dict[str, np.ndarray]:
    """Weights that matter, statistics included."""
    made = {}
    for name, value in model.state_dict().items():
        noise = torch.randn(value.shape, generator=draws, dtype=torch.float64)
        scaled = noise.abs() + 0.5 if name.endswith("running_var") else 0.6 * noise
        made[f"{kind}.{name}"] = (scaled if value.is_floating_point() else value).numpy()
    return made


def inputs() -> dict[str, np.ndarray]:
    """Weights, pictures, regions and a sentence."""
    draws = torch.Generator().manual_seed(0)
    return {
        **drawn("pictures", pictures(), draws),
        **drawn("sentences", sentences(), draws),
        "images": torch.randn(2, 1, 12, 12, generator=draws, dtype=torch.float64).numpy(),
        "regions": (torch.rand(6, 1, 12, 12, generator=draws) < 0.4).numpy(),
        "tokens": torch.randint(12, (1, WORDS), generator=draws).numpy(),
    }


def scores(stored: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the package gives: (B, R, classes) and (spans, classes), relevant and irrelevant."""
    from benchmarks.decomposition import authors

    acd, before, single = authors(), torch.get_default_dtype(), torch.float
    torch.set_default_dtype(torch.float64)
    torch.float = torch.float64
    try:
        model, images = given(stored, "pictures", pictures()), torch.from_numpy(stored["images"])
        with torch.no_grad():
            found = [acd.cd(images, model, mask=region[None], device="cpu") for region in stored["regions"]]
    finally:
        torch.set_default_dtype(before)
        torch.float = single
    model, batch = given(stored, "sentences", sentences()), types.SimpleNamespace(text=torch.tensor(stored["tokens"].T))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # NumPy reads its tensors in an old way
        said = [acd.cd_text(batch, model, start=a, stop=b, return_irrel_scores=True) for a, b in spans()]
    return {
        **{name: torch.stack([pair[k] for pair in found], 1).numpy() for k, name in enumerate(("relevant", "rest"))},
        **{name: np.stack([pair[k] for pair in said]) for k, name in enumerate(("spans", "spans_rest"))},
    }


if __name__ == "__main__":
    made = inputs()
    np.savez_compressed(FILE, **made, **scores(made))
