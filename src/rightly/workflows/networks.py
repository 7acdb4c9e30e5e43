"""The networks that commands train, by a description that can be saved as JSON."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from rightly.core.errors import CheckpointError
from rightly.models import mlp, paper_cnn


def build(architecture: dict[str, Any], seed: int | None = None) -> nn.Module:
    """A network from its description: ``{"kind": "mlp" or "cnn", ...arguments}``."""
    arguments = {key: value for key, value in architecture.items() if key != "kind"}
    if architecture.get("kind") == "mlp":
        return mlp(**arguments, seed=seed)
    if architecture.get("kind") == "cnn":
        return paper_cnn(**arguments, seed=seed)
    raise CheckpointError("unknown network", expected="mlp or cnn", got=architecture.get("kind"))


def binary_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of a single logit (B, 1) with class numbers (B,)."""
    return F.binary_cross_entropy_with_logits(outputs[:, 0], labels.to(outputs.dtype))


def squared_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean squared error of a single output (B, 1) with values (B,)."""
    return F.mse_loss(outputs[:, 0], labels.to(outputs.dtype))
