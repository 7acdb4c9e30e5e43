"""What ``rightly check`` runs."""

from __future__ import annotations

import torch

from rightly.attributions.decomposition import coverage
from rightly.core.batch import rows, take
from rightly.core.errors import RightlyError
from rightly.objectives import CheckReport, check
from rightly.workflows.custom import find_maker, make

_EXAMPLES = 64


def check_maker(name: str, seed: int) -> tuple[CheckReport, str]:
    """The preflight of a user's objective on its first training examples, and how its model can be decomposed."""
    objective, (inputs, labels, annotation), _, _ = make(find_maker(name), seed)
    few = torch.arange(min(_EXAMPLES, rows(inputs)))
    inputs = take(inputs, few)
    try:
        decomposed = str(coverage(objective.model, inputs))
    except RightlyError as problem:
        decomposed = str(problem)
    report = check(objective, inputs, labels[few], annotation and annotation.take(few), seed=seed)
    return report, f"contextual decomposition of the model's operations\n{decomposed}"
