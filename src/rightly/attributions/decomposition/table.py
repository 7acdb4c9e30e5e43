"""The table of rules: what each operation does to a relevant part, with its formula and its source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rightly.core.errors import ArgumentError
from rightly.core.intercept import Rule

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """A rule as it stands in the table.

    Attributes:
        rule: (function, arguments, keyword arguments) -> what the model gets.
        formula: what becomes of the relevant part b, for the reference page; t is the total, g = t - b.
        source: where it comes from.
        apart: whether it holds where biases are kept apart too, as what is linear does. For all others there is the
            game of two.
    """

    rule: Rule
    formula: str
    source: str
    apart: bool = False

    def __call__(self, func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
        return self.rule(func, args, kwargs)


#: by the operation's name
RULES: dict[str, Entry] = {}
#: of token numbers, whose part is the choice of tokens
TOKEN_RULES: dict[str, Entry] = {}
#: the name of the rule for everything that has none
ANYTHING = "anything else"

SINGH = "Singh et al. (2022)"
MURDOCH = "Murdoch et al. (2018)"
SHAPLEY = "Shapley value of two players"
EXACT = "linear"
OURS = "rightly"


def rule(
    *names: str, formula: str, source: str, apart: bool = False, replace: bool = False, table: dict[str, Entry] = RULES
) -> Callable[[Rule], Rule]:
    """Enter a rule under the names of the operations that it is for.

    An operation's name is that of the function, without the underscore of operations in place: ``torch.add``,
    ``Tensor.add_`` and ``+`` are ``add``. A rule gets the function out of place and its arguments, in which some
    tensors are ``Split``, and returns a ``Split`` made by ``Split.made``, with the value at the reference if the rule
    is entered with ``apart=True``; else ``convention="reference"`` divides the operation as a game of two::

        @rule("double", formula="2 b", source="me")
        def double(func, args, kwargs):
            (x,) = args
            return x.made(2 * x.total, 2 * x.relevant)

    Raises:
        ArgumentError: there is a rule already, and ``replace`` does not say that it may go.
    """

    def note(entered: Rule) -> Rule:
        for name in names:
            if name in table and not replace:
                raise ArgumentError(
                    f"there is already a rule for {name}", got=table[name].formula, mend="replace=True to replace it"
                )
            table[name] = Entry(entered, formula, source, apart)
        return entered

    return note
