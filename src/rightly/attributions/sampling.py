"""Designs: how the draws of a path attribution are spread over references and path positions.

Plain Monte Carlo leaves gaps and clusters, which is most of its error. A design spreads the pairs (reference, position)
evenly and stays random enough that every pair is as likely as any other, so that nothing becomes biased.

Sources: McKay, Beckman, Conover (1979) for Latin hypercubes; Cranley, Patterson (1976) for lattices with a random
shift; Hammersley, Handscomb (1964) for control variates, which recentred differences are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from rightly.attributions.problem import Problem
from rightly.core.errors import ArgumentError
from rightly.core.types import Centre, Draw, Reference
from rightly.references import Sample

Design = Literal["latin", "lattice", "independent"]
Recentred = bool | Literal["auto"]

#: draws from which recentring pays: with fewer the attributions gain, but the gradient of a penalty loses at kinks
_ENOUGH = 10
#: numbers handled at once while the references are put in order
_NUMBERS = 2**20
_GOLDEN = (math.sqrt(5) - 1) / 2


def check_design(design: Design) -> Design:
    """Raise ``ArgumentError`` for an unknown name."""
    if design in get_args(Design):
        return design
    raise ArgumentError("unknown design", expected=", ".join(get_args(Design)), got=repr(design))


def check_recentred(recentred: Recentred) -> Recentred:
    """Raise ``ArgumentError`` for anything but True, False and ``"auto"``."""
    if recentred == "auto" or isinstance(recentred, bool):
        return recentred
    raise ArgumentError("recentring is on or off", expected="True, False or 'auto'", got=repr(recentred))


def draw(
    problem: Problem, reference: Reference, n_samples: int, design: Design, generator: torch.Generator
) -> tuple[Draw, Tensor]:
    """References and path positions (B, K) of every example, the same whether a graph is kept or not."""
    if design == "lattice" and isinstance(reference, Sample) and not reference.replacement:
        return _lattice(problem, reference, n_samples, generator)
    drawn = reference.draw(problem.view, n_samples, generator)
    positions = torch.rand(problem.batch, n_samples, generator=generator)
    if design == "independent" or n_samples == 1:
        return drawn, positions
    # references come in random order, so that the strata need no shuffling
    return drawn, (torch.arange(n_samples, dtype=torch.float64) + positions) / n_samples


def _lattice(problem: Problem, reference: Sample, n_samples: int, generator: torch.Generator) -> tuple[Draw, Tensor]:
    """The golden lattice, shifted at random for every example: evenly over (rank of the reference, position)."""
    shifts = torch.rand(problem.batch, 2, generator=generator, dtype=torch.float64)
    steps = torch.arange(n_samples, dtype=torch.float64)
    ranks = ((steps + shifts[:, :1]) / n_samples * len(reference)).long().clamp_max(len(reference) - 1)
    mean = reference.mean(problem.view)
    # a draw says little about the mean of its lattice, which is nearly right whatever the shift: no factor
    centre = None if mean is None else Centre(mean)
    drawn = reference.pick(problem.view, _in_order(problem, reference, ranks), centre)
    return drawn, (steps * _GOLDEN + shifts[:, 1:]) % 1


@torch.no_grad()
def _in_order(problem: Problem, reference: Sample, ranks: Tensor) -> Tensor:
    """Numbers (B, K) of the references at ``ranks``, in the order of what is explained of them in each example's terms.

    The passes have a size of their own: another ``chunk_size`` could round a tie another way.
    """
    n, batch = len(reference), problem.batch
    device = problem.view.coordinates.device
    every = reference.pick(problem.view, torch.arange(n)[None])
    at_once = max(1, _NUMBERS // 8 // problem.view.coordinates[0].numel())
    outputs = torch.cat(
        [
            problem.view.rest(every.gather(torch.zeros_like(part), part), part % batch)
            for part in torch.arange(n, device=device).split(at_once)
        ]
    )
    found = []
    for rows in torch.arange(batch, device=device).split(max(1, _NUMBERS // outputs.numel())):
        everyone = outputs.repeat(len(rows), *(1,) * (outputs.ndim - 1))
        values = problem.value_of(everyone, rows.repeat_interleave(n)).reshape(len(rows), n)
        found.append(values.argsort(dim=1, stable=True).cpu().gather(1, ranks[rows.cpu()]))
    return torch.cat(found)


@dataclass(frozen=True)
class Recentring:
    """Differences x - x' moved so that an example's references have the mean of all references.

    With plain differences the average is mean(g) (x - mean x') + Cov(x - x', g) over the draws, whose first part errs
    by as much as the mean of a few references does; that mean is known, so that this error can be taken out.

    Attributes:
        lead: x - mean of all references, (B, *F).
        offset: what is added to each later difference times the factor, (B, *F); None where there are no later ones.
        gap: mean of an example's references - mean of all references, (B, *F).
        start, factor: as in ``Centre``.
    """

    lead: Tensor
    offset: Tensor | None
    gap: Tensor
    start: int
    factor: float

    def __call__(self, delta: Tensor, rows: Tensor, draws: Tensor) -> Tensor:
        """The differences (M, *F) of examples ``rows`` with their draws, moved."""
        if self.offset is None:
            return delta
        moved = torch.add(self.offset[rows], delta, alpha=self.factor)
        if self.start == 0:
            return moved
        late = (draws >= self.start).reshape(-1, *(1,) * (delta.ndim - 1))
        return torch.where(late, moved, delta)


def recentring(problem: Problem, drawn: Draw, recentred: Recentred) -> Recentring | None:
    """How to recentre this draw, or None where it is not wanted."""
    centre = drawn.centre
    if recentred == "auto":
        recentred = centre is not None and drawn.n >= _ENOUGH
    if not recentred:
        return None
    if centre is None:
        raise ArgumentError(
            "the mean of these references is not known",
            expected="recentred='auto' or False; or InBatch(), Noise(...), or Sample(tensors) at the model's input",
            got="recentred=True",
        )
    x, mean = problem.view.coordinates, centre.mean()
    lead = x - mean
    if centre.start == drawn.n:
        return Recentring(lead, None, torch.zeros_like(x), centre.start, centre.factor)
    late = _mean(problem, drawn, centre.start)
    gap = (1 - centre.start / drawn.n) * (late - mean)
    return Recentring(lead, lead + centre.factor * (late - x), gap, centre.start, centre.factor)


def _mean(problem: Problem, drawn: Draw, start: int) -> Tensor:
    """Mean of each example's draws from ``start`` on: (B, *F)."""
    batch, count = problem.batch, drawn.n - start
    rows = torch.arange(batch, device=problem.view.coordinates.device)
    total = torch.zeros_like(problem.view.coordinates)
    at_once = max(1, (problem.chunk_size or batch * count) // batch)
    for samples in torch.arange(start, drawn.n, device=rows.device).split(at_once):
        size = len(samples)
        references = drawn.gather(rows.repeat_interleave(size), samples.repeat(batch))
        total = total + references.reshape(batch, size, *references.shape[1:]).sum(1)
    return total / count
