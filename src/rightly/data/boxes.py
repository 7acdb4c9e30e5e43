"""Regions drawn as boxes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rightly.core.errors import AnnotationError


def box_masks(boxes: Sequence[Tensor | None], height: int, width: int) -> Tensor:
    """Boxes as masks, for ``rt.Annotation(relevant=...)`` or ``irrelevant=``: (N, 1, H, W) float32, 1 inside any box.

    Args:
        boxes: for each picture (K, 4) of left, top, right, bottom in pixels, right and bottom excluded; fractions are
            widened to whole pixels, and what lies outside of the picture is cut off. K = 0 is a picture known to have
            none; ``None`` one of which nothing is known, whose mask is NaN.
        height, width: of the pictures.

    Errors:
        AnnotationError: other shapes, or a box that ends before it starts.
    """
    masks = torch.zeros(len(boxes), 1, height, width)
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    for mask, given in zip(masks[:, 0], boxes, strict=True):
        if given is None:
            mask.fill_(torch.nan)
            continue
        if given.ndim != 2 or given.shape[1] != 4 or bool((given[:, :2] > given[:, 2:]).any()):
            raise AnnotationError(
                "these are not boxes",
                expected="(K, 4): left, top, right, bottom, with left <= right and top <= bottom",
                got=tuple(given.shape) if given.ndim != 2 or given.shape[1] != 4 else given.tolist(),
                mend="corners in pixels, the upper left one first; None for a picture without boxes",
            )
        for left, top, right, bottom in _whole(given):
            mask[(rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)] = 1
    return masks


def _whole(boxes: Tensor) -> list[list[float]]:
    ends: list[list[float]] = torch.cat([boxes[:, :2].floor(), boxes[:, 2:].ceil()], 1).tolist()
    return ends
