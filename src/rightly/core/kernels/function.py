"""The base of the kernels, and the end of their derivatives."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

from rightly.core.errors import DoubleBackwardError

Result = TypeVar("Result")


class Kernel(torch.autograd.Function):
    """An autograd function called by ``one`` or ``many``, after what it gives; ``apply`` has no types."""

    @classmethod
    def one(cls, *args: Any) -> Tensor:
        result: Tensor = cls.apply(*args)  # type: ignore[no-untyped-call]
        return result

    @classmethod
    def many(cls, *args: Any) -> tuple[Tensor, ...]:
        results: tuple[Tensor, ...] = cls.apply(*args)  # type: ignore[no-untyped-call]
        return results


def final(backward: Callable[..., Result]) -> Callable[..., Result]:
    """A gradient that is not differentiated again: an error where autograd would record it.

    Torch's own ``once_differentiable`` leaves a node that raises, and ``torch.autograd.grad`` goes around that node
    where its way to the inputs it was given does not lead through it: the derivative would be wrong in silence.
    """

    @wraps(backward)
    def guarded(ctx: Any, *grads: Tensor | None) -> Result:
        if torch.is_grad_enabled():
            raise DoubleBackwardError(
                "a derivative was asked for that the faster engines do not have",
                expected="the gradient of a penalty on input gradients, once",
                got="a derivative of that gradient (create_graph=True)",
                mend="engine='double-backward', which autograd can differentiate any number of times",
            )
        return backward(ctx, *grads)

    return guarded
