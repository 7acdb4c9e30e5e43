"""Which functions a model calls: what an engine has to know before it is trusted with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rightly.core.intercept import operation

#: functions with kinks, where a derivative jumps
_KINKED = (
    "relu relu6 leaky_relu rrelu prelu hardtanh threshold hardswish hardsigmoid hardshrink softshrink abs absolute "
    "clamp clip clamp_min clamp_max max min amax amin maximum minimum fmax fmin sort topk median where masked_fill "
    "max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d "
    "max_pool2d_with_indices round floor ceil sign argmax"
)
KINKED = frozenset(_KINKED.split())


class operators(TorchFunctionMode):
    """Notes the names of the functions that are called inside, in ``names``."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(operation(func)[0])
        return func(*args, **(kwargs or {}))


def mode_matters(model: nn.Module) -> bool:
    """Whether the model may behave otherwise in training mode, in which it is, than when it is read.

    Layers of torch are known; code of the user's is searched for the word ``training``.
    """
    return any(module.training and _depends_on_mode(module) for module in model.modules())


def _depends_on_mode(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0
    if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
        return float(module.dropout) > 0
    if type(module).__module__.startswith("torch.nn.modules"):
        return isinstance(module, nn.modules.batchnorm._NormBase | nn.RReLU) and getattr(
            module, "track_running_stats", True
        )
    own = [cls for cls in type(module).__mro__ if not cls.__module__.startswith("torch.nn.modules")]
    return any(map(_mentions_training, own))


def _mentions_training(cls: type) -> bool:
    codes = [getattr(member, "__code__", None) for member in vars(cls).values()]
    while codes:
        code = codes.pop()
        if code is not None:
            if "training" in code.co_names or "training" in code.co_consts:
                return True
            codes += [const for const in code.co_consts if hasattr(const, "co_names")]
    return False


def saved_bytes(run: Callable[[], object], but: Iterable[Tensor] = ()) -> int:
    """Memory that the graph of ``run()`` keeps beside the tensors ``but``, which are there anyway; each once."""
    known = {storage.data_ptr() for tensor in but for storage in _storages(tensor)}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        new = [storage for storage in _storages(tensor) if storage.data_ptr() not in known]
        kept.update((storage.data_ptr(), storage.nbytes()) for storage in new)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = run()
    del result
    return sum(kept.values())


def _storages(tensor: Tensor) -> list[torch.UntypedStorage]:
    """The memory that a tensor lies in; a sparse one has none of its own, only its parts have."""
    parts = [tensor._indices(), tensor._values()] if tensor.layout == torch.sparse_coo else [tensor]
    return [part.untyped_storage() for part in parts if part.layout == torch.strided]
