"""Token numbers: the relevant part of a number is the choice of its token, 0 or 1, until it is looked up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rightly.attributions.decomposition.rules.shapes import MOVES, VIEWS, asked, moved, viewed
from rightly.attributions.decomposition.split import Split, called, first, linear, numeric, total_of
from rightly.attributions.decomposition.table import ANYTHING, MURDOCH, RULES, TOKEN_RULES, Args, Kwargs, rule
from rightly.core.intercept import Unsupported, in_python, named

_CHOSEN = "the chosen tokens' vectors"


_LOOKED_UP = ("getitem", "index_select", "gather", "take", "take_along_dim")


def _without(names: str) -> list[str]:
    return [name for name in names.split() if name not in _LOOKED_UP]


_CHOSEN_OF_TABLE = "the same choice; of what a table has for tokens, t where they are chosen"


@rule(*_without(VIEWS), formula="the same choice", source=MURDOCH, table=TOKEN_RULES)
def _viewed(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    return viewed(func, args, kwargs)


@rule(*_without(MOVES), formula="the same choice", source=MURDOCH, table=TOKEN_RULES)
def _moved(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    return moved(func, args, kwargs)


@rule("getitem", formula=_CHOSEN_OF_TABLE, source=MURDOCH, table=TOKEN_RULES)
def _getitem(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    table, index = args
    items = list(index) if isinstance(index, tuple) else [index]
    where = [place for place, item in enumerate(items) if isinstance(item, Split)]
    if isinstance(table, Split) and not where:
        return viewed(func, args, kwargs)
    if isinstance(table, Split) or len(where) != 1:
        raise Unsupported("getitem by token numbers of token numbers, or by several at once")
    ahead = sum(map(_dims_of, items[: where[0]]))
    if any(item is Ellipsis for item in items[: where[0]]):
        ahead = table.ndim - sum(map(_dims_of, items[where[0] :]))

    def look(table: Tensor, tokens: Tensor) -> Tensor:
        items[where[0]] = tokens
        found: Tensor = table[tuple(items)]
        return found

    return _looked_up(look, table, ahead, items[where[0]])


def _dims_of(item: Any) -> int:
    """How many dimensions of a tensor an item of an index is about."""
    if item is None or item is Ellipsis or isinstance(item, bool):
        return 0
    return item.ndim if isinstance(item, Tensor) and item.dtype == torch.bool else 1


@rule("index_select", formula=_CHOSEN_OF_TABLE, source=MURDOCH, table=TOKEN_RULES)
def _selected(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    table, dim, index = named(args, kwargs, ("input", "dim", "index"), ())
    if not isinstance(index, Split):
        return linear(func, (table, dim, index), {})
    if isinstance(table, Split):
        raise Unsupported("index_select by token numbers of token numbers")
    return _looked_up(lambda x, tokens: func(x, dim, tokens), table, dim, index)


@rule("gather", "take", "take_along_dim", formula=_CHOSEN_OF_TABLE, source=MURDOCH, table=TOKEN_RULES)
def _gathered(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    kwargs = {"index" if name == "indices" else name: value for name, value in kwargs.items()}
    if func.__name__ == "gather":
        table, dim, index, _ = named(args, kwargs, ("input", "dim", "index", "sparse_grad"), (False,))
    else:
        table, index, dim = named(args, kwargs, ("input", "index", "dim"), (None,))
    rest = () if dim is None else (dim,)

    def run(table: Any, index: Any) -> Any:
        return func(table, dim, index) if func.__name__ == "gather" else func(table, index, *rest)

    if not isinstance(index, Split):
        return linear(run, (table, index), {})
    if isinstance(table, Split):
        raise Unsupported(f"{func.__name__} by token numbers of token numbers")
    total = run(table, index.total)
    choice = index.relevant if dim is not None or func.__name__ == "take" else index.relevant.flatten()
    return _chosen(index, total, choice.expand(total.shape))


def _looked_up(look: Callable[[Tensor, Tensor], Tensor], table: Tensor, dim: int, tokens: Split) -> Any:
    """What ``look`` finds for tokens along one dimension of a table; which token it is for, is looked up too."""
    number = tokens.total.numel()
    shape = list(table.shape)
    shape[dim] = number
    numbers = torch.arange(number, device=tokens.total.device)
    places = numbers.reshape(-1, *(1,) * (table.ndim - 1 - dim % table.ndim)).expand(shape)
    total = look(table, tokens.total)
    return _chosen(tokens, total, tokens.relevant.flatten()[look(places, numbers.reshape(tokens.total.shape))])


def _chosen(tokens: Split, total: Tensor, choice: Tensor) -> Any:
    """What stands for tokens: a table of yes and no answers a question, one of numbers gives other token numbers."""
    if total.dtype == torch.bool:
        return total
    return tokens.made(total, choice.to(total) * total if numeric(total) else choice)


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
    if (isinstance(total, Tensor) and total.dtype == torch.bool) or (func.__name__ in RULES and _asks(func.__name__)):
        return total
    if not isinstance(total, Tensor):
        if isinstance(total, tuple | list) and any(isinstance(item, Tensor) for item in total):
            raise Unsupported(f"{func.__name__} of token numbers")
        return total
    if total.is_floating_point() or total.shape != source.total.shape:
        raise Unsupported(f"{func.__name__} of token numbers")
    return source.made(total, source.part)


def _asks(name: str) -> bool:
    return RULES[name].rule is asked


@rule("where", formula="the choice of what is taken; the same one beside constants", source=MURDOCH, table=TOKEN_RULES)
def _either(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    both = [item for item in (*args, *kwargs.values()) if isinstance(item, Split)]
    return RULES["where"](func, args, kwargs) if len(both) > 1 else _anything(func, args, kwargs)


@rule("embedding", formula=_CHOSEN, source=MURDOCH, table=TOKEN_RULES)
def _embedding(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    if in_python(func):
        source, *rest = args
        total = func(source.total, *rest, **kwargs)
    else:
        names = ("weight", "indices", "padding_idx", "scale_grad_by_freq", "sparse")
        weight, source, *rest = named(args, kwargs, names, (-1, False, False))
        total = func(weight, source.total, *rest)
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


def _bag(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> dict[str, Any]:
    if not in_python(func):
        raise Unsupported("torch.embedding_bag; torch.nn.functional.embedding_bag has a rule")
    values = named(args, kwargs, _BAG, (None, None, 2.0, False, "mean", False, None, False, None))
    return dict(zip(_BAG, values, strict=True))


@rule("embedding_bag", formula="sum, mean or maximum of the chosen tokens' vectors", source=MURDOCH, table=TOKEN_RULES)
def _embedding_bag(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    given = _bag(func, args, kwargs)
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
    given = _bag(func, args, kwargs)
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
