"""Carry a second quantity through an unmodified model: every function that it calls meets a rule of ours instead.

A ``Carrier`` is a tensor to the model. What the model does to it arrives at ``__torch_function__`` as a function with
arguments, is named, and looked up in the carrier's table of rules. What has no rule is ``Unsupported``: a carried
quantity is never lost in silence. Operations in place are carried out of place and bound back; a tensor whose memory
was changed through another view of it is refused.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

#: (function out of place, arguments, keyword arguments) -> what the model gets
Rule = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


class Unsupported(Exception):
    """An operation has no rule, or is called in a way that its rule does not know."""


class _Memory:
    """What views of one tensor share: how often it was changed, and whether a plain tensor reads it too."""

    changes = 0
    lent = False


class Carrier(torch.Tensor):
    """A tensor that carries something beside its value.

    Attributes:
        total: the plain value.
    """

    rules: ClassVar[Mapping[str, Rule]] = {}
    total: Tensor

    @staticmethod
    def __new__(cls, total: Tensor, *rest: Any) -> Carrier:
        return torch.Tensor._make_wrapper_subclass(cls, total.shape, dtype=total.dtype, device=total.device)

    def __init__(self, total: Tensor) -> None:
        self.total = total
        self.memory = _Memory()
        self.seen = 0

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, plain, in_place = operation(func)
        args, kwargs = cls.read(name, func, args, dict(kwargs or {}))
        in_place = bool(kwargs.pop("inplace", False)) or in_place
        rule = cls.rule_of(name, func)
        cls.check_fresh(name, args, kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            result = rule(plain, args, kwargs)
        if in_place:
            if not (isinstance(args[0], Carrier) and isinstance(result, Carrier)):
                raise Unsupported(f"{name} writes what is carried into a plain tensor")
            args[0].become(result)
            return args[0]
        return result

    @classmethod
    def read(
        cls, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments as the rules expect them: in one spelling."""
        return spelled(name, func, args, kwargs) if kwargs else (args, kwargs)

    @classmethod
    def check_fresh(cls, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raise ``Unsupported`` where an argument does not know of a change to its memory."""
        for carrier in carriers(args, kwargs):
            if carrier.seen != carrier.memory.changes:
                raise Unsupported(f"{name} reads a tensor that was changed in place through a view of it")

    @classmethod
    def rule_of(cls, name: str, func: Callable[..., Any]) -> Rule:
        """The rule for an operation. Raises ``Unsupported`` where there is none."""
        rule = cls.rules.get(name)
        if rule is None:
            raise Unsupported(f"no rule for {name}")
        return rule

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise Unsupported(f"{func} was not seen as a function")

    def become(self, other: Carrier) -> None:
        """Take over what another one carries: the end of an operation in place."""
        memory = self.memory
        if memory.lent:
            raise Unsupported("a tensor is changed in place after its values were taken out with detach()")
        memory.changes += 1
        self.__dict__.update(other.__dict__)
        self.memory, self.seen = memory, memory.changes

    def shares(self, other: Carrier) -> None:
        """Note that this is a view of ``other``."""
        self.memory, self.seen = other.memory, other.seen


def carriers(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[Carrier]:
    """The carriers among arguments, also inside lists of tensors."""
    for arg in (*args, *kwargs.values()):
        if isinstance(arg, Carrier):
            yield arg
        elif isinstance(arg, tuple | list):
            yield from (item for item in arg if isinstance(item, Carrier))


def replaced(arg: Any, change: Callable[[Carrier], Any]) -> Any:
    """An argument with every carrier in it replaced."""
    if isinstance(arg, Carrier):
        return change(arg)
    if isinstance(arg, tuple | list) and any(isinstance(item, Carrier) for item in arg):
        made = [change(item) if isinstance(item, Carrier) else item for item in arg]
        return tuple(made) if isinstance(arg, tuple) else made
    return arg


#: names of numpy's that PyTorch's own functions take for theirs
_ALIASES = {"axis": "dim", "keepdims": "keepdim"}
#: functions whose ``input`` does not come first
_INPUT_LATER = {"where", "polygamma"}


def spelled(
    name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments under PyTorch's names, ``input`` in the first place.

    Raises:
        Unsupported: the result is to be written into another tensor.
    """
    if kwargs.get("out") is not None:
        raise Unsupported(f"{name} with out=, which writes its result into another tensor")
    known = {} if in_python(func) else _ALIASES
    kwargs = {known.get(key, key): value for key, value in kwargs.items() if key != "out"}
    if not args and "input" in kwargs and name not in _INPUT_LATER:
        args = (kwargs.pop("input"),)
    return args, kwargs


def in_python(func: Callable[..., Any]) -> bool:
    """Whether a function is written in Python, as those of ``torch.nn.functional`` are: their namesakes in ``torch``
    take other arguments."""
    return isinstance(func, FunctionType)


def named(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], names: tuple[str, ...], defaults: tuple[Any, ...]
) -> list[Any]:
    """Arguments by position or by name, in order; ``defaults`` are those of the last names."""
    values = dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))
    values |= dict(zip(names, args, strict=False)) | dict(kwargs)
    if len(args) > len(names):
        raise Unsupported(f"more arguments than {', '.join(names)}")
    unknown = set(values) - set(names)
    if unknown or len(values) < len(names):
        raise Unsupported(f"arguments {sorted(unknown) or sorted(set(names) - set(values))}")
    return [values[name] for name in names]


@functools.cache
def operation(func: Callable[..., Any]) -> tuple[str, Callable[..., Any], bool]:
    """The name of what is done, a function that does it out of place, and whether ``func`` does it in place.

    ``torch.add``, ``Tensor.add``, ``Tensor.add_`` and ``+=`` are one name; a property goes by its own.
    """
    name = getattr(func, "__name__", type(func).__name__)
    if name == "__get__":
        return func.__self__.__name__, func, False  # type: ignore[attr-defined]
    if name.startswith("__"):
        name = name.strip("_")
        plain = getattr(torch.Tensor, name[1:], None)
        if name.startswith("i") and name != "invert" and plain is not None:
            return name[1:], plain, True
        return name, func, False
    if name.endswith("_") and name != "requires_grad_":
        name = name.rstrip("_")
        plain = getattr(torch.Tensor, name, None) or getattr(F, name, None)
        return name, plain or func, True
    return name, func, False
