"""What moves, adds up or scales numbers: both parts go the same way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rightly.attributions.decomposition.split import Split, called, dropout_mask, joint, linear, total_of
from rightly.attributions.decomposition.table import EXACT, SINGH, Args, Kwargs, rule
from rightly.core.intercept import Unsupported, named

_ASKED = (
    "shape size dim ndim device dtype layout numel nelement len is_floating_point is_complex is_cuda is_cpu is_mps "
    "is_contiguous stride get_device element_size itemsize is_leaf is_sparse is_nested is_quantized is_inference "
    "requires_grad data_ptr storage_offset is_mkldnn is_meta is_xpu is_signed names grad_fn is_pinned "
    "eq ne lt le gt ge equal allclose isclose argmax argmin argsort any all isnan isinf isfinite isneginf isposinf "
    "logical_and logical_or logical_not logical_xor item tolist bool count_nonzero nonzero bucketize "
    "zeros_like ones_like empty_like full_like rand_like randn_like new_zeros new_ones new_full new_tensor new_empty "
    "result_type can_cast is_same_size bernoulli multinomial"
)


@rule(*_ASKED.split(), formula="a question to t", source=EXACT)
def asked(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Questions about the value; the answer is no longer split."""
    return called(func, args, kwargs, lambda split: split.total.detach())


VIEWS = (
    "view reshape flatten unflatten permute transpose movedim moveaxis swapaxes swapdims squeeze unsqueeze expand "
    "expand_as view_as T mT H t contiguous getitem narrow select unbind split chunk tensor_split diagonal "
    "unsafe_chunk unsafe_split split_with_sizes hsplit vsplit dsplit ravel"
)
MOVES = (
    "clone repeat tile repeat_interleave roll flip fliplr flipud rot90 index_select gather take take_along_dim "
    "masked_select tril triu diag diag_embed pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle "
    "unfold broadcast_to reshape_as"
)
_SUMS = (
    "neg negative positive sum mean nansum cumsum diff trace avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d "
    "adaptive_avg_pool2d adaptive_avg_pool3d fold im2col col2im interpolate upsample grid_sample stft istft "
    "fft_fft fft_ifft fft_rfft fft_irfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn fft_ifftn fft_rfftn "
    "fft_irfftn view_as_real view_as_complex real imag conj resolve_conj resolve_neg requires_grad_ detach data "
    "rad2deg deg2rad"
)


@rule(*MOVES.split(), *_SUMS.split(), formula="f(b)", source=EXACT)
def moved(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Linear in its one split, which comes first."""
    held = [arg for arg in (*args[1:], *kwargs.values()) if isinstance(arg, Split)]
    if held or not isinstance(args[0], Split):
        raise Unsupported(f"{func.__name__} by something that depends on the input")
    return linear(func, args, kwargs, weights=True)


@rule(*VIEWS.split(), formula="f(b)", source=EXACT)
def viewed(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Linear, and what comes out may share memory with what went in."""
    source, *rest = args
    if not isinstance(source, Split):  # a plain tensor in the shape of a split
        return called(func, args, kwargs, total_of)
    result = linear(func, (source, *(_shape_of(arg) for arg in rest)), kwargs, weights=True)
    if func.__name__ == "__getitem__":
        result.index = rest[0]
    for each in result if isinstance(result, tuple) else (result,):
        each.shares(source)
    return result


def _shape_of(arg: Any) -> Any:
    """Of ``view_as(x, other)`` only the shape of the other one matters; an index must not depend on the input."""
    if not isinstance(arg, Split):
        return arg
    return arg.total.detach()


@rule("to", "type", "type_as", "float", "double", "half", "bfloat16", "cpu", "cuda", formula="f(b)", source=EXACT)
def converted(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Precision and place; as whole numbers nothing is left to decompose."""
    source, *rest = args
    if not isinstance(source, Split) or func.__name__ == "__float__":
        return called(func, args, kwargs, lambda split: split.total.detach())
    rest = [total_of(arg) for arg in rest]
    if not func(source.total, *rest, **kwargs).is_floating_point():
        return func(source.total.detach(), *rest, **kwargs)
    result = linear(func, (source, *rest), kwargs, weights=True)
    return source if result.total is source.total else result


@rule("long", "int", "short", "char", "byte", formula="a question to t", source=EXACT)
def _whole(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    return func(args[0].total.detach())


@rule("pad", formula="f(b), a constant border is shared like a bias", source=EXACT)
def _pad(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    names = dict(zip(("pad", "mode", "value"), args[1:], strict=False)) | kwargs
    source = args[0]
    value = names.pop("value", None) or 0.0
    result = linear(lambda x: func(x, **names), (source,), {})
    if value == 0.0 or names.get("mode", "constant") != "constant":
        return result
    total = func(source.total, **names, value=value)
    shift = total - result.total
    return source.made(total, source.run.share(result.relevant, result.total, shift, tuple(range(1, total.ndim))))


@rule("dropout", "dropout1d", "dropout2d", "dropout3d", formula="one mask for t and b", source=SINGH)
def _dropout(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    names = {"p": 0.5, "training": True} | dict(zip(("p", "training"), args[1:], strict=False)) | kwargs
    source: Split = args[0]
    if not names.pop("training", names.pop("train", False)) or names["p"] == 0:
        return source
    mask = dropout_mask(func, source.total, names["p"])
    return linear(torch.mul, (source, mask), {}, weights=True)


@rule("alpha_dropout", "feature_alpha_dropout", formula="b, in eval mode only", source=EXACT)
def _alpha_dropout(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, _, training = named(args, kwargs, ("input", "p", "training"), (0.5, False))
    if training:
        raise Unsupported(f"{func.__name__} in training mode")
    return source


@rule("setitem", formula="b with b' in its place", source=EXACT)
def _setitem(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> None:
    target, index, value = args
    if not isinstance(target, Split):
        raise Unsupported("setitem writes what is carried into a plain tensor")
    run, index = target.run, total_of(index)
    place = torch.zeros(target.total.shape, dtype=torch.bool, device=target.total.device)
    place[index] = True

    def spread(what: Any, into: Tensor) -> Tensor:
        into[index] = what
        return into

    nothing = torch.zeros_like(target.total)
    written: Any = spread(total_of(value), nothing.clone())
    if isinstance(value, Split):  # the zero of a part is a zero for each of its regions
        written = target.made(written, spread(value.relevant, nothing + run.own.sum() * 0))
    target.become(joint(torch.where, (place, written, target), {}))
