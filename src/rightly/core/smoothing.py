"""Activations with their kinks rounded off."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def _ramp(x: Tensor, beta: float) -> Tensor:
    """A smooth max(x, 0)."""
    return F.softplus(x, beta)


def _placed(formula: Callable[[Tensor], Tensor], input: Tensor, inplace: bool) -> Tensor:
    """The result; in place it is written to the input, which a model may go on with."""
    return input.copy_(formula(input.clone())) if inplace else formula(input)


def _relu(beta: float, input: Tensor, inplace: bool = False) -> Tensor:
    return _placed(lambda x: _ramp(x, beta), input, inplace)


def _relu_(beta: float, input: Tensor) -> Tensor:
    return _relu(beta, input, inplace=True)


def _leaky_relu(beta: float, input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    return _placed(lambda x: negative_slope * x + (1 - negative_slope) * _ramp(x, beta), input, inplace)


def _hardtanh(beta: float, input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    return _placed(lambda x: min_val + _ramp(x - min_val, beta) - _ramp(x - max_val, beta), input, inplace)


def _relu6(beta: float, input: Tensor, inplace: bool = False) -> Tensor:
    return _hardtanh(beta, input, 0.0, 6.0, inplace)


def _prelu(beta: float, input: Tensor, weight: Tensor) -> Tensor:
    slope = weight if weight.numel() == 1 or input.ndim < 2 else weight.reshape(-1, *(1,) * (input.ndim - 2))
    return slope * input + (1 - slope) * _ramp(input, beta)


#: function of torch -> (beta, its arguments) -> what is taken instead
_RULES: dict[Callable[..., Any], Callable[..., Tensor]] = {
    **dict.fromkeys((F.relu, torch.relu, Tensor.relu), _relu),
    **dict.fromkeys((torch.relu_, Tensor.relu_), _relu_),
    F.leaky_relu: _leaky_relu,
    **dict.fromkeys((F.prelu, torch.prelu, Tensor.prelu), _prelu),
    F.hardtanh: _hardtanh,
    F.relu6: _relu6,
}


def smooth_activations(beta: float) -> dict[Callable[..., Any], Callable[..., Tensor]]:
    """ReLU and its kin made of softplus(beta), which is at most log(2) / beta above ReLU: rules for ``replacing``."""
    return {function: partial(rule, beta) for function, rule in _RULES.items()}
