"""Planted defects in the rules of contextual decomposition, each of which one check on one model has to find."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from attributions.decomposition.models import ZOO, Case
from contracts import decomposition as checks
from contracts.problems import normal
from rightly.attributions.decomposition import CONVENTIONS, RULES
from rightly.attributions.decomposition.split import Part, affine
from rightly.attributions.decomposition.table import TOKEN_RULES


@contextmanager
def planted(name: str, rule: Callable[..., Any]) -> Iterator[None]:
    """Another rule for an operation, for a while."""
    table = RULES if name in RULES else TOKEN_RULES
    own = table[name]
    table[name] = replace(own, rule=rule)
    try:
        yield
    finally:
        table[name] = own


def _linear(dims: tuple[int, ...] = (-1,), bias: float = 0.0, factor: Callable[[], float] = lambda: 1.0):
    """The rule of linear layers with something wrong in it."""

    def rule(func, args, kwargs):
        x, weight, shift = args
        total = F.linear(x.total, weight, shift)
        made = affine(total, x, lambda t: F.linear(t, weight) * factor(), shift, dims)
        return made.made(total, made.relevant + bias * shift)

    return rule


def _bare_reference(func, args, kwargs):
    x, weight, shift = args
    return x.made(F.linear(x.total, weight, shift), F.linear(x.relevant, weight), reference=F.linear(x.start, weight))


def _counting():
    calls = iter(range(10**6))
    return lambda: 1 + 1e-6 * next(calls)


def _own_winners(func, args, kwargs):
    """Max pooling of the parts on their own."""
    x = args[0]
    return x.made(F.max_pool2d(x.total, *args[1:]), F.max_pool2d(x.relevant, *args[1:]))


def _own_statistics(func, args, kwargs):
    """Layer norm of the parts on their own."""
    x, *rest = args
    return x.made(F.layer_norm(x.total, *rest, **kwargs), F.layer_norm(x.relevant, *rest, **kwargs))


def _frozen_everywhere(func, args, kwargs):
    x = args[0]
    total = torch.softmax(x.total, kwargs.get("dim", args[1] if len(args) > 1 else -1))
    return x.made(total, Part(torch.zeros_like(x.relevant)))


def _without_constants(func, args, kwargs):
    """Joining with constants that belong to nobody."""
    items = args[0]
    parts = [item.relevant if hasattr(item, "relevant") else torch.zeros_like(item) for item in items]
    like = next(item for item in items if hasattr(item, "relevant"))
    return like.made(func([getattr(item, "total", item) for item in items], *args[1:]), func(parts, *args[1:]))


def _to_both(func, args, kwargs):
    """A constant that goes to a region and to its complement: nothing that the whole input would show."""
    mask, x, constant = args
    total = torch.where(mask, x.total, constant)
    return x.made(total, torch.where(mask, x.relevant, constant))


def _not_looked_up(func, args, kwargs):
    """A table's vectors that the tokens have no part in."""
    tokens = args[0]
    total = F.embedding(tokens.total, *args[1:])
    return tokens.made(total, torch.zeros_like(total) * tokens.relevant.unsqueeze(-1))


def _asymmetric(func, args, kwargs):
    return args[0].made(torch.tanh(args[0].total), torch.tanh(args[0].relevant))


def _nudged(func, args, kwargs):
    x = args[0]
    return x.made(torch.relu(x.total) * (1 + 1e-8), torch.relu(x.relevant))


def _run(check: Callable[..., Any], model: str, operation: str = "", rule: Any = None, **options: Any):
    def wrong():
        with planted(operation, rule):
            check(ZOO[model](), **options)

    def right():
        check(ZOO[model](), **options)

    return wrong if rule is not None else right


def _control(check, says, model, operation, rule, **options):
    return check, _run(check, model, operation, rule, **options), _run(check, model, **options), says


def _covered(case, operation, rule):
    with planted(operation, rule):
        checks.check_covered(case)


_CHOSEN = Case(lambda x: torch.where(x > 0, x, torch.full_like(x, 0.5)), normal(3, 6, seed=20), (6,))
_NO_SHARE = replace(CONVENTIONS["shapley"], share="zero", soft=10.0)

#: name -> (check, on what is wrong, on what is right, what it says)
CONTROLS = {
    "totals that are not the model's": _control(checks.check_outputs, "outputs", "mlp", "relu", _nudged),
    "winners of the parts": _control(
        checks.check_sum, "do not add up", "digits", "max_pool2d", _own_winners, convention="shapley"
    ),
    "statistics of the parts": _control(
        checks.check_sum, "do not add up", "convnext", "layer_norm", _own_statistics, convention="shapley"
    ),
    "tanh of the part alone": _control(
        checks.check_sum, "do not add up", "bag, sum", "tanh", _asymmetric, convention="shapley"
    ),
    "a bias that gets lost": (
        checks.check_sum,
        lambda: checks.check_sum(ZOO["mlp"](), convention=_NO_SHARE),
        _run(checks.check_sum, "mlp", convention="shapley"),
        "do not add up",
    ),
    "a reference without its bias": _control(
        checks.check_reference, "outputs at the reference", "mlp", "linear", _bare_reference
    ),
    "a bias for an empty region": _control(
        checks.check_edges, "an empty region gets something", "mlp", "linear", _linear(bias=1e-6)
    ),
    "half of the bias for an empty region": (
        checks.check_edges,
        lambda: checks.check_edges(ZOO["vision transformer"](), convention=replace(CONVENTIONS["first"], share="half")),
        _run(checks.check_edges, "vision transformer"),
        "an empty region gets something",
    ),
    "softmax frozen outside attention": _control(
        checks.check_edges, "a full region does not get everything", "functional", "softmax", _frozen_everywhere
    ),
    "constants that belong to nobody": _control(
        checks.check_edges, "a full region does not get everything", "vision transformer", "cat", _without_constants
    ),
    "a rule that remembers": _control(
        checks.check_loop, "together and alone", "mlp", "linear", _linear(factor=_counting())
    ),
    "constants that go to both": (
        checks.check_covered,
        lambda: _covered(_CHOSEN, "where", _to_both),
        lambda: checks.check_covered(_CHOSEN),
        "not covered: the parts of the whole input, or of its halves, miss the output",
    ),
    "tokens without their vectors": _control(checks.check_covered, "not covered", "lstm", "embedding", _not_looked_up),
    "shares over the batch": _control(checks.check_examples, "examples", "mlp", "linear", _linear(dims=(0, -1))),
}
