"""Small problems with known answers, and ways to compare two trainings bit by bit."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rightly as rt


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def regression(n: int = 60, p: int = 4, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Noisy linear data whose columns have different scales, so that penalties matter column by column."""
    x = normal(n, p, dtype=dtype) * torch.linspace(0.5, 1.5, p, dtype=dtype)
    truth = torch.linspace(-1, 2, p, dtype=dtype)[:, None]
    return x, x @ truth + 0.3 * normal(n, 1, seed=1, dtype=dtype)


def classification(n: int = 90, p: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    x = normal(n, p, seed=seed)
    return x, (x[:, 0] + 0.5 * x[:, 1] ** 2 + 0.3 * normal(n, seed=seed + 1) > 0.3).long()


def linear(p: int = 4, *, bias: bool = False, dtype: torch.dtype = torch.float64) -> nn.Linear:
    model = nn.Linear(p, 1, bias=bias, dtype=dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


def mlp(*, dropout: float = 0.3, seed: int = 0) -> nn.Sequential:
    return rt.models.mlp(6, [12, 8], 2, dropout=dropout, seed=seed)


def term(weight: float | str = 0.5, **settings) -> rt.Term:
    return rt.Term(rt.ExpectedGradients(), rt.priors.Sparsity(), weight=weight, **settings)


def objective(weight: float | str | None = 0.5, *, dropout: float = 0.3, seed: int = 0) -> rt.Objective:
    terms = [] if weight is None else [term(weight)]
    return rt.Objective(mlp(dropout=dropout, seed=seed), F.cross_entropy, terms, seed=seed)


def bits(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def ridge(x: Tensor, y: Tensor, diagonal: Tensor | float) -> Tensor:
    """argmin of mean (x w - y)^2 + sum_j d_j w_j^2, as a row (1, p)."""
    n, p = x.shape
    penalty = torch.eye(p, dtype=x.dtype) * diagonal
    return torch.linalg.solve(x.T @ x / n + penalty, x.T @ y / n).T


class Items(torch.utils.data.Dataset):
    """A map-style dataset of whatever ``items`` holds."""

    def __init__(self, items: list) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int):
        return self.items[index]
