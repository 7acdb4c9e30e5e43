"""A penalty on the weights themselves, beside the terms that ask something of explanations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from rightly.core import autodiff
from rightly.core.errors import ArgumentError
from rightly.core.stacked import StackedLayerNorm, StackedLinear
from rightly.objectives.model_term import Batch, ModelTerm
from rightly.objectives.term import Schedule, Weight, check_weight
from rightly.priors.base import Level

Penalty = Literal["l1", "l2", "sparse_group_lasso"]
Layers = Literal["all", "first"]

#: layers whose weights scale features and connect none
_SCALING = (nn.LayerNorm, nn.RMSNorm, StackedLayerNorm)
#: layers that count their inputs first and their outputs second
_TRANSPOSED = (nn.Embedding, nn.EmbeddingBag, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class WeightTerm(ModelTerm):
    """``weight * penalty`` of the model's weights: the regularisers that priors on explanations are compared with.

    Weights are what connects units: parameters of two dimensions or more. Biases, and the scales of normalisation,
    are left alone, as are weights that are not trained. The penalty is a sum over weights, whatever the batch. Of a
    weight that is computed from others (``torch.nn.utils.parametrize``: weight norm, spectral norm) what the layer
    multiplies with counts, not its parts.

    Args:
        penalty: ``"l1"``, the sum of absolute weights; ``"l2"``, the sum of squared ones (its gradient is twice the
            weight: what optimizers call ``weight_decay`` is twice this term's weight); or ``"sparse_group_lasso"``
            (Scardapane, Comminiello, Hussain, Uncini 2017), the sum of absolute weights and of the Euclidean norms of
            groups, each times the square root of its size. A group is what leaves one input unit of a layer, so that
            inputs and units are dropped as a whole.
        layers: ``"all"``, or only the ``"first"`` in the order in which the model defines them.
        weight: as in ``rt.Term``. The papers of Erion et al. take means of absolute weights where this sums:
            see ``rt.recipes.l1_weights``.
        name: in reports; by default such as ``"l1_weights"`` and ``"l1_first_weights"``.
        schedule: when it acts.
    """

    penalty: Penalty = "l1"
    layers: Layers = "all"
    weight: Weight = 1.0
    name: str = ""
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        for what, value, known in (("penalty", self.penalty, Penalty), ("layers", self.layers, Layers)):
            if value not in get_args(known):
                raise ArgumentError(f"unknown {what}", expected=", ".join(get_args(known)), got=repr(value))
        check_weight(self.weight)
        if not self.name:
            object.__setattr__(self, "name", f"{self.penalty}{'_first' * (self.layers == 'first')}_weights")

    @property
    def level(self) -> Level:
        """No quantity of the examples: every process adds it whole."""
        return "batch"

    @property
    def about(self) -> str:
        """In words."""
        which = "all weights" if self.layers == "all" else "the first layer's weights"
        return f"{self.penalty.replace('_', ' ')} of {which}"

    def of(self, model: nn.Module, batch: Batch | None = None) -> Tensor:
        """The penalty (), before its weight; of a stack of M models (M,).

        Raises:
            ArgumentError: the model has no weights that are trained.
        """
        found = list(_by_unit(model))
        if not found:
            raise ArgumentError(
                f"the term {self.name!r} finds no weights",
                expected="a trainable parameter of two dimensions or more",
                got=type(model).__name__,
            )
        return weight_penalty(self.penalty, found if self.layers == "all" else found[:1])


def weight_penalty(penalty: Penalty, layers: Sequence[Tensor]) -> Tensor:
    """Sum over layers of the penalty of their weights, each (..., units, group) -> (...): see ``WeightTerm``."""
    one = _PENALTIES[penalty]
    total = torch.stack([one(layer.float() if layer.element_size() < 4 else layer) for layer in layers])
    return total.sum(0)


def weight_count(model: nn.Module, layers: Layers = "all") -> int:
    """How many weights a ``WeightTerm`` sums over."""
    sizes = [layer.numel() for layer in _by_unit(model)]
    return sum(sizes if layers == "all" else sizes[:1])


def _sparse_group_lasso(weights: Tensor) -> Tensor:
    groups = math.sqrt(weights.shape[-1]) * torch.linalg.vector_norm(weights, dim=-1)
    total: Tensor = weights.abs().sum((-2, -1)) + groups.sum(-1)
    return total


_PENALTIES: dict[str, Callable[[Tensor], Tensor]] = {
    "l1": lambda weights: weights.abs().sum((-2, -1)),
    "l2": lambda weights: weights.square().sum((-2, -1)),
    "sparse_group_lasso": _sparse_group_lasso,
}


def _by_unit(model: nn.Module) -> Iterator[Tensor]:
    """Each layer's weights, what leaves one input unit in a row: (units, group); of M models (M, units, group)."""
    known: set[int] = set()
    for module in _layers(model):
        stacked = isinstance(module, StackedLinear)
        for name, parameter, trained in _parameters(module):
            connects = name == "weight" if stacked else parameter.ndim > 1 and not isinstance(module, _SCALING)
            if connects and trained and id(parameter) not in known:
                known.add(id(parameter))
                yield parameter if stacked else _rows_of_units(module, parameter)


def _layers(model: nn.Module) -> list[nn.Module]:
    """All modules but those that only compute a layer's weights."""
    parametrised = [module for module in model.modules() if parametrize.is_parametrized(module)]
    parts = {part for module in parametrised for part in _parts(module).modules()}
    return [module for module in model.modules() if module not in parts]


def _parameters(module: nn.Module) -> Iterator[tuple[str, Tensor, bool]]:
    """The module's own, as it uses them: name, values, whether they are trained."""
    for name, parameter in module.named_parameters(recurse=False):
        yield name, parameter, parameter.requires_grad
    if parametrize.is_parametrized(module):
        # as the last pass left it: in training mode a spectral norm would go on with every look at it
        with autodiff.evaluating(_parts(module).modules()):
            for name, parts in _parts(module).items():
                yield name, getattr(module, name), any(part.requires_grad for part in parts.parameters())


def _parts(module: nn.Module) -> nn.ModuleDict:
    found: nn.ModuleDict = module.parametrizations  # type: ignore[assignment]
    return found


def _rows_of_units(module: nn.Module, weights: Tensor) -> Tensor:
    if isinstance(module, _TRANSPOSED):
        return weights.flatten(1)
    # a grouped convolution's second dimension counts inputs within their group
    blocks: Tensor = weights.unflatten(0, (getattr(module, "groups", 1), -1))
    return blocks.transpose(1, 2).flatten(0, 1).flatten(1)
