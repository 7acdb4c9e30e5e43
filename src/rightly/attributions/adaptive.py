"""As many draws as each example needs: rounds of independent draws until the standard error is small enough."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from rightly.attributions.base import Attribution
from rightly.attributions.problem import Progress
from rightly.core import seeding
from rightly.core.batch import Inputs, Model, rows, take
from rightly.core.checks import check_count, check_number
from rightly.core.errors import ArgumentError
from rightly.core.types import AttributionResult
from rightly.references import InBatch

#: rounds before an example may stop: a spread over fewer says too little about itself
_LEAST = 6
#: rounds after which it stops in any case, unless told otherwise
_MOST = 64


def attribute_until(
    model: Model,
    inputs: Inputs,
    labels: Tensor | None,
    method: Attribution,
    *,
    tolerance: float,
    max_samples: int | None,
    seed: int,
    chunk_size: int | None,
    diagnostics: bool,
    progress: Progress | None,
) -> AttributionResult:
    """Explain each example until the standard error of all its features is small enough.

    A round is one call of ``method`` on the examples that are still open, with draws of its own, so that the spread
    between rounds is the true error, whatever the design inside a round.

    Args:
        tolerance: the largest standard error of an example, as a share of its largest absolute attribution.
        max_samples: most draws an example; 64 rounds by default, at least 6.
        progress: called with (examples done, examples in all).
        model, inputs, labels, method, seed, chunk_size, diagnostics: as in ``attribute``.

    Returns:
        As usual, with ``n_samples`` (B,). An example that reached ``max_samples`` may be above the tolerance: its
        ``standard_error`` says so.

    Raises:
        ArgumentError: the method draws nothing, or what it draws depends on the other examples of the batch.
    """
    check_number("tolerance", tolerance, positive=True)
    a_round = _draws(method)
    if max_samples is None:
        max_samples = _MOST * a_round
    most = check_count("max_samples", max_samples, least=_LEAST * a_round) // a_round
    method = copy.copy(method)

    def explain(turn: int, still: Tensor) -> AttributionResult:
        return method(
            model,
            take(inputs, still),
            None if labels is None else labels[still.to(labels.device)],
            diagnostics=diagnostics,
            chunk_size=chunk_size,
            generator=seeding.generator("attribute", seed, "round", turn),
        )

    batch = rows(inputs)
    still = torch.arange(batch)
    first = explain(0, still)
    values = _Rounds(first.attributions)
    gaps = None if first.completeness_gap is None else _Rounds(first.completeness_gap)
    for turn in range(1, most):
        if first.target is not None:
            method.target = first.target[still.to(first.target.device)]
        found = explain(turn, still)
        values.add(still, found.attributions)
        if gaps is not None and found.completeness_gap is not None:
            gaps.add(still, found.completeness_gap)
        if turn + 1 >= _LEAST:
            error, size = (part.abs().flatten(1).amax(1) for part in (values.standard_error(), values.mean()))
            still = still[(error > tolerance * size).cpu()[still]]
        if progress:
            progress(batch - len(still) if turn + 1 < most else batch, batch)
        if not len(still):
            break
    return replace(
        first,
        attributions=values.mean(),
        completeness_gap=None if gaps is None else gaps.mean(),
        standard_error=values.standard_error(),
        n_samples=values.rounds * a_round,
    )


class _Rounds:
    """Mean and spread over the rounds of each example, as deviations from the first: their squares lose no digits."""

    def __init__(self, first: Tensor) -> None:
        self.first = first
        self.moved = torch.zeros_like(first, dtype=torch.promote_types(first.dtype, torch.float32))
        self.squares = torch.zeros_like(self.moved)
        self.rounds = torch.ones(len(first), dtype=torch.long, device=first.device)

    def add(self, index: Tensor, values: Tensor) -> None:
        """One more round of the examples ``index``."""
        index = index.to(self.first.device)
        step = values - self.first[index]
        self.moved[index] += step
        self.squares[index] += step**2
        self.rounds[index] += 1

    def mean(self) -> Tensor:
        return self.first + (self.moved / self._each).to(self.first)

    def standard_error(self) -> Tensor:
        """Of the mean, from at least two rounds."""
        squares = (self.squares - self.moved**2 / self._each).clamp_min(0)
        return (squares / (self._each - 1) / self._each).sqrt().to(self.first)

    @property
    def _each(self) -> Tensor:
        return self.rounds.reshape(-1, *(1,) * (self.first.ndim - 1))


def _draws(method: Attribution) -> int:
    """Draws a round of this method, if it has rounds at all."""
    a_round = getattr(method, "n_samples", None)
    if not isinstance(a_round, int):
        raise ArgumentError(
            "this method draws nothing, so that no number of draws can make it more exact",
            expected="a method with n_samples, such as expected_gradients",
            got=type(method).__name__,
        )
    if isinstance(getattr(method, "reference", None), InBatch):
        raise ArgumentError(
            "examples that stop early would change the references of the others",
            expected="references that do not come from the batch",
            got="InBatch()",
            mend="reference=rt.references.Sample(data)",
        )
    return a_round
