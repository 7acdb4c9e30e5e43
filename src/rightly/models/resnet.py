"""ResNet-20 for CIFAR-10, and the trained weights of the catalogue in it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from rightly.core import seeding
from rightly.core.checks import check_count
from rightly.models.networks import Standardised, load_published


class _Block(nn.Module):
    """Two convolutions and a way around them that has no weights: every other pixel, missing channels are zero."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.stride, self.missing = stride, n_out - n_in

    def forward(self, x: Tensor) -> Tensor:
        around = x
        if self.missing:
            around = pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.missing // 2, self.missing // 2))
        return relu(self.bn2(self.conv2(relu(self.bn1(self.conv1(x))))) + around)


class ResNet20(nn.Module):
    """ResNet-20 (He et al. 2016, section 4.2): colour pictures (B, 3, H, W) in [0, 1] -> (B, n_out).

    It standardises them itself, by ImageNet's mean and deviation, as the catalogue's weights were trained.

    Args:
        n_out: classes.
        seed: of the initial weights; None takes the global state, as torch does.

    Raises:
        ArgumentError: ``n_out`` is not a positive whole number.
    """

    def __init__(self, n_out: int = 10, *, seed: int | None = None) -> None:
        super().__init__()
        check_count("n_out", n_out)
        self.standardised = Standardised()
        with seeding.guarded(seed, "resnet20") if seed is not None else nullcontext():
            self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
            self.layer1, self.layer2, self.layer3 = _stage(16, 16, 1), _stage(16, 32, 2), _stage(32, 64, 2)
            self.linear = nn.Linear(64, n_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, n_out)."""
        x = relu(self.bn1(self.conv1(self.standardised(x))))
        x = self.layer3(self.layer2(self.layer1(x)))
        outputs: Tensor = self.linear(x.mean((2, 3)))
        return outputs


def cifar_resnet20(arrays: Mapping[str, np.ndarray]) -> ResNet20:
    """The trained network of ``rt.data.load_arrays("cifar10_resnet20")``.

    Raises:
        DataError: the arrays are not the weights of a ResNet-20.
    """
    model = ResNet20(seed=0)
    weights = {key: torch.from_numpy(value) for key, value in arrays.items()}
    load_published(model, weights, "a ResNet-20", "pass rt.data.load_arrays('cifar10_resnet20')")
    return model


def _stage(n_in: int, n_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_Block(n_in, n_out, stride), _Block(n_out, n_out, 1), _Block(n_out, n_out, 1))
