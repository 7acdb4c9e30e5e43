"""A prior that some examples may break."""

from __future__ import annotations

import math

from torch import Tensor

from rightly.core.annotation import Annotation
from rightly.core.distributed import global_mean, global_rows
from rightly.core.errors import ArgumentError
from rightly.core.registry import register
from rightly.priors.base import Level, Prior
from rightly.priors.norms import L2


def lenient(penalties: Tensor, share: float) -> Tensor:
    """Mean penalty of a batch in which the worst examples count as zero, (B,) -> ().

    Args:
        penalties: (B,).
        share: of the batch that is let off, rounded down to whole examples; in ``[0, 1)``. Those as bad as the best
            that is let off are let off too.
    """
    everyone = global_rows(penalties)
    spared = math.floor(share * len(everyone) + 1e-9)  # 0.29 x 100 is a little less than 29
    if spared:
        penalties = penalties * (penalties < everyone.topk(spared).values[-1])
    return global_mean(penalties)


@register("prior", citation="ross2018", example=lambda shape: {"prior": L2(), "share": 0.34})
class Lenient(Prior):
    """Another prior that a share of the examples may break: in every batch the worst are let off.

    For what is known to be wrong now and then (Ross 2018, section 4.5, "thresholding if we expect them to be incorrect
    some percentage of the time").

    Args:
        prior: with a penalty an example.
        share: of every batch that may break it, in ``[0, 1)``.
    """

    level: Level = "batch"

    def __init__(self, prior: Prior, share: float) -> None:
        if not isinstance(prior, Prior) or prior.level != "example":
            raise ArgumentError(
                "examples are let off where each has a penalty",
                expected="a prior of level 'example', such as rt.priors.L2()",
                got=repr(prior),
            )
        if not isinstance(share, int | float) or not 0 <= share < 1:
            raise ArgumentError("unusable share of a batch", expected="in [0, 1)", got=repr(share))
        self.prior, self.share, self.module = prior, share, prior.module
        self.needs = prior.needs  # type: ignore[misc]

    def penalty(self, attributions: Tensor, annotation: Annotation | None, target: Tensor | None) -> Tensor:
        """()."""
        return lenient(self.prior.penalty(attributions, annotation, target), self.share)
