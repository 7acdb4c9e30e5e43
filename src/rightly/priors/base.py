"""What all priors share: half precision is left behind, and what comes back is checked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, final

import torch
from torch import Tensor, nn

from rightly.core.annotation import Annotation
from rightly.core.errors import ArgumentError, ShapeError

Level = Literal["example", "batch"]


class Prior(ABC):
    """A penalty on attributions, summed over features; low is good.

    ``level = "example"`` gives (B,), and an example without annotation gives 0; ``level = "batch"`` gives a scalar
    over the whole batch, which under ``torch.distributed`` is the global one. Subclasses are thin: the formula is
    a pure function beside them, public as ``rt.functional.<name>``.
    """

    level: Level = "example"
    #: the annotation fields that the prior reads
    needs: ClassVar[tuple[str, ...]] = ()
    #: what the prior learns, if it does: an objective trains, saves and moves it with the model
    module: nn.Module | None = None

    @final
    def __call__(
        self, attributions: Tensor, annotation: Annotation | None = None, target: Tensor | None = None
    ) -> Tensor:
        """The penalty.

        Args:
            attributions: (B, *F).
            annotation: what is known about these examples.
            target: (B,) the class explained, for priors that differ by class.

        Returns:
            (B,) or (), in float32 at least, so that half precision neither overflows nor rounds the penalty away.
        """
        if not isinstance(attributions, Tensor):
            raise ArgumentError("attributions are a tensor", expected="(B, *F)", got=type(attributions).__name__)
        if attributions.ndim < 2:
            raise ShapeError("attributions need features", expected="(B, *F)", got=tuple(attributions.shape))
        if attributions.dtype in (torch.float16, torch.bfloat16):
            attributions = attributions.float()
        value = self.penalty(attributions, annotation, target)
        expected = attributions.shape[:1] if self.level == "example" else ()
        if value.shape != expected:
            raise ShapeError(
                f"the penalty of {type(self).__name__} does not fit its level {self.level!r}",
                expected=tuple(expected),
                got=tuple(value.shape),
                mend="sum over features only; level='example' keeps the examples, level='batch' gives one number",
            )
        return value

    @abstractmethod
    def penalty(self, attributions: Tensor, annotation: Annotation | None, target: Tensor | None) -> Tensor:
        """(B,) or (), according to ``level``."""

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if not isinstance(v, Tensor))
        return f"{type(self).__name__}({shown})"
