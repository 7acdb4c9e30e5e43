"""The only caller of autograd: gradients that keep their graph, and a model that is read without being changed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch._C._functorch as _functorch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from rightly.core import seeding
from rightly.core.errors import DoubleBackwardError, NotConnectedError


def gradient(values: Tensor, points: Tensor, *, create_graph: bool) -> Tensor:
    """Gradient of each example's value with respect to its own point.

    Args:
        values: (M,), value m depending on point m only.
        points: (M, *F), requiring grad.
        create_graph: keep the graph, so that the result can be trained through.

    Returns:
        (M, *F).

    Raises:
        NotConnectedError: no value depends on the points.
    """
    grad = None
    if values.requires_grad:
        (grad,) = torch.autograd.grad(values.sum(), points, create_graph=create_graph, allow_unused=True)
    if grad is None:
        raise NotConnectedError(
            "the explained output does not depend on the space that is explained",
            expected="a path of differentiable operations from the space to the output",
            got="none (detached, rounded, or computed outside PyTorch)",
            mend="explain another space, such as rt.spaces.Layer(...), or remove the detach",
        )
    return grad


def sent_back(function: Callable[[Tensor], Tensor], points: Tensor, cotangent: Tensor) -> Tensor:
    """The cotangent at a function's result, sent back to its points; with its graph where gradients are recorded."""
    if _functorch.maybe_current_level() is not None:  # within ``over_parts``
        back: Callable[[Tensor], tuple[Tensor]] = torch.func.vjp(function, points)[1]
        return back(cotangent)[0]
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        here = points if keep and points.requires_grad else points.detach().requires_grad_()
        (found,) = torch.autograd.grad(function(here), here, cotangent, create_graph=keep)
    return found


def hessian_rows(slopes: Tensor, points: Tensor, features: Sequence[int], *, create_graph: bool) -> Tensor:
    """How the slopes of some features change along all of them, at each point, one backward pass a feature.

    Args:
        slopes, points, create_graph: as in ``hessian_products``.
        features: R positions in the flattened (*F).

    Returns:
        (M, R, *F).
    """
    ways = slopes.new_zeros(len(features), *slopes.shape[1:]).flatten(1)
    ways[range(len(features)), list(features)] = 1
    ways = ways.reshape(len(features), *slopes.shape[1:]).expand(len(slopes), *(-1,) * slopes.ndim)
    return hessian_products(slopes, points, ways, create_graph=create_graph)


def hessian_products(slopes: Tensor, points: Tensor, ways: Tensor, *, create_graph: bool) -> Tensor:
    """The Hessian at each point times directions of its own, one backward pass a direction.

    Args:
        slopes: (M, *F), the gradient at the points, with its graph.
        points: (M, *F), that it was taken at.
        ways: (M, K, *F), the directions.
        create_graph: keep the graph, so that the result can be trained through (third derivatives).

    Returns:
        (M, K, *F), zero where the slopes do not depend on the points (a model that is linear there).
    """
    found = []
    for way in ways.unbind(1):
        product = None
        if slopes.requires_grad:
            with naming_operators():
                (product,) = torch.autograd.grad(
                    slopes, points, way, create_graph=create_graph, retain_graph=True, allow_unused=True
                )
        found.append(torch.zeros_like(slopes) if product is None else product)
    return torch.stack(found, 1)


def parameter_gradient(value: Tensor, parameters: Sequence[Tensor]) -> list[Tensor | None]:
    """Gradient of a scalar with respect to each parameter (None where it is not reached); ``.grad`` stays as it is."""
    if not value.requires_grad or not parameters:
        return [None] * len(parameters)
    with naming_operators():
        return list(torch.autograd.grad(value, parameters, allow_unused=True, retain_graph=True))


def pull(
    outputs: Sequence[Tensor], points: Sequence[Tensor], cotangent: Tensor, *, keep: bool = True
) -> list[Tensor | None]:
    """Adjoint of a recorded pass: ``cotangent`` of the one output, sent back to each point (None where not reached).

    The recorded graph stays if ``keep``, and the result has none.
    """
    return list(torch.autograd.grad(outputs, points, cotangent, retain_graph=keep, allow_unused=True))


