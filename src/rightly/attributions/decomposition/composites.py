"""Functions of torch that are written in Python: their bodies are made of operations that have rules."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import torch

from rightly.core.intercept import Rule

_ASKS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")


@functools.cache
def without_override(func: Callable[..., Any]) -> Rule | None:
    """A rule that runs the body of ``func``; None where it has no body in Python that asks for overrides.

    Torch's own functions begin with the question whether an argument overrides them, and hand the whole call over if
    so. Here the same body runs with that question answered by no, so that the functions it calls meet their rules.
    """
    if not isinstance(func, types.FunctionType) or not any(name in func.__globals__ for name in _ASKS):
        return None
    known = {**func.__globals__, **{name: _no for name in _ASKS if name in func.__globals__}}
    body = types.FunctionType(func.__code__, known, func.__name__, func.__defaults__, func.__closure__)
    body.__kwdefaults__ = func.__kwdefaults__

    def run(plain: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with torch._C._EnableTorchFunction():
            return body(*args, **kwargs)

    return run


def _no(*args: Any) -> bool:
    return False
