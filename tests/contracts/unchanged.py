"""Everything that a user passes, and the global state, photographed before and compared after."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
)


def _of_tensor(tensor: Tensor) -> dict[str, Any]:
    return {
        "bits": tensor.detach().clone(),
        "version": None if tensor.is_inference() else tensor._version,
        "requires_grad": tensor.requires_grad,
        "grad": None if tensor.grad is None else (id(tensor.grad), tensor.grad.clone()),
        "hooks": sorted(tensor._backward_hooks or ()),
        "address": tensor.data_ptr(),
    }


def snapshot(model: nn.Module, tensors: Iterable[Tensor]) -> dict[str, Any]:
    """All that may not change, by name."""
    found: dict[str, Any] = {}
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        # a buffer may be put back, a parameter may not even be touched
        found |= {f"{name}.{key}": part for key, part in _of_tensor(value).items()}
    for name, _ in model.named_buffers():
        del found[f"{name}.version"]
    for position, value in enumerate(tensors):
        found |= {f"argument {position}.{key}": part for key, part in _of_tensor(value).items()}
    for name, module in model.named_modules():
        found[f"mode of {name!r}"] = module.training
        found[f"attributes of {name!r}"] = sorted(vars(module))
        for kind in _HOOKS:
            found[f"{kind} of {name!r}"] = list(getattr(module, kind).items())
    numpy_state = np.random.get_state()  # noqa: NPY002 (the global state is what is watched)
    found["torch random state"] = torch.get_rng_state()
    found["numpy random state"] = torch.from_numpy(np.asarray(numpy_state[1], dtype=np.int64).copy())
    found["numpy random place"] = numpy_state[2:]
    found["python random state"] = random.getstate()
    found["grad mode"] = torch.is_grad_enabled()
    found["inference mode"] = torch.is_inference_mode_enabled()
    found["default dtype"] = torch.get_default_dtype()
    found["cudnn"] = (torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic)
    cuda = torch.backends.cuda
    found["attention kernels"] = (cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.math_sdp_enabled())
    return found


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor):
        return isinstance(after, Tensor) and torch.equal(before, after)
    if isinstance(before, tuple) and isinstance(after, tuple):
        return len(before) == len(after) and all(map(_same, before, after))
    return bool(before == after)


def check_unchanged(call: Callable[[], Any], model: nn.Module, tensors: Iterable[Tensor] = (), *, error=None) -> Any:
    """Raise ``AssertionError`` when ``call`` leaves a trace; returns its result.

    Args:
        call: what is run; with ``error``, it must raise that.
        model, tensors: what a user passes.
    """
    tensors = list(tensors)
    before = snapshot(model, tensors)
    result = None
    if error is None:
        result = call()
    else:
        raised = True
        with suppress(error):
            call()
            raised = False
        assert raised, f"{error.__name__} was not raised, so that nothing was checked"
    after = snapshot(model, tensors)
    assert before.keys() == after.keys()
    changed = [name for name in before if not _same(before[name], after[name])]
    assert not changed, "changed: " + ", ".join(changed)
    return result