def adjoint(function: Callable[[Tensor], Tensor], like: Tensor, cotangent: Tensor) -> Tensor:
    """The adjoint of an affine function at a cotangent, with its graph to the cotangent and to what is in the function.

    Args:
        function: of a tensor shaped like ``like``.
        cotangent: shaped like the function's result.
    """
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        point = torch.zeros_like(like).requires_grad_()
        (found,) = torch.autograd.grad(function(point), point, cotangent, create_graph=keep)
    return found


def only(found: Sequence[Tensor | None]) -> Tensor:
    """The one gradient of a pull along a path that is known to be there."""
    (gradient,) = found
    if gradient is None:
        raise NotConnectedError("a pass that was recorded is not connected", expected="a gradient", got=None)
    return gradient


@contextmanager
def naming_operators() -> Iterator[None]:
    """Turn autograd's 'derivative for X is not implemented' into ``DoubleBackwardError`` with the switch that helps."""
    try:
        yield
    except RuntimeError as error:
        operator = _operator_without_derivative(str(error))
        if operator is None:
            raise
        raise DoubleBackwardError(
            f"the operator {operator} has no second derivative, so a penalty on its gradient cannot train",
            got=str(error).split("\n")[0],
            mend=_switch_for(operator),
        ) from error


def _operator_without_derivative(message: str) -> str | None:
    found = re.search(r"derivative for '?(?:aten::)?([\w.]+)'? is not implemented", message)
    if found:
        return found.group(1)
    if "aot_autograd does not currently support double backward" in message:
        return "torch.compile"
    if "cudnn RNN backward" in message or "_cudnn_rnn_backward" in message:
        return "_cudnn_rnn_backward"
    return None


def _switch_for(operator: str) -> str:
    if "attention" in operator:
        return (
            "wrap the forward in torch.nn.attention.sdpa_kernel(SDPBackend.MATH) (rightly does so for its own "
            "passes), or load the model with attn_implementation='eager'"
        )
    if "cudnn_rnn" in operator:
        return "run the model under torch.backends.cudnn.flags(enabled=False)"
    if operator == "torch.compile":
        return "compile the whole objective, not the model"
    if "embedding_bag" in operator:
        return "use nn.Embedding followed by a sum or mean"
    return "replace the operator by one that can be differentiated twice, or explain a space behind it"


@contextmanager
def reading(model: Any, *, trainable: bool) -> Iterator[None]:
    """Read a model without changing it: dropout off, batch statistics frozen, every switch put back afterwards.

    Args:
        model: a module, or any callable (then there is nothing to switch).
        trainable: the passes will be differentiated twice, so only kernels with a second derivative may run.

    Training flags are set one by one and restored one by one, also after an exception; a user's own
    ``train()`` or ``eval()`` override is not called. The global random state is kept. Gradients are recorded also
    inside ``torch.no_grad()`` and ``torch.inference_mode()``.
    """
    modules = modules_of(model)
    with ExitStack() as stack:
        stack.enter_context(seeding.guarded())
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if trainable:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if torch.backends.cudnn.is_available() and any(isinstance(module, nn.RNNBase) for module in modules):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        stack.enter_context(evaluating(modules))
        yield


def modules_of(part: Any) -> list[nn.Module]:
    """A module and all that it contains; nothing of a plain function."""
    return list(part.modules()) if isinstance(part, nn.Module) else []


