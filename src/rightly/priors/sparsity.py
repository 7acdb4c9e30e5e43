"""A few features should carry the model."""

from __future__ import annotations

from torch import Tensor

from rightly.core.annotation import Annotation
from rightly.core.distributed import global_mean
from rightly.core.gini import gini
from rightly.core.registry import register
from rightly.priors.base import Level, Prior


def sparsity(attributions: Tensor) -> Tensor:
    """1 - Gini of the mean absolute attribution of each feature, (B, *F) -> (): between 1/p and 1.

    The published penalty is -2 Gini (Erion et al. 2021), the published code -Gini; the gradient is that of the code.
    """
    return 1 - gini(global_mean(attributions.abs()).flatten())


@register("prior", citation="erion2021")
class Sparsity(Prior):
    """A few features should carry the model: 1 - Gini coefficient of the global importances (mean |phi|).

    Unlike L1 it does not care about the attributions' scale, so it cannot be met by making the model timid.
    """

    level: Level = "batch"

    def penalty(self, attributions: Tensor, annotation: Annotation | None, target: Tensor | None) -> Tensor:
        """()."""
        return sparsity(attributions)
