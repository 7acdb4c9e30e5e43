"""Contextual decomposition as an attribution: one number a region, to be explained, trained and compared as any."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from rightly.attributions.base import Attribution, Explanation
from rightly.attributions.decomposition.contextual import check_regions, chosen_for, spread, start_of
from rightly.attributions.decomposition.convention import Convention, Name
from rightly.attributions.decomposition.passes import Unknown, split_outputs
from rightly.attributions.problem import Problem
from rightly.core.registry import register
from rightly.core.scalar import Output, Target
from rightly.core.types import Reference, Space
from rightly.spaces import Input


@register("attribution", citation="singh2022", traits=("linear",))
class ContextualDecomposition(Attribution):
    """The part of the output that contextual decomposition gives to each region.

    Training takes one forward pass of the parts and one backward pass, and no second derivatives. What features do
    together belongs to no single one of them, so that the attributions of single features do not add up to the
    output; those of a region and of its complement do under the ``"shapley"`` convention, and under ``"reference"`` to
    what the output is above that of the reference.

    Args:
        regions: bool, (R, *F) or (B, R, *F), where 1 stands for all of a dimension: attributions are (B, R). None
            takes every feature on its own: (B, *F).
        convention: see ``rightly.contextual_decomposition``.
        reference: that of ``convention="reference"``; zero by default.
        unknown: ``"shapley"`` gives operations without a rule their two-player Shapley value.
    """

    def __init__(
        self,
        regions: Tensor | None = None,
        *,
        convention: Name | Convention | None = None,
        reference: Reference | None = None,
        unknown: Unknown = "error",
        space: Space | None = None,
        output: Output = "logit",
        target: Target = "label",
    ) -> None:
        super().__init__(space or Input(), output, target)
        self.regions = None if regions is None else check_regions(regions)
        self.convention = chosen_for(convention, reference)
        self.reference = reference
        self.unknown = unknown

    def _explain(self, problem: Problem, generator: torch.Generator, diagnostics: bool) -> Explanation:
        x, rows = problem.view.coordinates, torch.arange(problem.batch, device=problem.view.coordinates.device)
        regions = self.regions
        if regions is None:
            size = x[0].numel()
            regions = torch.eye(size, dtype=torch.bool, device=x.device).reshape(size, *problem.shape)
        masks, own = spread(regions, x)
        start = start_of(problem.view, self.convention, self.reference, generator)
        chunk = problem.chunk_size and max(1, problem.chunk_size // problem.batch)
        with nullcontext() if problem.create_graph else torch.no_grad():
            found = split_outputs(
                lambda points: problem.value_of(problem.view.rest(points, rows), rows),
                x,
                masks,
                own,
                lambda mask: (x if start is None else x - start) * mask,
                self.convention,
                start,
                unknown=self.unknown,
                chunk_size=chunk or (len(masks) if problem.create_graph else None),
                graph=problem.create_graph,
                progress=problem.progress,
            )
        relevant = found.relevant.T
        if self.regions is not None:
            return Explanation(relevant, whole=False)
        return Explanation(relevant.reshape(x.shape))
