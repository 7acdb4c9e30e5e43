"""What ``rightly check`` runs."""

from __future__ import annotations

import torch

from rightly.core.batch import rows, take
from rightly.objectives import CheckReport, check
from rightly.workflows.custom import find_maker, make

_EXAMPLES = 64


def check_maker(name: str, seed: int) -> CheckReport:
    """The preflight of a user's objective on its first training examples."""
    objective, (inputs, labels, annotation), _, _ = make(find_maker(name), seed)
    few = torch.arange(min(_EXAMPLES, rows(inputs)))
    return check(objective, take(inputs, few), labels[few], annotation and annotation.take(few), seed=seed)
