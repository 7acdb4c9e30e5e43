"""What the output loses when a part of the input is taken away."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from rightly.attributions.base import Attribution, Explanation, check_reference
from rightly.attributions.problem import Problem
from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError
from rightly.core.registry import register
from rightly.core.scalar import Output, Target
from rightly.core.types import Reference, Space
from rightly.references import Constant
from rightly.spaces import Input


@register(
    "attribution",
    citation="zeiler2014",
    traits=("implementation_invariant", "linear", "sensitive", "symmetric"),
    example=lambda shape: {"reference": Constant(0.1)},
)
class Occlusion(Attribution):
    """Output minus output with a window replaced by the reference, for every place of the window.

    Where windows overlap, a feature gets the mean over the windows that cover it: with windows of several features
    one that the model ignores shares what its neighbours lose.

    Args:
        reference: what the window is replaced by; zero by default.
        window: its size along the trailing dimensions; leading ones (channels) are taken away together.
            None takes every single feature on its own.
        stride: steps of the window along the same dimensions; by default as long as the window. The last window
            is moved back inside, so that every feature is covered.
        n_samples: references an example, averaged.
    """

    def __init__(
        self,
        reference: Reference | None = None,
        *,
        window: Sequence[int] | None = None,
        stride: Sequence[int] | None = None,
        n_samples: int = 1,
        space: Space | None = None,
        output: Output = "logit",
        target: Target = "label",
    ) -> None:
        super().__init__(space or Input(), output, target)
        self.reference = check_reference(Constant(0.0) if reference is None else reference)
        self.n_samples = check_count("n_samples", n_samples)
        self.window = _sizes("window", window)
        self.stride = self.window if stride is None else _sizes("stride", stride)
        if len(self.window or ()) != len(self.stride or ()):
            raise ArgumentError(
                "stride does not fit the window",
                expected=f"{len(self.window or ())} numbers, as many as the window has",
                got=stride,
            )
        if any(step > size for step, size in zip(self.stride or (), self.window or (), strict=True)):
            raise ArgumentError(
                "the stride leaves features uncovered", expected=f"at most the window {self.window}", got=self.stride
            )

    def _explain(self, problem: Problem, generator: torch.Generator, diagnostics: bool) -> Explanation:
        regions = self._regions(problem)
        draw = self.reference.draw(problem.view, self.n_samples, generator)
        count, x = len(regions), problem.view.coordinates

        def without(rows: Tensor, samples: Tensor) -> Tensor:
            gone = regions[samples // draw.n]
            return torch.where(gone, draw.gather(rows, samples % draw.n), x[rows])

        full = problem.values(lambda rows, s: x[rows], 1)
        lost = full - problem.values(without, count * draw.n).reshape(problem.batch, count, draw.n).mean(2)
        weights = regions.to(lost).flatten(1)
        attributions = lost @ (weights / weights.sum(0))
        return Explanation(attributions.reshape(x.shape), None, draw)

    def _regions(self, problem: Problem) -> Tensor:
        """(R, *F) boolean: what each window takes away."""
        shape, device = problem.shape, problem.view.coordinates.device
        window = self.window if self.window is not None else shape
        if self.window is None or self.stride is None:
            size = int(torch.tensor(shape).prod()) if shape else 1
            return torch.eye(size, dtype=torch.bool, device=device).reshape(size, *shape)
        if len(window) > len(shape) or any(w > s for w, s in zip(window[::-1], shape[::-1], strict=False)):
            raise ArgumentError("the window does not fit", expected=f"at most {shape}", got=window)
        trailing = shape[len(shape) - len(window) :]
        starts = [_starts(s, w, step) for s, w, step in zip(trailing, window, self.stride, strict=True)]
        regions = torch.zeros(len(list(itertools.product(*starts))), *shape, dtype=torch.bool, device=device)
        for region, corner in zip(regions, itertools.product(*starts), strict=True):
            region[(..., *(slice(a, a + w) for a, w in zip(corner, window, strict=True)))] = True
        return regions


def _sizes(name: str, sizes: Sequence[int] | None) -> tuple[int, ...] | None:
    if sizes is None:
        return None
    if not isinstance(sizes, Sequence):
        raise ArgumentError(f"{name} has a size along each dimension", expected="such as (3, 3)", got=repr(sizes))
    return tuple(check_count(name, size) for size in sizes)


def _starts(size: int, window: int, stride: int) -> list[int]:
    return sorted({*range(0, size - window + 1, stride), size - window})
