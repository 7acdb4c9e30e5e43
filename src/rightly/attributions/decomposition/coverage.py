"""Which of a model's operations have a rule."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rightly.attributions.decomposition.contextual import open_view, split_outputs
from rightly.attributions.decomposition.convention import Convention
from rightly.attributions.decomposition.table import RULES, TOKEN_RULES
from rightly.core import autodiff
from rightly.core.batch import Inputs, Model
from rightly.core.errors import DecompositionError
from rightly.core.types import Space


@dataclass(frozen=True)
class Coverage:
    """How a model's operations are decomposed.

    Attributes:
        operations: by name: "rule" from the table, "body" of a Python function whose parts have rules, "shapley" for
            operations without a rule, which ``unknown="shapley"`` would give their two-player Shapley value.
        problem: why the model cannot be decomposed even so; None where it can.
        gap: how far the parts of the whole input are from the outputs, over the largest: rounding, or a sign that
            constants in the model are left out.
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
            lines.append(f"the whole input's part is the output up to {self.gap:.1e}")
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
        whole = x if x.is_floating_point() else torch.ones_like(x, dtype=torch.get_default_dtype())
        try:
            relevant, outputs = split_outputs(
                lambda points: view.rest(points, rows), x, whole[None], torch.ones(1), lambda part: part, Convention(),
                unknown="shapley", used=used,
            )  # fmt: skip
        except DecompositionError as problem:
            return Coverage(used, str(problem.got), float("nan"))
        gap = (outputs - relevant[0]).abs().max() / outputs.abs().max().clamp_min(1e-30)
    return Coverage(used, None, float(gap))
