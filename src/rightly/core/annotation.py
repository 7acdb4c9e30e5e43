"""What a person knows about the right reasons, example by example; any example may be without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from rightly.core.errors import AnnotationError

Field = Tensor | Sequence[Tensor | None] | None


@dataclass(frozen=True)
class Annotation:
    """Annotations of a batch or of a whole data set.

    Every field is a boolean or real tensor whose first dimension counts the examples (or is 1: the same for all)
    and whose other dimensions broadcast to the space's. NaN means "not known": an example without annotation is a
    row of NaN, which is also what ``None`` in a list of tensors becomes.

    Args:
        relevant: where the model should look (1) or not necessarily (0).
        irrelevant: where the model must not look (1).
        regions: (B, R, *F), groups of features that belong together.
        targets: the attributions that are expected.
    """

    relevant: Field = None
    irrelevant: Field = None
    regions: Field = None
    targets: Field = None

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _as_tensor(getattr(self, field.name), field.name))
        sizes = {len(value) for value in self._given().values()} - {1}
        if len(sizes) > 1:
            raise AnnotationError(
                "annotations do not agree on the number of examples", expected="one number, or 1", got=sorted(sizes)
            )

    def _given(self) -> dict[str, Tensor]:
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}

    def take(self, index: Tensor) -> Annotation:
        """The annotations of the examples ``index`` (M,)."""
        return replace(self, **{k: v if len(v) == 1 else v[index.to(v.device)] for k, v in self._given().items()})

    def to(self, device: torch.device | str) -> Annotation:
        """The same on another device."""
        return replace(self, **{name: value.to(device) for name, value in self._given().items()})

    def __len__(self) -> int:
        return max((len(value) for value in self._given().values()), default=0)

    def known(self, name: str, like: Tensor) -> tuple[Tensor, Tensor]:
        """Field ``name`` for attributions ``like`` (B, *F).

        Returns:
            values broadcast to (B, *F) with 0 where unknown, and a boolean tensor of what is known.

        Raises:
            AnnotationError: the field was not given, or does not fit.
        """
        value: Any = getattr(self, name)
        if value is None:
            raise AnnotationError(
                f"this prior needs annotation.{name}",
                expected=f"Annotation({name}=...), shaped like the attributions {tuple(like.shape)}",
                got="an annotation with " + (", ".join(self._given()) or "nothing in it"),
            )
        full = _spread(value, like)
        if full is None:
            raise AnnotationError(
                f"annotation.{name} does not fit the attributions",
                expected=f"a shape that broadcasts to {tuple(like.shape)}, examples first",
                got=tuple(value.shape),
                mend="for one annotation that holds for every example, add a leading dimension of 1",
            )
        known = ~full.isnan()
        return torch.where(known, full, torch.zeros_like(full)), known


def needed(annotation: Annotation | None, name: str, like: Tensor) -> tuple[Tensor, Tensor]:
    """``annotation.known(name, like)``, with the same error when there is no annotation at all."""
    return (annotation or Annotation()).known(name, like)


def _spread(value: Tensor, like: Tensor) -> Tensor | None:
    """``value`` in the shape of ``like``: examples against examples, the rest broadcast; None where it does not fit."""
    missing = like.ndim - value.ndim
    if missing < 0 or len(value) not in (1, len(like)):
        return None
    shape = (len(value), *(1,) * missing, *value.shape[1:])
    if any(own not in (1, wanted) for own, wanted in zip(shape, like.shape, strict=True)):
        return None
    return value.to(like).reshape(shape).expand(like.shape)


def _as_tensor(value: Field, name: str) -> Tensor | None:
    if value is None or isinstance(value, Tensor):
        tensor = value
    elif not isinstance(value, Sequence) or not all(row is None or isinstance(row, Tensor) for row in value):
        raise AnnotationError(
            f"annotation.{name} cannot be read",
            expected="a tensor (B, *F), or a list of tensors (*F) and None",
            got=type(value).__name__,
            mend="torch.as_tensor(...)",
        )
    else:
        shapes = {tuple(row.shape) for row in value if row is not None}
        if len(shapes) != 1:
            raise AnnotationError(
                f"annotation.{name} cannot be stacked",
                expected="at least one tensor, all of one shape, None where there is no annotation",
                got=sorted(shapes),
            )
        given = [row if row is None or row.is_floating_point() else row.float() for row in value]
        like = next(row for row in given if row is not None)
        tensor = torch.stack([torch.full_like(like, torch.nan) if row is None else row for row in given])
    if tensor is not None and tensor.ndim == 0:
        raise AnnotationError(f"annotation.{name} has no example dimension", expected="(B, *F) or (1, *F)", got="()")
    if tensor is not None and tensor.is_floating_point() and bool(tensor.isinf().any()):
        raise AnnotationError(
            f"annotation.{name} holds infinite values", expected="finite values, NaN for unknown", got="inf"
        )
    return tensor
