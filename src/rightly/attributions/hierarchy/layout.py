"""What the atoms of a hierarchy are, and which of them touch: words in a row, tiles of an image, related columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError, ShapeError

LayoutName = Literal["sequence", "signal", "image", "table"]


@dataclass(frozen=True)
class Layout:
    """Atoms of one example of shape (*F).

    Attributes:
        name: of the layout.
        shape: of the atoms: (T,), (rows, columns) of tiles, or (F,).
        edges: (E, 2), atoms that touch.
        regions: groups (R, A) bool -> (R, *F) bool, dimensions of size 1 standing for all of theirs.
    """

    name: LayoutName
    shape: tuple[int, ...]
    edges: Tensor
    regions: Callable[[Tensor], Tensor]


def layout_of(shape: tuple[int, ...], name: LayoutName | None, tile: int, neighbours: Tensor | None) -> Layout:
    """The layout of an example of this shape.

    Args:
        shape: (*F).
        name, tile, neighbours: as in ``rightly.hierarchy``.
    """
    check_count("tile", tile)
    if name is None:
        name = "table" if neighbours is not None else _USUAL.get(len(shape), "table")
    if name not in ("sequence", "signal", "image", "table"):
        raise ArgumentError("unknown layout", expected="'sequence', 'signal', 'image' or 'table'", got=repr(name))
    if (neighbours is not None) != (name == "table"):
        raise ArgumentError(
            "columns of a table have no order: which belong together must be said"
            if name == "table"
            else "only columns of a table are given neighbours",
            expected="layout='table' with neighbours=",
            got=f"layout={name!r}" + ("" if neighbours is None else " with neighbours="),
            mend="neighbours=rt.attributions.correlated(x_train) for a table, or layout='sequence' for words in a row",
        )
    if neighbours is not None:
        return _table(shape, neighbours)
    if name == "image":
        return _image(shape, tile)
    return _row(shape, name, tile)


#: by the number of an example's dimensions
_USUAL: dict[int, LayoutName] = {2: "sequence", 3: "image"}


def _row(shape: tuple[int, ...], name: LayoutName, tile: int) -> Layout:
    if len(shape) > 2 or (name == "signal" and not shape):
        raise ShapeError("the example is no row", expected="(T,), (T, E), or for signals (C, T)", got=shape)
    axis = len(shape) - 1 if name == "signal" else 0
    length = shape[axis]
    atoms = -(-length // tile)
    start = torch.arange(atoms - 1)

    def regions(groups: Tensor) -> Tensor:
        along = groups.repeat_interleave(tile, 1)[:, :length]
        return along.reshape(len(groups), *(length if d == axis else 1 for d in range(len(shape))))

    return Layout(name, (atoms,), torch.stack([start, start + 1], 1), regions)


def _image(shape: tuple[int, ...], tile: int) -> Layout:
    if len(shape) not in (2, 3):
        raise ShapeError("the example is no image", expected="(C, H, W) or (H, W)", got=shape)
    height, width = shape[-2:]
    tiles = (-(-height // tile), -(-width // tile))
    number = torch.arange(tiles[0] * tiles[1]).reshape(tiles)
    # all eight neighbours touch, as in the published code
    pairs = [
        (number[:-1], number[1:]),
        (number[:, :-1], number[:, 1:]),
        (number[:-1, :-1], number[1:, 1:]),
        (number[:-1, 1:], number[1:, :-1]),
    ]
    edges = torch.cat([torch.stack([a.flatten(), b.flatten()], 1) for a, b in pairs])

    def regions(groups: Tensor) -> Tensor:
        grid = groups.reshape(-1, *tiles).repeat_interleave(tile, 1).repeat_interleave(tile, 2)
        return grid[:, :height, :width].reshape(len(groups), *(1,) * (len(shape) - 2), height, width)

    return Layout("image", tiles, edges, regions)


def _table(shape: tuple[int, ...], neighbours: Tensor) -> Layout:
    if len(shape) != 1 or neighbours.shape != (shape[0], shape[0]) or neighbours.dtype != torch.bool:
        raise ShapeError(
            "neighbours tell which columns belong together",
            expected=f"bool ({shape[0]}, {shape[0]}) for an example of {shape}",
            got=f"{neighbours.dtype} {tuple(neighbours.shape)}",
        )
    edges = (neighbours | neighbours.T).triu(1).nonzero()
    return Layout("table", shape, edges, lambda groups: groups)


def correlated(rows: Tensor, *, least: float = 0.3) -> Tensor:
    """Which columns belong together, (F, F) bool: those whose correlation is at least ``least`` in size, and for each
    column the one that it is most correlated with, so that none is left alone.

    Args:
        rows: (N, F), N examples, such as the training rows. A constant column is correlated with none.
        least: in [0, 1].
    """
    if rows.ndim != 2 or len(rows) < 2 or rows.shape[1] < 2 or not bool(rows.isfinite().all()):
        raise ShapeError("correlations are of a table", expected="finite (N, F), N > 1, F > 1", got=tuple(rows.shape))
    if not 0 <= least <= 1:
        raise ArgumentError("unusable correlation", expected="in [0, 1]", got=least)
    centred = rows.double() - rows.double().mean(0)
    sizes = centred.norm(dim=0)
    scaled = centred / torch.where(sizes > 0, sizes, torch.ones_like(sizes))
    found = (scaled.T @ scaled).abs().fill_diagonal_(-1.0)
    near = found >= max(least, torch.finfo(torch.float32).eps)
    near[torch.arange(len(found)), found.argmax(1)] = True
    return near | near.T
