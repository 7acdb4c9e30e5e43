"""The table of rules, and what rules share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from rightly.core.frozen.tape import Tape, Traced
from rightly.core.intercept import Rule, Unsupported

Args = tuple[Any, ...]
Kwargs = dict[str, Any]

#: by the operation's name
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enter a rule under the names of the operations that it is for."""

    def note(entered: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, entered))
        return entered

    return note


def value(item: Any) -> Any:
    """The plain value of what may or may not be carried."""
    return item.total if isinstance(item, Traced) else item


def record(source: Any, result: Tensor, run: Callable[..., Tensor]) -> Traced:
    """Record an operation on one carrier."""
    return source.tape.add(result, (source.slot,), run)  # type: ignore[no-any-return]


def constant(tape: Tape, item: Any) -> Any:
    """What stands on the tape for something that is not carried: where it wants a gradient, a leaf of its own."""
    return tape.leaf(item) if isinstance(item, Tensor) and item.requires_grad else item


def tape_of(items: Sequence[Any]) -> Tape:
    """The tape that these are on."""
    first, *others = (item.tape for item in items if isinstance(item, Traced))
    if any(other is not first for other in others):
        raise Unsupported("the model uses what it computed in an earlier pass")
    return first
