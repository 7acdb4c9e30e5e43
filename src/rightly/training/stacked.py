"""Many equal models as one: layers that hold M sets of weights and apply set m to block m of the rows."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rightly.core.stacked import StackedDropout, StackedLayerNorm, StackedLinear, Streams
from rightly.objectives.blocks import UnstackableError

#: layers without weights that treat every row alike, so that they do not notice that rows belong to several models
_ROWWISE = (
    nn.Identity, nn.Flatten, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.LogSigmoid,
)  # fmt: skip


def stack(models: Sequence[nn.Module], streams: Streams) -> nn.Module:
    """One module for rows (M * B, ...) in M blocks; its parameters have the models' names and a first dimension M.

    Raises:
        UnstackableError: a layer is of another kind than linear, layer norm, dropout, an activation, a flattening
            or a sequence of these; the models differ; or weights are shared, frozen or watched by hooks.
    """
    for model in models:
        _check_whole(model)
    return _stack("model", models, streams)


def _stack(name: str, layers: Sequence[nn.Module], streams: Streams) -> nn.Module:
    first = layers[0]
    kind = type(first)
    # what a layer says of itself holds all its settings
    if any(type(layer) is not kind or layer.extra_repr() != first.extra_repr() for layer in layers):
        raise UnstackableError(f"the models differ in {name}", expected="equal models", got=repr(first))
    if kind is nn.Sequential:
        children = [dict(layer.named_children()) for layer in layers]
        if any(list(names) != list(children[0]) for names in children):
            raise UnstackableError(f"the models differ in {name}", expected="equal models", got="other layers")
        made = nn.Sequential()
        for child in children[0]:
            made.add_module(child, _stack(f"{name}.{child}", [names[child] for names in children], streams))
        return made
    if kind is nn.Linear:
        return StackedLinear(layers)  # type: ignore[arg-type]
    if kind is nn.LayerNorm:
        return StackedLayerNorm(layers)  # type: ignore[arg-type]
    if kind is nn.Dropout:
        return StackedDropout(first.p, streams)  # type: ignore[arg-type]
    if kind in _ROWWISE and getattr(first, "start_dim", 1) == 1:
        return copy.deepcopy(first)
    raise UnstackableError(f"{kind.__name__} cannot hold several models", got=name)


def _check_whole(model: nn.Module) -> None:
    """Raise ``UnstackableError`` for what the layers' settings do not tell."""
    modules = list(model.modules())
    if any(vars(m)["_forward_hooks"] or vars(m)["_forward_pre_hooks"] or vars(m)["_backward_hooks"] for m in modules):
        raise UnstackableError("a layer is watched by a hook, which would see all models at once")
    named = list(model.named_parameters(remove_duplicate=False))
    if len(named) > len(list(model.parameters())):
        raise UnstackableError("layers share their weights")
    if not all(parameter.requires_grad for _, parameter in named):
        raise UnstackableError("some weights are frozen")
    if len({(p.dtype, p.device) for _, p in named}) != 1:
        raise UnstackableError("the weights are of several types or on several devices, or there are none")
    if any(isinstance(module, nn.Dropout) for module in modules) and named[0][1].device.type != "cpu":
        raise UnstackableError("dropout draws other masks on this device than it would alone")


def weights_of(stacked: nn.Module, position: int) -> dict[str, Tensor]:
    """A copy of model ``position``'s weights, as its ``state_dict`` has them."""
    found = {}
    for prefix, module in stacked.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            own = parameter.detach()[position]
            turned = own.t() if isinstance(module, StackedLinear) and name == "weight" else own
            found[f"{prefix}.{name}" if prefix else name] = turned.clone(memory_format=torch.contiguous_format)
    return found


def shrink(stacked: nn.Module, positions: Sequence[int]) -> dict[nn.Parameter, nn.Parameter]:
    """Keep the models at ``positions`` only; returns what became of each parameter."""
    kept = {}
    for module in stacked.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            # a new one: the graph of an earlier step may still know the shape of the old one
            kept[parameter] = nn.Parameter(parameter.detach()[list(positions)])
            setattr(module, name, kept[parameter])
    return kept
