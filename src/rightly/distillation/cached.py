"""What a distillation asks of a model, once: its gradients at the signals, or along paths to references."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from rightly.attributions import ExpectedGradients, Gradient, IntegratedGradients
from rightly.attributions.base import Attribution, Explanation
from rightly.attributions.problem import Points, Problem, Step
from rightly.core.batch import Model
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.scalar import Output, Target
from rightly.spaces import Input

#: examples (or points of paths) a pass over the model
CHUNK = 256
Paths = IntegratedGradients | ExpectedGradients


def input_gradients(
    model: Model,
    signals: Tensor,
    labels: Tensor | None = None,
    *,
    output: Output = "logit",
    target: Target | None = None,
    chunk_size: int = CHUNK,
) -> Tensor:
    """The model's gradient at every signal: all that a distillation asks of it, (N, *X) -> (N, *X).

    ``target`` is the label where labels are given and the predicted class where not; see ``rt.Gradient``.
    """
    chosen = target if target is not None else "predicted" if labels is None else "label"
    method = Gradient(output=output, target=chosen)
    return method(model, signals, labels, diagnostics=False, chunk_size=chunk_size).attributions


@dataclass(frozen=True)
class PathGradients:
    """Integrated or expected gradients in two factors, from which they follow in every orthogonal transform.

    The attribution in the signals' own space is the mean over K of ``moves * gradients``. An orthogonal transform T
    maps the straight path from a reference onto itself, so that in its space it is the mean of T(moves) * T(gradients).

    Attributes:
        moves: (N, K, *X), signal minus reference (with what recentring adds).
        gradients: (N, K, *X), averaged along the path from that reference.
    """

    moves: Tensor
    gradients: Tensor

    def __post_init__(self) -> None:
        if self.moves.ndim < 3 or self.moves.shape != self.gradients.shape:
            raise ShapeError(
                "a move for every gradient",
                expected="(N, K, *X) twice",
                got=(tuple(self.moves.shape), tuple(self.gradients.shape)),
            )

    @property
    def attributions(self) -> Tensor:
        """(N, *X), in the signals' own space."""
        return (self.moves * self.gradients).mean(1)


def path_gradients(
    attribution: Paths,
    model: Model,
    signals: Tensor,
    labels: Tensor | None = None,
    *,
    chunk_size: int = CHUNK,
    generator: torch.Generator | None = None,
) -> PathGradients:
    """Integrated or expected gradients of every signal, kept in their two factors.

    Args:
        attribution: ``rt.IntegratedGradients(...)`` or ``rt.ExpectedGradients(...)`` at the input.
        model, labels, generator: as the attribution takes them.
        signals: (N, *X).
        chunk_size: points a pass; memory only.

    Raises:
        ArgumentError: another attribution, or one in another space.
    """
    if not isinstance(attribution, IntegratedGradients | ExpectedGradients) or attribution.space != Input():
        raise ArgumentError(
            "only gradients along paths from references have such factors",
            expected="rt.IntegratedGradients(...) or rt.ExpectedGradients(...), without space=",
            got=repr(attribution),
        )
    recorder = _Recorder(attribution)
    recorder(model, signals, labels, diagnostics=False, chunk_size=chunk_size, generator=generator)
    return PathGradients(*(part.detach() for part in recorder.found))


class _Recorder(Attribution):
    """An attribution that keeps the factors of what it averages."""

    found: tuple[Tensor, Tensor]

    def __init__(self, inner: Paths) -> None:
        super().__init__(inner.space, inner.output, inner.target)
        self.inner = inner

    def _explain(self, problem: Problem, generator: torch.Generator, diagnostics: bool) -> Explanation:
        given = {entry.name: getattr(problem, entry.name) for entry in fields(problem) if entry.init}
        seen = _Seen(**given)
        found = self.inner._explain(seen, generator, diagnostics)
        moves, slopes = seen.factors
        # the points of a path share its direction: their weights are what is left of the moves
        paths = moves.reshape(problem.batch, self.inner.n_samples, -1, *problem.shape)
        way = paths.mean(2, keepdim=True)
        own = tuple(range(3, paths.ndim))
        size = way.square().sum(own, keepdim=True).clamp_min(torch.finfo(way.dtype).tiny)
        weights = (paths * way).sum(own, keepdim=True) / size
        self.found = way.squeeze(2), (weights * slopes.reshape(paths.shape)).mean(2)
        return found


@dataclass
class _Seen(Problem):
    """A problem that keeps, of every point, the gradient and what it is multiplied by: (B, S, *F) each."""

    factors: tuple[Tensor, Tensor] = field(init=False)

    def average(self, step: Step, samples: int, *, curved: bool = False, against: Points | None = None) -> Tensor:
        def both(rows: Tensor, index: Tensor) -> tuple[Tensor, Callable[..., Tensor]]:
            points, weigh = step(rows, index)
            return points, lambda slopes: torch.stack([weigh(torch.ones_like(slopes)), slopes], 1)

        parts = [self._part(both, *pair, False, curved, against) for pair in self._chunks(samples, self.chunk_size)]
        moves, slopes = torch.cat(parts).reshape(self.batch, samples, 2, *self.shape).unbind(2)
        self.factors = moves, slopes
        return (moves * slopes).mean(1)
