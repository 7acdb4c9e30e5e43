"""The choices that contextual decomposition leaves open, and the sets of them that have a name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from rightly.core.checks import check_number
from rightly.core.errors import ArgumentError

Name = Literal["first", "shapley", "published", "reference"]


@dataclass(frozen=True)
class Convention:
    """How what two parts do together is divided between them.

    Args:
        relu: ``"first"`` is eq. 7 of Singh et al. (2022): the relevant part goes through ReLU as if it were alone, and
            every interaction is the other part's. ``"shapley"`` averages over who comes first.
        attention: ``"freeze"`` holds the attention weights: they pass on the values' parts, and queries and keys get
            no credit. ``"shapley"`` decomposes the weights too, at the price of three more softmaxes;
            even weights, where there is nothing to tell positions apart, count as a bias there.
        gates: the products of a recurrent cell. ``"first"`` is Murdoch et al. (2018): whatever touches the other part
            is the other part's, and the output gate is held. ``"shapley"`` averages and decomposes every gate, at which
            its bias always is: what a bias alone holds open lets a part through whole. A GRU knows only this.
        bias: ``"shared"``: every bias is divided as the parts beside it are. ``"apart"``: what the network makes of a
            reference is nobody's, at every step; the parts of a region and of its complement add up to f(x) -
            f(reference), every operation is divided as a game of the two, and the choices below have no meaning. (Ours:
            what Murdoch et al. do within the gates of an LSTM, everywhere.)
        share: what a unit gets of a bias where both of its parts are zero. ``"layer"``: as its layer does;
            ``"half"``: half, also for an empty region (the ``acd`` package); ``"zero"``: nothing, also for a full one.
        soft: below this fraction of the bias a part counts as nearly zero, and ``share`` takes over. With 0, the
            published share, rounding errors can decide who gets the bias, and slopes have no bound.
        span_end: ``"inclusive"``: the biases of a recurrent cell act inside the span; ``"exclusive"``: not at its
            last step. The published codes do not agree.
    """

    relu: Literal["first", "shapley"] = "first"
    attention: Literal["freeze", "shapley"] = "freeze"
    gates: Literal["first", "shapley"] = "first"
    bias: Literal["shared", "apart"] = "shared"
    share: Literal["layer", "half", "zero"] = "layer"
    soft: float = 0.01
    span_end: Literal["inclusive", "exclusive"] = "inclusive"

    def __post_init__(self) -> None:
        known = {
            "relu": ("first", "shapley"),
            "attention": ("freeze", "shapley"),
            "gates": ("first", "shapley"),
            "bias": ("shared", "apart"),
            "share": ("layer", "half", "zero"),
            "span_end": ("inclusive", "exclusive"),
        }
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ArgumentError(f"unknown {name}", expected=", ".join(values), got=repr(getattr(self, name)))
        check_number("soft", self.soft, positive=False)
        if self.bias == "apart" and (self.relu, self.attention, self.gates) != ("shapley",) * 3:
            raise ArgumentError(
                "with biases apart every operation is divided as a game of two",
                expected="relu, attention and gates 'shapley'",
                got=self,
                mend="convention='reference'",
            )


CONVENTIONS: dict[str, Convention] = {
    "first": Convention(),
    "shapley": Convention(relu="shapley", attention="shapley", gates="shapley"),
    "published": Convention(share="half", soft=0.0),
    "reference": Convention(relu="shapley", attention="shapley", gates="shapley", bias="apart"),
}


def usual(reference: object) -> Name:
    """What is taken where nothing is asked for, and a reference is given or None."""
    return "first" if reference is None else "reference"


def convention_of(given: Name | Convention) -> Convention:
    """A convention by its name. Raises ``ArgumentError`` for an unknown one."""
    if isinstance(given, Convention):
        return given
    if given in CONVENTIONS:
        return CONVENTIONS[given]
    raise ArgumentError("unknown convention", expected=f"{', '.join(get_args(Name))}, or a Convention", got=repr(given))
