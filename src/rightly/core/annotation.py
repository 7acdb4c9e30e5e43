"""What a person knows about the right reasons, example by example; any example may be without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from rightly.core.errors import AnnotationError

Field = Tensor | Sequence[Tensor | None] | None
#: how a region is brought to another grid: see ``Annotation.resized``
Resize = Literal["area", "any"]

_FIELDS = ("relevant", "irrelevant", "regions", "targets")


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
        per_class: the fields that differ by the class explained: their second dimension counts the classes.
    """

    relevant: Field = None
    irrelevant: Field = None
    regions: Field = None
    targets: Field = None
    #: names; of any type, so that ``Annotation(**{field: tensor})`` may be checked
    per_class: Any = ()

    def __post_init__(self) -> None:
        for name in _FIELDS:
            object.__setattr__(self, name, _as_tensor(getattr(self, name), name))
        object.__setattr__(self, "per_class", _named_fields(self.per_class))
        for name in self.per_class:
            value = self.given().get(name)
            if value is not None and value.ndim < 2:
                raise AnnotationError(
                    f"annotation.{name} has no dimension of classes",
                    expected="(B, classes, *F)",
                    got=tuple(value.shape),
                )
        sizes = {len(value) for value in self.given().values()} - {1}
        if len(sizes) > 1:
            raise AnnotationError(
                "annotations do not agree on the number of examples", expected="one number, or 1", got=sorted(sizes)
            )

    def given(self) -> dict[str, Tensor]:
        """The fields that there are, by name."""
        return {name: getattr(self, name) for name in _FIELDS if getattr(self, name) is not None}

    def take(self, index: Tensor) -> Annotation:
        """The annotations of the examples ``index`` (M,)."""
        return replace(self, **{k: v if len(v) == 1 else v[index.to(v.device)] for k, v in self.given().items()})

    def to(self, device: torch.device | str) -> Annotation:
        """The same on another device."""
        return replace(self, **{name: value.to(device) for name, value in self.given().items()})

    def __len__(self) -> int:
        return max((len(value) for value in self.given().values()), default=0)

    def resized(self, names: Sequence[str], spatial: Sequence[int], rule: Resize = "any") -> Annotation:
        """These fields at another spatial size: a feature map's, which sees the picture on a coarser grid.

        Each cell of the new grid lies over the part of the old one at the same relative place (not over all that a
        convolution's receptive field may see). NaN stays out of it: a cell is unknown where all it lies over is.

        Args:
            names: of the fields; those that are missing stay so.
            spatial: the size, one to three dimensions. The fields' last dimensions are taken for theirs.
            rule: ``"any"`` takes the largest value under a cell: it is marked if any of it is. ``"area"`` takes the
                mean: the share of it that is marked.
        """
        if rule not in get_args(Resize):
            raise AnnotationError("unknown rule", expected=", ".join(get_args(Resize)), got=repr(rule))
        given = self.given()
        return replace(self, **{name: _resized(given[name], tuple(spatial), rule) for name in names if name in given})

    def known(self, name: str, like: Tensor, target: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Field ``name`` for attributions ``like`` (B, *F).

        Args:
            target: (B,) the class explained, for fields that differ by it.

        Returns:
            values broadcast to (B, *F) with 0 where unknown, and a boolean tensor of what is known.

        Raises:
            AnnotationError: the field was not given, or does not fit.
        """
        value: Tensor | None = getattr(self, name)
        if value is None:
            raise AnnotationError(
                f"this prior needs annotation.{name}",
                expected=f"Annotation({name}=...), shaped like the attributions {tuple(like.shape)}",
                got="an annotation with " + (", ".join(self.given()) or "nothing in it"),
            )
        if name in self.per_class:
            value = _of_class(value, name, target)
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


def needed(
    annotation: Annotation | None, name: str, like: Tensor, target: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """``annotation.known(name, like, target)``, with the same error when there is no annotation at all."""
    return (annotation or Annotation()).known(name, like, target)


def _named_fields(names: Any) -> tuple[str, ...]:
    if isinstance(names, str | Tensor) or not set(names) <= set(_FIELDS):
        raise AnnotationError("fields are named in a list", expected=f"some of {_FIELDS}", got=repr(names))
    return tuple(names)


def _of_class(value: Tensor, name: str, target: Tensor | None) -> Tensor:
    """Of (B or 1, classes, *F), what holds for the class explained of every example: (B, *F)."""
    if target is None:
        raise AnnotationError(
            f"annotation.{name} differs by class, and no class is explained",
            expected="an attribution of one class of several, such as output='log_prob'",
            got="an output that is not of one class",
        )
    if len(value) not in (1, len(target)) or int(target.max()) >= value.shape[1]:
        raise AnnotationError(
            f"annotation.{name} does not fit the classes explained",
            expected=f"({len(target)} or 1, at least {int(target.max()) + 1} classes, *F)",
            got=tuple(value.shape),
        )
    classes = target.to(value.device)
    return value[torch.zeros_like(classes) if len(value) == 1 else torch.arange(len(classes)), classes]


def _resized(value: Tensor, spatial: tuple[int, ...], rule: Resize) -> Tensor:
    """(B, ..., *old) -> (B, ..., *spatial)."""
    dims = len(spatial)
    if not 1 <= dims <= 3 or value.ndim <= dims:
        raise AnnotationError(
            "this annotation has no such picture",
            expected=f"(B, ..., {dims} spatial dimensions)",
            got=tuple(value.shape),
        )
    if tuple(value.shape[-dims:]) == spatial:
        return value
    maps = (value if value.is_floating_point() else value.float()).reshape(-1, 1, *value.shape[-dims:])
    known = ~maps.isnan()
    cells: Tensor
    if rule == "any":
        pool = (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)[dims - 1]
        cells = pool(torch.where(known, maps, -torch.inf), spatial)
        cells = torch.where(cells.isinf(), torch.nan, cells)
    else:
        mean: Any = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[dims - 1]
        cells = mean(torch.where(known, maps, 0), spatial) / mean(known.to(maps), spatial)
    return cells.reshape(*value.shape[:-dims], *spatial)


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
