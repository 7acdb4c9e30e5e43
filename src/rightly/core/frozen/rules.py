"""What linear operations do to tangents: the same. Anything without a rule is ``Unsupported``.

Every rule runs the operation itself on the plain value, with its graph, and records how a tangent goes the same way
while what the operation depends on (weights, running statistics) is held as it was found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rightly.core.frozen import kernels
from rightly.core.frozen.table import RULES, Args, Kwargs, constant, record, rule, tape_of, value
from rightly.core.frozen.tape import Pull, Traced, Weighted
from rightly.core.intercept import Unsupported, carriers, named, replaced


def _plain(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Questions about the value, and values that have no derivative."""
    return func(
        *(replaced(arg, lambda c: c.total.detach()) for arg in args),
        **{name: replaced(arg, lambda c: c.total.detach()) for name, arg in kwargs.items()},
    )


_PLAIN = (
    "shape size dim ndim device dtype layout numel len is_floating_point is_complex is_cuda is_cpu is_mps "
    "is_contiguous stride get_device element_size is_leaf is_sparse is_nested is_quantized "
    "eq ne lt le gt ge argmax argmin any all isnan isinf isfinite item tolist bool "
    "zeros_like ones_like empty_like full_like new_zeros new_ones new_full new_tensor new_empty sign round floor ceil"
)
RULES.update(dict.fromkeys(_PLAIN.split(), _plain))