@contextmanager
def evaluating(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Dropout off and batch statistics frozen in these modules (not in what they contain); put back afterwards."""
    training = [module for module in modules if module.training]
    try:
        _set_training(training, False)
        yield
    finally:
        _set_training(training, True)


def _set_training(modules: Iterable[nn.Module], mode: bool) -> None:
    for module in modules:
        # past nn.Module's own, which looks for parameters first and costs more than a small layer
        object.__setattr__(module, "training", mode)


def recordable(tensor: Tensor) -> Tensor:
    """The tensor itself, or a copy of one made in inference mode, which autograd would refuse to save."""
    return tensor.clone() if tensor.is_inference() else tensor


@contextmanager
def keeping_buffers(model: nn.Module) -> Iterator[None]:
    """Put the model's buffers (running statistics) back afterwards, bit for bit and in place."""
    before = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


@contextmanager
def own_buffers(model: nn.Module) -> Iterator[Callable[[], list[Tensor]]]:
    """Let the model write to copies of its buffers; called, what is yielded gives the copies as they are now."""
    before = [(part, name, buffer) for part in model.modules() for name, buffer in part._buffers.items()]
    copies = {id(buffer): buffer.clone() for _, _, buffer in before if buffer is not None}
    try:
        for part, name, buffer in before:
            part._buffers[name] = None if buffer is None else copies[id(buffer)]
        yield lambda: list(model.buffers())
    finally:
        for part, name, buffer in before:
            part._buffers[name] = buffer


def over_blocks(function: Callable[[Tensor], Tensor], blocks: Tensor) -> Tensor:
    """``function`` of every block (M, ...) at once, with its graph."""
    return torch.func.vmap(function)(blocks)


def over_parts(
    function: Callable[..., tuple[Tensor, tuple[Tensor, ...]]], *blocks: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """What ``function`` gives first for every entry of the blocks at once, and what it gives second, once.

    The second must be the same for all entries; random draws are.
    """
    dims: Any = (0, None)
    found: tuple[Tensor, tuple[Tensor, ...]] = torch.func.vmap(function, out_dims=dims, randomness="same")(*blocks)
    return found


@contextmanager
def outside_blocks() -> Iterator[None]:
    """Inside ``over_parts``, work on tensors that are the same for all entries as if it were not there: random draws
    there do not heed a tensor's layout, so that a mask would fall elsewhere than in a plain pass."""
    with torch._C._DisableFuncTorch():
        yield


def laid_out(*tensors: Tensor) -> tuple[list[Tensor], Callable[[Tensor], Tensor]] | None:
    """Inside ``over_parts``, tensors as they lie in memory: for work that is done block by block.

    Returns:
        The tensors with the parts as a dimension before all others, of size 1 where a tensor is the same for all; and
        what makes one of a plain tensor of that layout. None elsewhere, and where gradients are recorded, or where
        the parts are those of another transformation too.
    """
    levels = {level for level in map(_functorch.maybe_get_level, tensors) if level > 0}
    if torch.is_grad_enabled() or len(levels) != 1:
        return None
    (level,) = levels
    found = []
    with torch._C._DisableFuncTorch():
        for tensor in tensors:
            if _functorch.is_batchedtensor(tensor):
                plain = _functorch.get_unwrapped(tensor).movedim(_functorch.maybe_get_bdim(tensor), 0)
            else:
                plain = tensor.unsqueeze(0)
            if _functorch.is_functorch_wrapped_tensor(plain):
                return None
            found.append(plain)
    return found, lambda made: _functorch._add_batch_dim(made, 0, level)


def plain(*tensors: Tensor) -> bool:
    """Whether these are tensors as they lie in memory, of which nothing is recorded."""
    return not torch.is_grad_enabled() and not any(map(_functorch.is_functorch_wrapped_tensor, tensors))


def central_difference(
    value: Callable[[], float], parameters: Sequence[Tensor], direction: Sequence[Tensor], step: float
) -> float:
    """Derivative of ``value()`` along ``direction`` in parameter space; the parameters come back bit for bit."""
    before = [parameter.detach().clone() for parameter in parameters]
    values = []
    try:
        for sign in (1.0, -1.0):
            with torch.no_grad():
                for parameter, start, way in zip(parameters, before, direction, strict=True):
                    parameter.copy_(start + sign * step * way)
            values.append(value())
    finally:
        with torch.no_grad():
            for parameter, start in zip(parameters, before, strict=True):
                parameter.copy_(start)
    return (values[0] - values[1]) / (2 * step)


def along(gradients: Iterable[Tensor | None], direction: Iterable[Tensor]) -> float:
    """Inner product of a parameter gradient with a direction; missing gradients count as zero."""
    pairs = zip(gradients, direction, strict=True)
    return float(sum((grad * way).sum().item() for grad, way in pairs if grad is not None))
