"""Which of a model's operations have a rule."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rightly.attributions.decomposition.contextual import open_view, spread
from rightly.attributions.decomposition.convention import CONVENTIONS, Convention
from rightly.attributions.decomposition.passes import choices, split_outputs
from rightly.attributions.decomposition.table import RULES, TOKEN_RULES
from rightly.core import autodiff, seeding
from rightly.core.batch import Inputs, Model
from rightly.core.errors import DecompositionError
from rightly.core.types import Space, View


@dataclass(frozen=True)
class Coverage:
    """How a model's operations are decomposed.

    Attributes:
        operations: by name: "rule" from the table, "body" of a Python function whose parts have rules, "shapley" for
            operations without a rule, which ``unknown="shapley"`` would give their two-player Shapley value.
        problem: why the model cannot be decomposed even so; None where it can.
        gap: how far the part of the whole input, and the parts of half of it and of the other half together, are from
            the outputs, over the largest: rounding, or else something is lost or counted twice on the way.
    """

    operations: dict[str, str]
    problem: str | None
    gap: float

    @property
    def ok(self) -> bool:
        """Whether contextual decomposition takes the model as it is."""
        return self.problem is None and "shapley" not in self.operations.values()

    def __str__(self) -> str:
        lines = [f"{'operation':32} {'decomposed by':14} formula"]
        for name, how in sorted(self.operations.items()):
            entry = RULES.get(name) or TOKEN_RULES.get(name)
            shown = entry.formula if entry else "its own body" if how == "body" else "no rule of its own"
            lines.append(f"{name:32} {how:14} {shown}")
        if self.problem:
            lines.append(self.problem)
        else:
            lines.append(f"the parts of the whole input, and of its halves, are the output up to {self.gap:.1e}")
        return "\n".join(lines)


def coverage(model: Model, inputs: Inputs, *, space: Space | None = None) -> Coverage:
    """Try contextual decomposition on a batch, and say how each operation was decomposed.

    Args:
        model, inputs, space: as in ``contextual_decomposition``; the model is not changed.
    """
    used: dict[str, str] = {}
    with autodiff.reading(model, trainable=False), torch.no_grad():
        view = open_view(model, inputs, space)
        x = view.coordinates
        rows = torch.arange(len(x), device=x.device)
        half = torch.rand(x.shape[1:], generator=seeding.generator("coverage")) < 0.5
        every = torch.ones_like(half)
        try:
            gap = max(
                _gap(view, rows, every[None], Convention(), used),
                # what the two parts do together is divided evenly, so that those of the halves add up
                _gap(view, rows, torch.stack([half, ~half]), CONVENTIONS["shapley"], used),
            )
        except DecompositionError as problem:
            return Coverage(used, str(problem.got), float("nan"))
    if gap <= torch.finfo(x.dtype if x.is_floating_point() else torch.get_default_dtype()).eps ** 0.5:
        return Coverage(used, None, gap)
    return Coverage(used, f"the parts of the whole input, or of its halves, miss the output by {gap:.1e} of it", gap)


def _gap(view: View, rows: Tensor, regions: Tensor, convention: Convention, used: dict[str, str]) -> float:
    """How far the parts of regions that are the whole input together are from the outputs that are finite."""
    x = view.coordinates
    relevant, outputs, _ = split_outputs(
        lambda points: view.rest(points, rows), x, *spread(regions, x), lambda mask: choices(x) * mask, convention,
        unknown="shapley", used=used,
    )  # fmt: skip
    known = outputs.isfinite()
    missing = (outputs - relevant.sum(0))[known]
    return float(missing.abs().max() / outputs[known].abs().max().clamp_min(1e-30)) if len(missing) else 0.0
