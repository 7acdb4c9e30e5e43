"""Pictures to explain: no classes and no labels are needed, so any folder will do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rightly.core.errors import DataError
from rightly.data.pictures import SUFFIXES, read_header, read_pixels


def loose_pictures(folder: Path, shape: tuple[int, ...]) -> tuple[Tensor, list[str], list[str]]:
    """Every picture in a folder and its sub-folders, sorted by path, as the model reads them.

    Args:
        folder: to look in.
        shape: (C, H, W) of one example; pictures of another size are resized, as ``rightly fit`` does.

    Returns:
        (N, C, H, W) float32 in [0, 1], the paths below the folder, and notes for the user.
    """
    paths = _paths(folder)
    channels, size = shape[0], (shape[1], shape[2])
    headers = [read_header(path) for path in paths]
    coloured = [path for path, header in zip(paths, headers, strict=True) if not header.grey]
    if channels == 1 and coloured:
        raise DataError(
            "these images do not fit the model",
            expected="grey pictures, as it was trained on",
            got=f"{len(coloured)} coloured ones, for example {coloured[0].name}",
            mend="turn them grey first",
        )
    inputs = np.empty((len(paths), *shape), dtype=np.float32)
    for row, path in enumerate(paths):
        inputs[row] = read_pixels(path, grey=channels == 1, size=size)
    inputs /= 255
    resized = sum(header.size != size for header in headers)
    note = f"{resized} of {len(paths)} pictures were resized to {size[0]} x {size[1]} pixels (height x width)"
    names = [path.relative_to(folder).as_posix() for path in paths]
    return torch.from_numpy(inputs), names, [note] if resized else []


def _paths(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(
            f"{folder} is no folder of pictures",
            expected="a folder",
            got="a file" if folder.exists() else "nothing at that place",
            mend="this run was trained on images; check the path and its spelling",
        )
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix.lower() in SUFFIXES)
    if not paths:
        raise DataError(f"{folder} holds no pictures", expected=", ".join(SUFFIXES), got="none of them")
    return paths