@rule("requires_grad")
def _requires_grad(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> bool:
    """As the model finds it without us, so that hooks on gradients are set here too, and refused."""
    return bool(args[0].total.requires_grad)


@rule("detach", "data")
def _detached(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    args[0].memory.lent = True
    return _plain(func, args, kwargs)


_VIEWS = (
    "view reshape flatten unflatten permute transpose movedim moveaxis swapaxes swapdims squeeze unsqueeze expand "
    "expand_as view_as T mT contiguous getitem narrow select unbind split chunk tensor_split"
)
_SUMS = (
    "clone repeat tile roll flip neg negative positive sum mean cumsum diff index_select gather avg_pool1d avg_pool2d "
    "avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d pixel_shuffle pixel_unshuffle "
    "channel_shuffle unfold fold"
)


@rule(*_SUMS.split())
def _linear(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Linear in the one carrier that comes first: the tangent takes the same call."""
    source, *others = carriers(args, kwargs)
    if others or args[0] is not source:
        raise Unsupported(f"{func.__name__} of several carried tensors")
    rest = args[1:]
    shape_only = func.__name__.endswith("_as")
    if not shape_only and any(isinstance(o, Tensor) and o.is_floating_point() for o in (*rest, *kwargs.values())):
        raise Unsupported(f"{func.__name__} with a second tensor is not linear")
    result = func(source.total, *rest, **kwargs)
    if isinstance(result, Tensor):
        return record(source, result, lambda t: func(t, *rest, **kwargs))
    return tuple(record(source, part, lambda t, i=i: func(t, *rest, **kwargs)[i]) for i, part in enumerate(result))


@rule(*_VIEWS.split())
def _view(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Linear, and what comes out may share memory with what went in."""
    result = _linear(func, args, kwargs)
    for part in result if isinstance(result, tuple) else (result,):
        part.shares(args[0])
    return result


@rule("to", "type", "type_as", "float", "double", "half", "bfloat16")
def _same_type(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, *rest = args
    if not isinstance(source, Traced) or func.__name__ == "__float__":
        return _plain(func, args, kwargs)
    result = func(source.total, *rest, **kwargs)
    if result is source.total:
        return source
    if result.dtype != source.total.dtype or result.device != source.total.device:
        raise Unsupported("the model changes its precision or device on the way")
    return record(source, result, lambda t: t)


@rule("pad")
def _pad(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    names = dict(zip(("pad", "mode", "value"), args[1:], strict=False)) | kwargs
    constant = names.get("mode", "constant") == "constant"
    tangent = {**names, "value": 0.0} if constant else names
    return record(args[0], func(args[0].total, **names), lambda t: func(t, **tangent))


@rule("interpolate", "upsample")
def _interpolate(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    return _linear(func, args, kwargs)


@rule("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
def _dropout(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    names = {"p": 0.5, "training": True} | dict(zip(("p", "training"), args[1:], strict=False)) | kwargs
    if names["training"] and names["p"] > 0:
        raise Unsupported("dropout is on")
    return args[0]


@rule("cat", "concat", "concatenate", "stack", "hstack", "vstack")
def _join(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Constants are nothing to a tangent."""
    items = list(args[0] if args else kwargs["tensors"])
    rest, kwargs = args[1:], {k: v for k, v in kwargs.items() if k != "tensors"}
    tape = tape_of(items)
    places = [i for i, item in enumerate(items) if isinstance(item, Traced)]
    values = [value(item) if i in places else constant(tape, item) for i, item in enumerate(items)]
    zeros = {i: torch.zeros_like(items[i]) for i in range(len(items)) if i not in places}
    total = func(values, *rest, **kwargs)
    count = len(items)

    def run(*tangents: Tensor) -> Tensor:
        parts = dict(zip(places, tangents, strict=True)) | zeros
        return func([parts[i] for i in range(count)], *rest, **kwargs)  # type: ignore[no-any-return]

    return tape.add(total, tuple(items[i].slot for i in places), run)


@rule("add", "sub", "subtract", "rsub")
def add(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    left, right = args if len(args) == 2 else (args[0], kwargs["other"])
    alpha = kwargs.get("alpha", 1)
    minus = func.__name__ in ("sub", "subtract")
    if func.__name__ in ("rsub", "__rsub__"):
        left, right, minus = right, left, True
    tape = tape_of([left, right])
    a, b = (side.total if isinstance(side, Traced) else constant(tape, side) for side in (left, right))
    factor = -alpha if minus else alpha
    total = a + (b if factor == 1 else b * factor)
    shape = total.shape
    if isinstance(left, Traced) and isinstance(right, Traced):
        return tape.add(total, (left.slot, right.slot), lambda s, t: s + (t if factor == 1 else t * factor))
    if isinstance(left, Traced):
        return tape.add(total, (left.slot,), lambda t: t if t.shape == shape else t.expand(shape))
    return tape.add(total, (right.slot,), lambda t: (t if factor == 1 else t * factor).expand(shape))


@rule("mul", "multiply", "matmul", "rmatmul", "mm", "bmm")
def product(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """A product with a constant; the tangent is multiplied by the same."""
    left, right = args if len(args) == 2 else (args[0], *kwargs.values())
    if isinstance(left, Traced) and isinstance(right, Traced):
        raise Unsupported(f"{func.__name__} of two tensors that both depend on the input is not piecewise linear")
    source, factor = (left, right) if isinstance(left, Traced) else (right, left)
    first = source is left
    return _two(source, factor, lambda t, w: func(t, w) if first else func(w, t), func.__name__, first)


@rule("div", "divide", "true_divide")
def _quotient(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    if kwargs or not isinstance(args[0], Traced) or isinstance(args[1], Traced):
        raise Unsupported("a quotient by something that depends on the input is not piecewise linear")
    by = args[1]
    return _two(args[0], 1 / by if isinstance(by, Tensor) and by.requires_grad else by, _by(by), "mul", True)


def _by(divisor: Any) -> Callable[[Tensor, Any], Tensor]:
    """Multiply by a reciprocal that has a graph, divide by a constant."""
    if isinstance(divisor, Tensor) and divisor.requires_grad:
        return torch.mul
    return torch.div


@rule("baddbmm", "addmm")
def _affine_product(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    shift, left, right = args
    if kwargs or isinstance(shift, Traced) or not isinstance(left, Traced) or isinstance(right, Traced):
        raise Unsupported(f"{func.__name__} in which other than the first factor depends on the input")
    product = torch.bmm if func.__name__ == "baddbmm" else torch.mm
    return _two(left, right, product, product.__name__, True, lambda t, w: func(constant(left.tape, shift), t, w))


def _two(
    source: Any,
    factor: Any,
    product: Callable[..., Tensor],
    name: str,
    first: bool,
    affine: Callable[..., Tensor] | None = None,
) -> Traced:
    """Record ``product(source, factor)``, or ``affine``, which is that plus a constant."""
    total = (affine or product)(source.total, constant(source.tape, factor))

    def run(tangent: Tensor) -> Tensor:
        return product(tangent, factor)

    weighted = None
    if isinstance(factor, Tensor) and not factor.requires_grad:
        source.tape.held.append(factor)
    if isinstance(factor, Tensor) and factor.requires_grad:
        pull = kernels.product_pull(name, factor, product, first)
        weighted = Weighted(source.tape.number(factor), total, source.total, pull)
    return source.tape.add(total, (source.slot,), run, weighted)  # type: ignore[no-any-return]


@rule("linear")
def _linear_layer(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, weight, bias = named(args, kwargs, ("input", "weight", "bias"), (None,))
    if isinstance(weight, Traced) or isinstance(bias, Traced) or not isinstance(source, Traced):
        raise Unsupported("a linear layer whose weight depends on the input")
    if weight.ndim != 2 or (bias is not None and bias.ndim != 1):
        raise Unsupported("a linear layer whose weight is not a matrix or whose bias is not a vector")
    total = F.linear(source.total, weight.detach(), None if bias is None else bias.detach())
    weighted = _cut(source, weight, bias, total, None, -1)
    return source.tape.add(total, (source.slot,), lambda t: F.linear(t, weight), weighted)


def _cut(source: Any, weight: Tensor, bias: Any, total: Tensor, pull: Pull | None, channel: int) -> Weighted | None:
    """A layer whose weight and bias are kept out of the graph, so that its adjoints cost what they must."""
    number = source.tape.number
    trained = [number(t) if isinstance(t, Tensor) and t.requires_grad else None for t in (weight, bias)]
    if not weight.requires_grad:
        source.tape.held.append(weight)
    if trained == [None, None]:
        return None
    return Weighted(trained[0], total, source.total, pull, True, trained[1], channel)


@rule("conv1d", "conv2d", "conv3d")
def _convolution(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    source, weight, bias, stride, padding, dilation, groups = named(args, kwargs, names, (None, 1, 0, 1, 1))
    if isinstance(weight, Traced) or not isinstance(source, Traced):
        raise Unsupported("a convolution whose weight depends on the input")
    if isinstance(bias, Traced) or source.total.ndim != weight.ndim:
        raise Unsupported("a convolution of a single example, or with a bias that depends on the input")
    if isinstance(padding, str):
        padding = kernels.same_padding(weight, padding, dilation)
    geometry = kernels.Geometry.of(weight.ndim - 2, stride, padding, dilation, groups)
    total = kernels.convolve(source.total, weight.detach(), None if bias is None else bias.detach(), geometry)
    weighted = _cut(source, weight, bias, total, kernels.convolution_pull(weight, geometry), 1)
    return source.tape.add(total, (source.slot,), lambda t: kernels.convolve(t, weight, None, geometry), weighted)


@rule("batch_norm")
def _batch_norm(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    source, mean, variance, weight, bias, training, _, eps = named(args, kwargs, names, (None, None, False, 0.1, 1e-5))
    if training or mean is None:
        raise Unsupported("batch norm with the statistics of the batch is not piecewise linear")
    scale = torch.rsqrt(variance + eps)
    shift = -mean * scale
    if weight is not None:
        scale, shift = scale * weight, shift * weight
    if bias is not None:
        shift = shift + bias
    shape = (1, -1, *(1,) * (source.total.ndim - 2))
    scale, shift = scale.reshape(shape), shift.reshape(shape)
    return _two(source, scale, torch.mul, "mul", True, lambda t, w: torch.addcmul(constant(source.tape, shift), t, w))
