"""A ReLU network with its kinks rounded off, so that its features can interact."""

from __future__ import annotations

from typing import Any

from torch import nn

from rightly.core.checks import check_number
from rightly.core.errors import ArgumentError
from rightly.core.replacing import replacing
from rightly.core.smoothing import smooth_activations


def smoothed(model: nn.Module, beta: float = 10.0) -> Smoothed:
    """The model with softplus(beta) in place of ReLU, for interactions and for training through them.

    A ReLU network is linear almost everywhere: its second derivatives are zero, and so is every interaction. Janizek
    et al. (2021) put softplus in the place of ReLU after training; a beta of 10 changes the outputs little.

    Nothing of the model is copied or changed: what comes back holds the model itself (``.model``), with its weights,
    mode and device, and only computes otherwise. Training the one trains the other.

    Args:
        model: any module; ReLU, leaky ReLU, PReLU, ReLU6 and hard tanh are found as layers and as functions. Pooling,
            ``clamp`` and ``abs`` are left as they are, as is what runs inside a compiled or scripted module.
        beta: how sharp the bend is; softplus is at most log(2) / beta = 0.07 above ReLU.

    Returns:
        A module. After a pass its ``swapped`` says what was replaced, and how often.

    Raises:
        ArgumentError: from a pass in which nothing was replaced, or one under activation checkpointing inside the
            model, whose second computation would be that of the model as it is.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError("a model is smoothed", expected="torch.nn.Module", got=type(model).__name__)
    return Smoothed(model, check_number("beta", beta, positive=True))


class Smoothed(nn.Module):
    """See ``smoothed``.

    Attributes:
        model: the model itself.
        beta: how sharp the bend is.
        swapped: name of a function -> how many calls of it the last pass replaced.
    """

    def __init__(self, model: nn.Module, beta: float) -> None:
        super().__init__()
        self.model, self.beta = model, beta
        self.training = model.training
        self.swapped: dict[str, int] = {}

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """As the model's own."""
        with replacing(smooth_activations(self.beta)) as mode:
            outputs = self.model(*inputs, **named)
        self.swapped = dict(mode.seen)
        if not self.swapped:
            raise ArgumentError(
                "there is no ReLU in this model to be smoothed",
                expected="ReLU, leaky ReLU, PReLU, ReLU6 or hard tanh, as layers or functions",
                got=type(self.model).__name__,
                mend="explain the model itself if it is smooth; smooth it before it is compiled or scripted",
            )
        return outputs

    def extra_repr(self) -> str:
        """Beside the model."""
        return f"beta={self.beta}"
