"""A prior whose annotation is known beforehand, the same for every example."""

from __future__ import annotations

import torch
from torch import Tensor

from rightly.core.annotation import Annotation
from rightly.core.errors import ArgumentError
from rightly.core.registry import register
from rightly.priors.base import Prior
from rightly.priors.irrelevant import Irrelevant


def _example(shape: tuple[int, ...]) -> dict[str, object]:
    marked = torch.arange(int(torch.tensor(shape).prod())).reshape(shape) % 2 == 0
    return {"prior": Irrelevant(), "annotation": Annotation(irrelevant=marked[None])}


@register("prior", citation="ross2017", example=_example)
class Given(Prior):
    """Another prior with an annotation that holds for every example, whatever the data bring.

    A column that must not matter, or a corner of all pictures, is known before there are data, and several terms may
    each know something else.

    Args:
        prior: what is expected.
        annotation: of a single example, (1, *F): what is known of all of them.
    """

    def __init__(self, prior: Prior, annotation: Annotation) -> None:
        if not isinstance(prior, Prior):
            raise ArgumentError("an annotation is read by a prior", expected="such as Irrelevant()", got=repr(prior))
        if not isinstance(annotation, Annotation) or len(annotation) != 1:
            got = f"{len(annotation)} examples" if isinstance(annotation, Annotation) else type(annotation).__name__
            raise ArgumentError(
                "what holds for every example is one annotation",
                expected="an Annotation whose tensors have a leading dimension of 1",
                got=got,
                mend="rt.Annotation(irrelevant=mask[None])",
            )
        self.prior, self.annotation = prior, annotation
        self.level, self.module = prior.level, prior.module

    def penalty(self, attributions: Tensor, annotation: Annotation | None, target: Tensor | None) -> Tensor:
        """(B,) or (), as the other prior has it."""
        return self.prior.penalty(attributions, self.annotation.to(attributions.device), target)
