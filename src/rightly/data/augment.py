"""Pictures moved a little, anew every time they are read: augmentation for training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample
from torch.utils.data import Dataset

from rightly.core.checks import check_number
from rightly.core.errors import ShapeError


def moved(images: Tensor, degrees: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """Each picture rotated about its centre and then shifted; the edge is repeated outwards, values interpolated.

    Args:
        images: (B, C, H, W).
        degrees: (B,), counter-clockwise.
        right, down: (B,), pixels.

    Returns:
        (B, C, H, W).
    """
    tall, wide = images.shape[-2:]
    angle = degrees.to(images) * (math.pi / 180)
    cosine, sine = angle.cos(), angle.sin()
    # from a place in the new picture to the one it is read from, both from -1 to 1
    x, y = -2 * right.to(images) / wide, -2 * down.to(images) / tall
    across = torch.stack([cosine, -sine * tall / wide, cosine * x - sine * y * tall / wide], 1)
    along = torch.stack([sine * wide / tall, cosine, sine * x * wide / tall + cosine * y], 1)
    grid = affine_grid(torch.stack([across, along], 1), list(images.shape), align_corners=False)
    return grid_sample(images, grid, padding_mode="border", align_corners=False)


class Moved(Dataset[tuple[Tensor, Tensor]]):
    """Labelled pictures, each rotated and shifted at random whenever it is read.

    The draws are uniform and from PyTorch's default generator, which ``rt.fit`` seeds for every epoch.

    Args:
        images: (N, C, H, W).
        labels: (N,).
        shift: most pixels, in each direction.
        rotation: most degrees, either way.
    """

    def __init__(self, images: Tensor, labels: Tensor, *, shift: float = 3.0, rotation: float = 15.0) -> None:
        if images.ndim != 4 or len(images) != len(labels):
            raise ShapeError(
                "only labelled pictures can be moved",
                expected="images (N, C, H, W) and labels (N,)",
                got=(tuple(images.shape), tuple(labels.shape)),
                mend="add the dimension of channels: images[:, None]",
            )
        self.images, self.labels = images, labels
        self.shift = check_number("shift", shift, positive=False)
        self.rotation = check_number("rotation", rotation, positive=False)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.__getitems__([index])[0]

    def __getitems__(self, index: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """A whole batch at once, which is what a loader asks for."""
        rows = torch.as_tensor(index)
        degrees, right, down = 2 * torch.rand(3, len(rows), generator=torch.default_generator) - 1
        images = moved(self.images[rows], self.rotation * degrees, self.shift * right, self.shift * down)
        return list(zip(images, self.labels[rows], strict=True))
