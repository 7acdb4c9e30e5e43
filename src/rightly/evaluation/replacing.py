"""What a model answers when some features of each example are not known: three ways to replace them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from rightly.core.errors import ShapeError

#: rows (M, F) -> outputs (M,) or (M, 1); of a classifier (M, C)
Predict = Callable[[Any], Any]

#: added to the variances, as published, so that features that repeat each other can be imputed
_RIDGE = 1e-6


class Replacing:
    """Outputs of examples whose replaced features come from the background.

    Args:
        predict: see ``ablation``.
        inputs: (N, F).
        background: (T, F), of the same type and device.
        drawn: (K,), numbers of the background rows that ``resample`` puts in.
        chunk_size: rows a pass.
    """

    def __init__(self, predict: Predict, inputs: Tensor, background: Tensor, drawn: Tensor, chunk_size: int) -> None:
        self.predict, self.inputs, self.chunk_size = predict, inputs, chunk_size
        self.rows, self._background = background[drawn], background
        self.mean = background.double().mean(0)

    @cached_property
    def covariance(self) -> Tensor:
        """(F, F), which only ``impute`` asks for: of many features it is large."""
        exact = self._background.double()
        found = torch.cov(exact.T).reshape(2 * exact.shape[1:])
        return found + _RIDGE * torch.eye(len(found), dtype=exact.dtype, device=exact.device)

    def __call__(self, how: str, replaced: Tensor) -> Tensor:
        """Outputs (N, C) in double precision; C is 1 where ``predict`` gives one number.

        Args:
            how: ``mask``, ``resample`` or ``impute``.
            replaced: (N, F), True where a feature is replaced.
        """
        fill, rows_each = {
            "mask": (self._mask, 1),
            "resample": (self._resample, len(self.rows)),
            "impute": (self._impute, len(self.mean)),
        }[how]
        at_once = max(1, self.chunk_size // rows_each)
        parts = zip(self.inputs.split(at_once), replaced.split(at_once), strict=True)
        return torch.cat([self._outputs(fill(x, part)).unflatten(0, (len(x), -1)).mean(1) for x, part in parts])

    def _mask(self, x: Tensor, replaced: Tensor) -> Tensor:
        return torch.where(replaced, self.mean.to(x), x)

    def _resample(self, x: Tensor, replaced: Tensor) -> Tensor:
        """(n * K, F), the K versions of an example together."""
        return torch.where(replaced[:, None], self.rows, x[:, None]).flatten(0, 1)

    def _impute(self, x: Tensor, replaced: Tensor) -> Tensor:
        """The conditional mean of a Gaussian, m + C_ru C_uu^-1 (x_u - m_u), u being the features that stay.

        Rows and columns of replaced features become those of the identity, so that every example has a system of one
        size and all are solved at once; such a feature then weighs nothing.
        """
        stays = (~replaced).double()
        system = self.covariance * stays[:, :, None] * stays[:, None, :] + torch.diag_embed(1 - stays)
        off = stays * (x.double() - self.mean)
        weights = torch.cholesky_solve(off[:, :, None], torch.linalg.cholesky(system))[:, :, 0]
        return torch.where(replaced, (self.mean + weights @ self.covariance).to(x), x)

    def _outputs(self, rows: Tensor) -> Tensor:
        found = torch.as_tensor(self.predict(rows))
        if found.ndim not in (1, 2) or len(found) != len(rows):
            raise ShapeError(
                "numbers are ablated",
                expected=f"({len(rows)},), ({len(rows)}, 1) or ({len(rows)}, classes)",
                got=tuple(found.shape),
            )
        return found.reshape(len(rows), -1).to(self.inputs.device, torch.float64)
