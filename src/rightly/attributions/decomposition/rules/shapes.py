"""What moves, adds up or scales numbers: both parts go the same way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rightly.attributions.decomposition.split import Split, called, dropout_mask, joint, linear, numeric, total_of
from rightly.attributions.decomposition.table import EXACT, SINGH, TOKEN_RULES, Args, Kwargs, rule
from rightly.core.intercept import Unsupported, named, operation, replaced

_ASKED = (
    "shape size dim ndim device dtype layout numel nelement len is_floating_point is_complex is_cuda is_cpu is_mps "
    "is_contiguous stride get_device element_size itemsize is_leaf is_sparse is_nested is_quantized is_inference "
    "requires_grad data_ptr storage_offset is_mkldnn is_meta is_xpu is_signed names grad_fn is_pinned "
    "eq ne lt le gt ge equal allclose isclose argmax argmin argsort any all isnan isinf isfinite isneginf isposinf "
    "logical_and logical_or logical_not logical_xor item tolist bool count_nonzero nonzero bucketize "
    "zeros_like ones_like empty_like full_like rand_like randn_like new_zeros new_ones new_full new_tensor new_empty "
    "_nested_tensor_from_mask_left_aligned result_type can_cast is_same_size bernoulli multinomial"
)


@rule(*_ASKED.split(), formula="a question to t", source=EXACT, apart=True)
def asked(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Questions about the value; the answer is no longer split."""
    return called(func, args, kwargs, lambda split: split.total.detach())


VIEWS = (
    "view reshape flatten unflatten permute transpose movedim moveaxis swapaxes swapdims squeeze unsqueeze expand "
    "expand_as view_as reshape_as broadcast_to T mT H mH adjoint t contiguous getitem narrow select unbind split chunk "
    "tensor_split diagonal unsafe_chunk unsafe_split split_with_sizes hsplit vsplit dsplit ravel unfold detach data "
    "atleast_1d atleast_2d atleast_3d"
)
MOVES = (
    "clone repeat tile repeat_interleave roll flip fliplr flipud rot90 index_select gather take take_along_dim "
    "masked_select tril triu diag diag_embed pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle"
)
_SUMS = (
    "neg negative positive sum mean nansum cumsum trace avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d "
    "adaptive_avg_pool2d adaptive_avg_pool3d fold im2col col2im interpolate upsample grid_sample stft istft "
    "fft_fft fft_ifft fft_rfft fft_irfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn fft_ifftn fft_rfftn "
    "fft_irfftn view_as_real view_as_complex real imag conj resolve_conj resolve_neg rad2deg deg2rad"
)


