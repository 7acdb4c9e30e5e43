"""A term: a prior on an attribution, with its strength and its times."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from rightly.attributions import Attribution
from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError
from rightly.core.registry import name_of
from rightly.priors import Prior
from rightly.priors.base import Level

Weight = float | Literal["balance", "auto"]
EngineName = Literal["auto", "double-backward", "frozen-masks", "two-phase", "finite-differences"]


@dataclass(frozen=True)
class Schedule:
    """When a term acts.

    Args:
        every: act at every m-th step only, m times as strongly, so that the mean pull stays the same. Unbiased for
            the gradient; an adaptive optimiser's second moment still sees the spikes.
        start: first step at which it acts.
        warmup: steps over which the strength grows from 1 / warmup to 1.
    """

    every: int = 1
    start: int = 0
    warmup: int = 0

    def __post_init__(self) -> None:
        check_count("every", self.every)
        check_count("start", self.start, least=0)
        check_count("warmup", self.warmup, least=0)

    def strength(self, step: int) -> float:
        """The factor on the term's weight at this step; 0 when it rests."""
        since = step - self.start
        if since < 0 or since % self.every:
            return 0.0
        ramp = min(1.0, (since + 1) / self.warmup) if self.warmup else 1.0
        return ramp * self.every


@dataclass(frozen=True)
class Term:
    """``weight * prior(attribution)``.

    Args:
        attribution: how much each feature mattered.
        prior: what is expected of that.
        weight: the strength (the papers' lambda). ``"balance"`` makes the term as large as the task loss on the
            first batch (Ross 2018, appendix 2.A); ``"auto"`` lets ``rt.fit`` choose it by validation.
        name: in reports; by default the prior's registered name.
        schedule: when it acts.
        engine: how its input gradients are taken. ``"auto"`` takes the cheapest that is exact for the model, proved
            against double backward at the first step: ``"frozen-masks"`` for piecewise-linear models,
            ``"double-backward"`` for any other, ``"two-phase"`` (either of them, in chunks) where one graph would fill
            the memory. ``"finite-differences"``, for smooth models only, is an approximation.
        fraction: of each batch that the term sees, drawn anew at every step. Unbiased for priors of level
            ``"example"``, only noisier; one of level ``"batch"`` (the Gini coefficient of mean attributions) is that
            of a smaller batch, which is another number.
    """

    attribution: Attribution
    prior: Prior
    weight: Weight = 1.0
    name: str = ""
    schedule: Schedule = field(default_factory=Schedule)
    engine: EngineName = "auto"
    fraction: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.attribution, Attribution):
            raise ArgumentError(
                "a term starts with an attribution",
                expected="such as rt.ExpectedGradients()",
                got=type(self.attribution).__name__,
            )
        if not isinstance(self.prior, Prior):
            raise ArgumentError("a term needs a prior", expected="such as rt.priors.Sparsity()", got=repr(self.prior))
        check_weight(self.weight)
        if self.engine not in get_args(EngineName):
            raise ArgumentError("unknown engine", expected=", ".join(get_args(EngineName)), got=repr(self.engine))
        if not isinstance(self.fraction, int | float) or not 0 < self.fraction <= 1:
            raise ArgumentError("unusable fraction of a batch", expected="in (0, 1]", got=repr(self.fraction))
        if not self.name:
            object.__setattr__(self, "name", name_of(self.prior))

    @property
    def level(self) -> Level:
        """The prior's: whether the penalty is a mean over examples."""
        return self.prior.level

    @property
    def about(self) -> str:
        """In words."""
        return f"{type(self.prior).__name__} on {type(self.attribution).__name__}"

    def with_weight(self, weight: Weight) -> Term:
        """The same with another strength."""
        return replace(self, weight=weight)

    def with_engine(self, engine: EngineName) -> Term:
        """The same with another engine."""
        return replace(self, engine=engine)


def check_weight(weight: object) -> None:
    """Raise ``ArgumentError`` for a weight that no term can have."""
    if isinstance(weight, str):
        usable = weight in ("balance", "auto")
    else:
        usable = isinstance(weight, int | float) and math.isfinite(weight) and weight >= 0
    if not usable:
        raise ArgumentError("unusable weight", expected="a finite number >= 0, 'balance' or 'auto'", got=repr(weight))
