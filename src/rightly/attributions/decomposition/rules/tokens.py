"""Token numbers: the relevant part of a number is the choice of its token, 0 or 1, until it is looked up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rightly.attributions.decomposition.rules.shapes import MOVES, VIEWS, asked, viewed
from rightly.attributions.decomposition.split import Split, called, first, linear, total_of
from rightly.attributions.decomposition.table import ANYTHING, MURDOCH, RULES, TOKEN_RULES, Args, Kwargs, rule
from rightly.core.intercept import Unsupported, named

_CHOSEN = "the chosen tokens' vectors"


@rule(*VIEWS.split(), formula="the same choice", source=MURDOCH, table=TOKEN_RULES)
def _viewed(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    return viewed(func, args, kwargs)


@rule(*MOVES.split(), "cat", "stack", formula="the same choice", source=MURDOCH, table=TOKEN_RULES)
def _moved(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    return linear(func, args, kwargs)


@rule("pad", formula="nothing chosen in the border", source=MURDOCH, table=TOKEN_RULES)
def _padded(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    names = dict(zip(("pad", "mode", "value"), args[1:], strict=False)) | kwargs
    part = func(args[0].relevant, **{**names, "value": 0.0} if names.get("mode", "constant") == "constant" else names)
    return args[0].made(func(args[0].total, **names), part)


@rule(
    *("to", "type", "long", "int", "short", "float", "double", "half", "bfloat16", "cpu", "cuda"),
    formula="the same choice; of numbers with a point, t where it is chosen",
    source=MURDOCH,
    table=TOKEN_RULES,
)
def _converted(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source: Split = args[0]
    if func.__name__ in ("__float__", "__int__"):
        return asked(func, args, kwargs)
    total = func(source.total, *map(total_of, args[1:]), **kwargs)
    if total.dtype == torch.bool:
        return total
    return source.made(total, source.relevant * total if total.is_floating_point() else source.part)


@rule(ANYTHING, formula="the same choice where the shape is kept", source=MURDOCH, table=TOKEN_RULES)
def _anything(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Offsets and the like; a question (padding?) has a plain answer."""
    source = first(args, kwargs)
    total = called(func, args, kwargs, total_of)
    if not isinstance(total, Tensor) or total.dtype == torch.bool or (func.__name__ in RULES and _asks(func.__name__)):
        return total
    if total.is_floating_point() or total.shape != source.total.shape:
        raise Unsupported(f"{func.__name__} of token numbers")
    return source.made(total, source.part)


def _asks(name: str) -> bool:
    return RULES[name].rule is asked


@rule("embedding", formula=_CHOSEN, source=MURDOCH, table=TOKEN_RULES)
def _embedding(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, *rest = args
    total = func(source.total, *rest, **kwargs)
    return source.made(total, source.relevant.unsqueeze(-1).to(total) * total)


@rule("one_hot", formula=_CHOSEN, source=MURDOCH, table=TOKEN_RULES)
def _one_hot(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, *rest = args
    total = func(source.total, *rest, **kwargs).to(torch.get_default_dtype())
    return source.made(total, source.relevant.unsqueeze(-1).to(total) * total)


_BAG = (
    *("input", "weight", "offsets", "max_norm", "norm_type", "scale_grad_by_freq", "mode", "sparse"),
    *("per_sample_weights", "include_last_offset", "padding_idx"),
)


@rule("embedding_bag", formula="sum, mean or maximum of the chosen tokens' vectors", source=MURDOCH, table=TOKEN_RULES)
def _embedding_bag(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    values = named(args, kwargs, _BAG, (None, None, 2.0, False, "mean", False, None, False, None))
    given = dict(zip(_BAG, values, strict=True))
    source: Split = given.pop("input")
    total = F.embedding_bag(source.total, **given)
    tokens, choice = source.total.reshape(-1), source.relevant.reshape(-1)
    vectors = F.embedding(tokens, given["weight"])
    counted = torch.ones_like(tokens, dtype=torch.bool)
    if given["padding_idx"] is not None:
        counted = tokens != given["padding_idx"] % len(given["weight"])
    if given["mode"] == "max":
        # a bag of one token at a time tells who won
        won = _winners(vectors, counted, _bags(source.total, given), total)
        return source.made(total, _added(vectors * choice.unsqueeze(-1).to(total) * won, source.total, given, total))
    if given["per_sample_weights"] is not None:
        vectors = vectors * given["per_sample_weights"].reshape(-1, 1)
    vectors = vectors * counted.unsqueeze(-1)
    added = _added(vectors * choice.unsqueeze(-1).to(total), source.total, given, total)
    if given["mode"] == "mean":
        number = _added(counted.to(total).unsqueeze(-1), source.total, given, total[:, :1])
        added = added / number.clamp_min(1)
    return source.made(total, added)


@rule("embedding_bag", formula="sum of the vectors by the part of their weights", source=MURDOCH)
def _weighted_bag(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    values = named(args, kwargs, _BAG, (None, None, 2.0, False, "mean", False, None, False, None))
    given = dict(zip(_BAG, values, strict=True))
    weights = given["per_sample_weights"]
    if not isinstance(weights, Split) or isinstance(given["weight"], Split) or given["mode"] != "sum":
        raise Unsupported("embedding_bag whose table depends on the input")
    total = F.embedding_bag(**{**given, "per_sample_weights": weights.total})
    vectors = F.embedding(given["input"].reshape(-1), given["weight"])
    if given["padding_idx"] is not None:
        vectors = vectors * (given["input"].reshape(-1, 1) != given["padding_idx"] % len(given["weight"]))
    return weights.made(total, _added(vectors * weights.relevant.reshape(-1, 1), given["input"], given, total))


def _bags(tokens: Tensor, given: dict[str, Any]) -> Tensor:
    """Which bag each token is in."""
    if tokens.ndim == 2:
        return torch.arange(len(tokens), device=tokens.device).repeat_interleave(tokens.shape[1])
    starts = given["offsets"][:-1] if given["include_last_offset"] else given["offsets"]
    places = torch.arange(len(tokens), device=tokens.device)
    return torch.searchsorted(starts.contiguous(), places, right=True) - 1


def _added(vectors: Tensor, tokens: Tensor, given: dict[str, Any], like: Tensor) -> Tensor:
    """Sums of the bags."""
    return torch.zeros_like(like).index_add(0, _bags(tokens, given), vectors)


def _winners(vectors: Tensor, counted: Tensor, bags: Tensor, total: Tensor) -> Tensor:
    """1 at the first token of each bag that has its maximum, number by number."""
    hit = (vectors == total[bags]) & counted.unsqueeze(-1)
    before = torch.zeros(len(total) + 1, total.shape[1], dtype=torch.long, device=total.device)
    before = before.index_add(0, bags + 1, hit.long()).cumsum(0)[bags]
    return hit & (hit.long().cumsum(0) - before == 1)
