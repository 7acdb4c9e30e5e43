"""What groups of features are worth to one example, by any attribution: the scores that a hierarchy is built from."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from rightly.attributions.base import Attribution, Explanation, check_reference
from rightly.attributions.decomposition import ContextualDecomposition
from rightly.attributions.problem import Problem
from rightly.core import autodiff
from rightly.core.batch import Inputs, Model, convert
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.scalar import Output, Target
from rightly.core.types import Reference, Space
from rightly.references import Constant
from rightly.spaces import Input

ScoreName = Literal["contextual_decomposition", "occlusion", "build_up"]


class Scores:
    """Scores of regions of one example.

    Attributes:
        shape: (*F), of the example in the space.
    """

    def __init__(
        self, method: Attribution, model: Model, inputs: Inputs, labels: Tensor | None, chunk_size: int | None
    ) -> None:
        self.method, self.model, self.inputs, self.labels = method, model, inputs, labels
        self.chunk_size = chunk_size
        with autodiff.reading(model, trainable=False), torch.no_grad():
            coordinates = method.space.open(model, convert(inputs, autodiff.recordable)).coordinates
        if len(coordinates) != 1:
            raise ShapeError(
                "a hierarchy is of one example",
                expected=f"(1, {', '.join(map(str, coordinates.shape[1:]))})",
                got=tuple(coordinates.shape),
                mend="call it for each: inputs[i : i + 1]",
            )
        self.shape = tuple(coordinates.shape[1:])
        self._additive: Tensor | None = None

    def __call__(self, regions: Tensor) -> Tensor:
        """(R, *F) bool, 1 standing for all of a dimension -> (R,)."""
        if isinstance(self.method, ContextualDecomposition | Replaced):
            asked = copy.copy(self.method)
            asked.regions = regions
            return self._attributions(asked, self.chunk_size)[0].cpu()
        if self._additive is None:
            self._additive = self._attributions(self.method, self.chunk_size)[0].cpu()
            if self._additive.shape != self.shape:
                raise ArgumentError(
                    "these attributions cannot be added up over features",
                    expected=self.shape,
                    got=tuple(self._additive.shape),
                    mend="a method that gives every feature of the space one number",
                )
        phi = self._additive
        return torch.stack([(phi * region).sum() for region in regions])

    def _attributions(self, method: Attribution, chunk_size: int | None) -> Tensor:
        found = method(self.model, self.inputs, self.labels, diagnostics=False, chunk_size=chunk_size)
        return found.attributions


class Replaced(Attribution):
    """What the output loses without a region (occlusion), or gains by it alone (build-up): (B, R).

    Args:
        alone: the region in front of the reference, minus the reference; else the example minus the example without.
        reference: what stands for "not there"; one draw an example.
    """

    def __init__(self, alone: bool, reference: Reference | None, space: Space, output: Output, target: Target) -> None:
        super().__init__(space, output, target)
        self.alone = alone
        self.reference = check_reference(Constant(0.0) if reference is None else reference)
        self.regions: Tensor | None = None

    def _explain(self, problem: Problem, generator: torch.Generator, diagnostics: bool) -> Explanation:
        regions, x = self.regions, problem.view.coordinates
        if regions is None:
            raise ArgumentError("regions are missing", expected="(R, *F) bool", got=None)
        draw = self.reference.draw(problem.view, 1, generator)
        regions = regions.to(x.device)

        def points(rows: Tensor, samples: Tensor) -> Tensor:
            chosen = regions[samples]
            return torch.where(chosen if self.alone else ~chosen, x[rows], draw.gather(rows, torch.zeros_like(samples)))

        def all_or_nothing(rows: Tensor, samples: Tensor) -> Tensor:
            return draw.gather(rows, torch.zeros_like(samples)) if self.alone else x[rows]

        with torch.no_grad():
            whole = problem.values(all_or_nothing, 1)
            parts = problem.values(points, len(regions))
        return Explanation(parts - whole if self.alone else whole - parts, whole=False)


def method_of(
    score: ScoreName | Attribution, space: Space | None, output: Output, target: Target, reference: Reference | None
) -> Attribution:
    """The attribution that scores; one that is given comes with its own space, output and target."""
    if isinstance(score, Attribution):
        if reference is not None:
            raise ArgumentError(
                "a score that is given comes with its own reference",
                expected="reference= with a score by name",
                got=f"reference= with {type(score).__name__}",
                mend=f"{type(score).__name__}(reference=...)",
            )
        return score
    makers: dict[str, Callable[[], Attribution]] = {
        "contextual_decomposition": lambda: ContextualDecomposition(space=space, output=output, target=target),
        "occlusion": lambda: Replaced(False, reference, space or Input(), output, target),
        "build_up": lambda: Replaced(True, reference, space or Input(), output, target),
    }
    if not isinstance(score, str) or score not in makers:
        raise ArgumentError(
            "unknown score", expected=", ".join(get_args(ScoreName)) + ", or an attribution", got=repr(score)
        )
    return makers[score]()
