"""The networks of the suite that ``rt.models`` does not have, in their usual small forms."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rightly as rt


def seeded(make: Any, seed: int = 0) -> nn.Module:
    """``make()`` with the same first weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def mlp(seed: int = 0) -> nn.Module:
    """The mortality network of Erion et al. 2021: 118-512-128-32-1."""
    return rt.models.mlp(118, [512, 128, 32], 1, seed=seed)


def paper_cnn(seed: int = 0) -> nn.Module:
    """The papers' image network, as their code has it: batch norm and dropout."""
    return rt.models.paper_cnn(seed=seed)


def plain_cnn(seed: int = 0, width: int = 1024) -> nn.Module:
    """The same without batch norm and dropout, as their text has it but for the dropout."""
    left_out = (nn.BatchNorm1d, nn.BatchNorm2d, nn.Dropout)
    layers = rt.models.paper_cnn(seed=seed, width=width)
    return nn.Sequential(*[layer for layer in layers if not isinstance(layer, left_out)])


class Encoder(nn.Module):
    """A transformer encoder over (B, T, width), mean over tokens, classes."""

    def __init__(self, width: int = 128, depth: int = 2, heads: int = 4, classes: int = 10) -> None:
        super().__init__()
        layers = [
            nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True)
            for _ in range(depth)
        ]
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean(1))


class Recurrent(nn.Module):
    """An LSTM over (B, T, n_in), its last state, classes."""

    def __init__(self, n_in: int = 64, width: int = 128, classes: int = 10) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(n_in, width, batch_first=True), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class ViT(nn.Module):
    """A small vision transformer on (B, 3, 32, 32): patches of 4, a learned position each, mean over patches."""

    def __init__(self, width: int = 128, depth: int = 4, classes: int = 10) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.position = nn.Parameter(0.02 * torch.randn(1, 64, width))
        self.encoder = Encoder(width, depth, 4, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(self.patches(x).flatten(2).transpose(1, 2) + self.position)


class Block(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.around: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.around = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(inner + self.around(x))


class ResNet18(nn.Module):
    """ResNet-18 for (B, 3, 32, 32): the usual widths, a 3 x 3 stem without pooling."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        blocks, n_in = [], 64
        for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [Block(n_in, width, stride), Block(width, width, 1)]
            n_in = width
        self.blocks, self.head = nn.Sequential(*blocks), nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))
