"""The question that an attribution answers, with every pass over the model in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from rightly.core import autodiff
from rightly.core.engines import DoubleBackward, TwoPhase
from rightly.core.errors import DecompositionError, ShapeError
from rightly.core.intercept import Unsupported
from rightly.core.operators import operators
from rightly.core.replacing import THRICE, replacing
from rightly.core.scalar import Output, Target, explained, needs_target, resolve_target
from rightly.core.secants import KNOWN, secants
from rightly.core.types import Engine, View

Progress = Callable[[int, int], None]
Points = Callable[[Tensor, Tensor], Tensor]
#: steps of rounding of the explained number that a sum of slopes may miss
ROUNDED = 100
Step = Callable[[Tensor, Tensor], tuple[Tensor, Callable[..., Tensor]]]


@dataclass(frozen=True)
class Curvature:
    """The Hessian at the points of a pass: nothing of it is computed before it is asked for.

    Attributes:
        slopes: (M, *F), the gradient at the points.
        points: (M, *F).
        keep: whether to keep its graph.
    """

    slopes: Tensor
    points: Tensor
    keep: bool

    def __call__(self, features: Sequence[int]) -> Tensor:
        """The rows (M, R, *F) of R features."""
        return autodiff.hessian_rows(self.slopes, self.points, features, create_graph=self.keep)

    def along(self, ways: Tensor) -> Tensor:
        """Its products (M, K, *F) with directions (M, K, *F)."""
        return autodiff.hessian_products(self.slopes, self.points, ways, create_graph=self.keep)


@dataclass
class Problem:
    """One batch seen from a space, and the number that is explained.

    Attributes:
        view: from ``Space.open``.
        labels: (B,) or None.
        output, target: as in DESIGN section 3.
        create_graph: keep the graph of every pass.
        chunk_size: points a pass, None for all at once. Memory only: it never changes a value.
        progress: called with (points done, points in all).
        engine: how gradients are taken when their graph is kept.
    """

    view: View
    labels: Tensor | None
    output: Output
    target: Target
    create_graph: bool
    chunk_size: int | None = None
    progress: Progress | None = None
    engine: Engine = field(default_factory=DoubleBackward)
    classes: Tensor | None = field(init=False, default=None)
    outputs: Tensor | None = field(init=False, default=None)

    @property
    def batch(self) -> int:
        """Number of examples B."""
        return len(self.view.coordinates)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (*F) of one example's coordinates."""
        return tuple(self.view.coordinates.shape[1:])

    def own_outputs(self) -> Tensor:
        """The model's outputs (B, ...) for the inputs themselves, without a graph; computed once."""
        if self.outputs is None:
            with torch.no_grad():
                parts = [
                    self.view.rest(self.view.coordinates[rows], rows)
                    for rows in self._rows().split(self.chunk_size or self.batch)
                ]
            self.outputs = torch.cat(parts)
        return self.outputs

    def value_of(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """The explained number (M,) of outputs (M, ...) that belong to the examples ``rows``."""
        if outputs.shape[:1] != rows.shape:
            raise ShapeError(
                "the model does not give one output an example",
                expected=f"({len(rows)}, ...)",
                got=tuple(outputs.shape),
                mend="return the outputs of every example, before any reduction over the batch",
            )
        if self.classes is None and needs_target(self.output, outputs):
            self.classes = self._classes(outputs.shape[1])
        return explained(outputs, _at(self.labels, rows), _at(self.classes, rows), self.output)

    def _classes(self, classes: int) -> Tensor:
        """The class of each example; along a path it stays that of the input, also when it is the predicted one."""
        if isinstance(self.target, str) and self.target == "predicted":
            return self.own_outputs().argmax(1)
        return resolve_target(self.target, self.labels, self.batch, classes).to(self.view.coordinates.device)

    def values(self, points: Callable[[Tensor, Tensor], Tensor], samples: int) -> Tensor:
        """The explained number at ``samples`` points an example: (B, samples)."""
        parts = [self.value_of(self.view.rest(points(r, s), r), r) for r, s in self._chunks(samples, self.chunk_size)]
        return torch.cat(parts).reshape(self.batch, samples)

    def average(self, step: Step, samples: int, *, curved: bool = False, against: Points | None = None) -> Tensor:
        """Mean over an example's samples of what ``step`` makes of the gradient at each point.

        Args:
            step: (rows (M,), samples (M,)) -> points (M, *F) and a function of the gradient there, (M, *F) -> (M, *G).
            samples: points an example, S.
            curved: the function is of the Hessian too, given as a ``Curvature``.
            against: (rows (M,), samples (M,)) -> other points (M, *F). The function is then of the slopes between
                the two in the place of the gradient (``core.secants``), by autograd, whatever the engine.

        Returns:
            (B, *G).
        """
        if self.create_graph and isinstance(self.engine, TwoPhase):
            chunks = self._chunks(samples, self.engine.chunk_size)
            parts = [partial(self._sum, step, *pair, curved=curved, against=against) for pair in chunks]
            return self.engine.total(parts) / samples
        total: Tensor | None = None
        for rows, index in self._chunks(samples, self.chunk_size):
            part = self._part(step, rows, index, self.create_graph, curved, against)
            if len(rows) == self.batch * samples:
                if samples == 1:
                    return part
                return part.reshape(self.batch, samples, *part.shape[1:]).mean(1)
            if total is None:
                total = part.new_zeros(self.batch, *part.shape[1:])
            total = total.index_add(0, rows, part) if self.create_graph else total.index_add_(0, rows, part.detach())
        if total is None:
            raise ShapeError("the batch is empty", expected="at least one example", got=0)
        return total / samples

    def _part(
        self, step: Step, rows: Tensor, index: Tensor, keep: bool, curved: bool, against: Points | None
    ) -> Tensor:
        """What ``step`` makes of the gradients of one pass: (M, *G)."""
        points, weigh = step(rows, index)
        if against is not None:
            part = weigh(self._multipliers(points, against(rows, index), rows, keep))
            return part if keep else part.detach()

        def read(points: Tensor) -> Tensor:
            return self.view.rest(points, rows)

        def value_of(outputs: Tensor) -> Tensor:
            return self.value_of(outputs, rows)

        if curved:
            engine = self.engine if keep else DoubleBackward()
            if not engine.curved:
                raise Unsupported(f"{type(engine).__name__} cannot differentiate its gradients once more")
            if not (keep and points.requires_grad):
                points = points.detach().requires_grad_()
            with replacing(THRICE) if keep else nullcontext():
                slopes = engine.gradient(read, value_of, points)
            part = weigh(slopes, Curvature(slopes, points, keep))
            return part if keep else part.detach()
        if keep:
            return weigh(self.engine.gradient(read, value_of, points))
        points = points.detach().requires_grad_()
        return weigh(autodiff.gradient(value_of(read(points.clone())), points, create_graph=False))

    def _multipliers(self, points: Tensor, others: Tensor, rows: Tensor, keep: bool) -> Tensor:
        """The slopes (M, *F) from ``others`` to the points.

        Raises ``DecompositionError`` where they do not make up what the explained number gains.
        """
        if not (keep and points.requires_grad):
            points = points.detach().requires_grad_()
        twice = torch.cat([rows, rows])

        def values() -> tuple[Tensor, Tensor]:
            here, there = self.value_of(self.view.rest(torch.cat([points, others]), twice), twice).chunk(2)
            return here, there

        with secants() as pairs:
            here, there = values()
        slopes = pairs.gradient(here, points, create_graph=keep)
        with torch.no_grad():
            parts = (slopes * (points - others)).flatten(1).double()
            eps = torch.finfo(points.dtype).eps
            missing = (parts.sum(1) - (here.double() - there.double())).abs()
            rounded = eps**0.5 * parts.abs().sum(1) + ROUNDED * eps * (here.abs() + there.abs())
            if not bool((missing <= rounded).all()):  # nor does what is not a number
                with operators() as seen:
                    values()
                raise DecompositionError(
                    "the differences from the reference cannot be propagated through the model",
                    expected="linear operations, elementwise functions of one tensor, and max pooling",
                    got=f"a sum that misses what is explained by {float(missing.max()):.1e}, because of "
                    + (", ".join(sorted(pairs.left | (seen.names - KNOWN))) or "a slope without bound"),
                    mend="output='logit' where it is a softmax of classes; integrated gradients for attention, "
                    "recurrent layers, normalisation by the input's own statistics, and other products",
                )
        return slopes

    def _sum(
        self, step: Step, rows: Tensor, index: Tensor, keep: bool, *, curved: bool, against: Points | None
    ) -> Tensor:
        """The parts of one pass, added to their examples: (B, *G)."""
        part = self._part(step, rows, index, keep, curved, against)
        return part.new_zeros(self.batch, *part.shape[1:]).index_add(0, rows, part)

    def _rows(self) -> Tensor:
        return torch.arange(self.batch, device=self.view.coordinates.device)

    def _chunks(self, samples: int, size: int | None) -> Iterator[tuple[Tensor, Tensor]]:
        """All (row, sample) pairs, example by example, ``size`` at a time."""
        total = self.batch * samples
        step = size or total
        for start in range(0, total, step):
            flat = torch.arange(start, min(start + step, total), device=self.view.coordinates.device)
            yield flat // samples, flat % samples
            if self.progress:
                self.progress(min(start + step, total), total)


def _at(values: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if values is None else values.to(rows.device)[rows]
