"""Peak counts of filtered maps, and the parameter whose counts are nearest (Singh, Ha, Yu 2022; Ribli et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rightly.core.errors import ShapeError
from rightly.spaces.filters import high_pass


def map_kernels(low: Tensor, size: int = 3) -> Tensor:
    """Four small kernels (4, size, size) of an orthogonal wavelet: LL, LH, HL, HH.

    Of each product of filters (rows times columns) the part with the largest variance, as in the published code; all
    but LL are centred, so that they do not see a constant.
    """
    low = low.detach().double()
    if low.ndim != 1 or len(low) < 2:
        raise ShapeError("a low-pass filter is a row of numbers", expected="(L,)", got=tuple(low.shape))
    pair = [low, high_pass(low)]
    found: list[Tensor] = []
    for rows in pair:
        for columns in pair:
            product = F.pad(torch.outer(rows, columns), [max(size - len(low), 0), 0] * 2)
            patches = product.unfold(0, size, 1).unfold(1, size, 1).reshape(-1, size, size)
            best = patches[patches.flatten(1).var(1).argmax()]
            found.append(best - best.mean() if found else best)
    return torch.stack(found)


def peak_counts(maps: Tensor, kernels: Tensor, edges: Tensor) -> Tensor:
    """How many peaks of each height the filtered maps have.

    Args:
        maps: (N, height, width).
        kernels: (K, size, size).
        edges: (K, E) increasing heights, for each kernel its own.

    Returns:
        (N, K * (E + 1)): of each kernel the peaks below the first edge, between two, and above the last. A peak is
        higher than its 8 neighbours; those at the border do not count.
    """
    if maps.ndim != 3 or edges.shape[:1] != kernels.shape[:1]:
        raise ShapeError(
            "peaks are counted in maps, between edges of every kernel",
            expected="maps (N, height, width), edges (K, E) for kernels (K, size, size)",
            got=(tuple(maps.shape), tuple(kernels.shape), tuple(edges.shape)),
        )
    counts = []
    for kernel, own in zip(kernels.to(maps), edges.to(maps), strict=True):
        heights = F.conv2d(maps[:, None], kernel[None, None], padding=kernel.shape[0] // 2)
        inner = heights[:, :, 1:-1, 1:-1]
        around = F.unfold(heights, 3).unflatten(1, (9, 1))
        around = torch.cat([around[:, :4], around[:, 5:]], 1).amax(1)
        tops = inner.flatten(2) > around
        bins = torch.bucketize(inner.flatten(1).contiguous(), own.contiguous())
        count = maps.new_zeros(len(maps), own.numel() + 1)
        counts.append(count.scatter_add(1, bins, tops.flatten(1).to(maps)))
    return torch.cat(counts, 1)


@dataclass(frozen=True, eq=False)
class NearestCounts:
    """The parameter whose mean counts are nearest, in units of how much counts spread (chi squared).

    Attributes:
        parameters: (P, D).
        means: (P, F) counts at each.
        precision: (F, F) inverse of the counts' covariance within a parameter, averaged over parameters.
    """

    parameters: Tensor
    means: Tensor
    precision: Tensor

    @classmethod
    def fit(cls, counts: Tensor, parameters: Tensor) -> NearestCounts:
        """From counts (N, F) of maps with known parameters (N, D), several maps each."""
        if parameters.ndim != 2 or len(parameters) != len(counts):
            raise ShapeError("a parameter for every map", expected=(len(counts), "D"), got=tuple(parameters.shape))
        known, which = parameters.unique(dim=0, return_inverse=True)
        counts = counts.double()
        means = torch.stack([counts[which == p].mean(0) for p in range(len(known))])
        off = counts - means[which]
        free = len(counts) - len(known)
        if free < 1:
            raise ShapeError("counts spread", expected="several maps of a parameter", got=f"{len(counts)} maps")
        covariance = off.T @ off / free
        # bins that hardly ever count are noise: they are not taken for certain
        covariance.diagonal().add_(1e-3 * covariance.diagonal().mean())
        return cls(known, means, torch.linalg.inv(covariance))

    def __call__(self, counts: Tensor) -> Tensor:
        """(N, F) -> (N, D)."""
        off = counts.double()[:, None] - self.means
        distance = torch.einsum("npf,fg,npg->np", off, self.precision, off)
        return self.parameters[distance.argmin(1)]
