"""A folder of pictures too large for memory: read one by one, as they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError, DataError
from rightly.core.extras import require
from rightly.data.images import class_pictures
from rightly.data.noted import note_listing
from rightly.data.pictures import read_header, read_pixels


class PictureFolder(Dataset[tuple[Tensor, Tensor]]):
    """Pictures in colour, a sub-folder a class: items are ((3, size, size) in [0, 1], label).

    Args:
        folder: holds the class folders.
        size: height and width of the square that is cut out.
        resize: the shorter side is brought to this first; by default to ``size``.
        augmented: cut out a square anywhere and mirror every other picture, at random, drawn from PyTorch's default
            generator, which ``rt.fit`` seeds for every epoch; otherwise the square in the middle.

    Attributes:
        classes: the sub-folders' names, sorted; a label is an index in them.
        paths: (N,).
        labels: (N,) int64.
        notes: what was ignored, in words.

    Raises:
        DataError: a missing or empty folder, fewer than two classes, or fewer than five pictures in one; a damaged
            picture when it is read.
        ArgumentError: ``resize`` is below ``size``.
        MissingExtraError: Pillow is not installed.
    """

    def __init__(
        self, folder: str | Path, *, size: int = 224, resize: int | None = None, augmented: bool = False
    ) -> None:
        require("PIL.Image")
        self.size, self.resize = check_count("size", size), check_count("resize", size if resize is None else resize)
        if self.resize < self.size:
            raise ArgumentError(
                "a square is cut out of a larger picture",
                expected=f"resize >= {size}",
                got=resize,
                mend=f"resize={size}",
            )
        self.notes: list[str] = []
        found = class_pictures(Path(folder), None, self.notes)
        self.augmented, self.classes = augmented, tuple(found)
        self.paths = [path for paths in found.values() for path in paths]
        note_listing(f"pictures in {Path(folder).name}", self.paths)
        counts = torch.tensor([len(paths) for paths in found.values()])
        self.labels = torch.arange(len(found)).repeat_interleave(counts)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        path = self.paths[index]
        tall, wide = read_header(path).size
        scale = self.resize / min(tall, wide)
        shape = max(self.size, round(tall * scale)), max(self.size, round(wide * scale))
        pixels = read_pixels(path, grey=False, size=shape)
        draws = torch.rand(3, generator=torch.default_generator).tolist() if self.augmented else (0.5, 0.5, 1.0)
        top, left = (int(draw * (side - self.size + 1)) for draw, side in zip(draws, shape, strict=False))
        cut = pixels[:, top : top + self.size, left : left + self.size]
        if draws[2] < 0.5:
            cut = cut[:, :, ::-1]
        return torch.from_numpy(np.ascontiguousarray(cut)).float() / 255, self.labels[index]

    def tensors(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Some of the pictures at once: (R, 3, size, size) and (R,)."""
        return torch.stack([self[row][0] for row in rows]), self.labels[list(rows)]


def picture_folders(
    root: str | Path, *, size: int = 224, resize: int | None = None
) -> tuple[PictureFolder, PictureFolder, PictureFolder]:
    """The layout of ImageNet: ``train/<class>/*`` and ``val/<class>/*``, with the same classes.

    Returns:
        The training pictures augmented, the same as they are, and the validation pictures as they are.

    Raises:
        DataError: as ``PictureFolder``; or a folder is missing, or the classes differ.
    """
    folder = Path(root)
    missing = [name for name in ("train", "val") if not (folder / name).is_dir()]
    if missing:
        raise DataError(
            f"{folder} does not look like ImageNet",
            expected="folders 'train' and 'val', each with a sub-folder of pictures for every class",
            got=f"no folder '{missing[0]}'",
            mend="name the folder that holds both (rightly reproduce: --data-dir), validation pictures sorted by class",
        )
    train = PictureFolder(folder / "train", size=size, resize=resize, augmented=True)
    plain, validation = (PictureFolder(folder / name, size=size, resize=resize) for name in ("train", "val"))
    if train.classes != validation.classes:
        odd = sorted(set(train.classes) ^ set(validation.classes))
        raise DataError(
            f"the classes of {folder}/train and {folder}/val differ",
            expected="the same sub-folders in both",
            got=f"{len(odd)} only in one of them, such as '{odd[0]}'",
            mend="give both folders the same classes",
        )
    return train, plain, validation