@rule(*MOVES.split(), *_SUMS.split(), formula="f(b)", source=EXACT, apart=True)
def moved(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Linear in its one split, which comes first."""
    held = [arg for arg in (*args[1:], *kwargs.values()) if isinstance(arg, Split)]
    if held or not isinstance(args[0], Split):
        raise Unsupported(f"{func.__name__} by something that depends on the input")
    return linear(func, args, kwargs, weights=True)


@rule(*VIEWS.split(), formula="f(b)", source=EXACT, apart=True)
def viewed(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Another shape of the same numbers; of other arguments that are split only the shape or the index counts."""
    source, *rest = args
    rest = [replaced(arg, _plainly) for arg in rest]
    kwargs = {name: replaced(arg, _plainly) for name, arg in kwargs.items()}
    if not isinstance(source, Split):  # a plain tensor in the shape of a split
        return func(source, *rest, **kwargs)
    if any(isinstance(arg, torch.dtype) for arg in (*rest, *kwargs.values())):
        raise Unsupported(f"{func.__name__} as another type")
    # a part need not lie in memory as its total does
    name, _, _ = operation(func)
    result = linear(_MEANT.get(name, func), (source, *rest), kwargs, weights=True)
    if name == "getitem":
        result.index = rest[0]
    return result


_MEANT: dict[str, Callable[..., Any]] = {
    "view": torch.Tensor.reshape,
    "view_as": torch.Tensor.reshape_as,
    "data": torch.Tensor.detach,
}


def _plainly(split: Any) -> Tensor:
    plain: Tensor = split.total.detach()
    return plain


@rule("requires_grad_", formula="b", source=EXACT, apart=True)
def _itself(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    return args[0]


@rule("broadcast_tensors", formula="f(b)", source=EXACT, apart=True)
def _broadcast(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Constants stay constants."""
    tensors = args[0] if len(args) == 1 else args
    shape = torch.broadcast_shapes(*(tensor.shape for tensor in tensors))
    return tuple(
        linear(torch.Tensor.expand, (tensor, shape), {}) if isinstance(tensor, Split) else tensor.expand(shape)
        for tensor in tensors
    )


@rule(
    "to",
    "type",
    "type_as",
    "float",
    "double",
    "half",
    "bfloat16",
    "cpu",
    "cuda",
    "cfloat",
    "cdouble",
    formula="f(b)",
    source=EXACT,
    apart=True,
)
def converted(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Precision and place; as whole numbers nothing is left to decompose."""
    source, *rest = args
    if not isinstance(source, Split) or func.__name__ == "__float__":
        return called(func, args, kwargs, lambda split: split.total.detach())
    rest = [total_of(arg) for arg in rest]
    if not numeric(func(source.total, *rest, **kwargs)):
        return func(source.total.detach(), *rest, **kwargs)
    result = linear(func, (source, *rest), kwargs, weights=True)
    return source if result.total is source.total else result


@rule("long", "int", "short", "char", "byte", formula="a question to t", source=EXACT, apart=True)
def _whole(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    return func(args[0].total.detach())


@rule("pad", formula="the same choice; that of a border is shared", source=EXACT, table=TOKEN_RULES)
@rule("pad", formula="f(b), a constant border is shared like a bias", source=EXACT, apart=True)
def _pad(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, widths, mode, value = named(args, kwargs, ("input", "pad", "mode", "value"), ("constant", None))
    if mode != "constant" or (not value and numeric(source.total)):
        return linear(lambda x: func(x, widths, mode), (source,), {})
    inside = func(torch.ones_like(source.total, dtype=torch.bool), widths)
    border = func(torch.zeros_like(source.total), widths, value=value)
    every = range(1, inside.ndim) if inside.ndim > 1 else (-1,)
    return joint(lambda x, c: torch.where(inside, func(x, widths), c), source, border, dims=every)


@rule(
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "feature_dropout",
    formula="one mask for t and b",
    source=SINGH,
    apart=True,
)
def _dropout(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    kwargs = {"training" if name == "train" else name: value for name, value in kwargs.items()}
    source, p, training = named(args, kwargs, ("input", "p", "training"), (0.5, True))
    if not training or p == 0:
        return source
    return linear(torch.mul, (source, dropout_mask(func, source.total, p)), {}, weights=True)


@rule("alpha_dropout", "feature_alpha_dropout", formula="b, in eval mode only", source=EXACT, apart=True)
def _alpha_dropout(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    kwargs = {"training" if name == "train" else name: value for name, value in kwargs.items()}
    source, _, training = named(args, kwargs, ("input", "p", "training"), (0.5, False))
    if training:
        raise Unsupported(f"{func.__name__} in training mode")
    return source


@rule("setitem", formula="the choice, with what was written in its place", source=EXACT, table=TOKEN_RULES)
@rule("setitem", formula="b with b' in its place", source=EXACT, apart=True)
def _setitem(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> None:
    target, index, value = args
    if not isinstance(target, Split):
        raise Unsupported("setitem writes what is carried into a plain tensor")
    index = replaced(index, _plainly)
    place = torch.zeros(target.total.shape, dtype=torch.bool, device=target.total.device)
    place[index] = True

    def spread(what: Any, into: Tensor) -> Tensor:
        into[index] = what
        return into

    written: Any = spread(total_of(value), torch.zeros_like(target.total))
    if isinstance(value, Split):
        start = None if value.reference is None else spread(value.reference, torch.zeros_like(target.total))
        written = target.made(written, spread(value.relevant, target.run.nothing(target.relevant)), reference=start)
    target.become(joint(lambda new, old: torch.where(place, new, old), written, target))
