"""Slow, obvious versions of every method and prior: one example, one sample, one feature at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Single:
    """One example: its coordinates (with their graph), and the explained number as a function of coordinates."""

    coordinates: Tensor
    value: Callable[[Tensor], Tensor]

    def gradient(self, point: Tensor) -> Tensor:
        point = point if point.requires_grad else point.detach().requires_grad_()
        (found,) = torch.autograd.grad(self.value(point), point, create_graph=True)
        return found


def singles(model: nn.Sequential, inputs: Tensor, labels: Tensor, split: int = 0) -> list[Single]:
    """Every example on its own, seen from the input (``split=0``) or from the output of layer ``split - 1``.

    The model must be in eval mode.
    """
    head, tail = model[:split], model[split:]

    def value_of(label: int) -> Callable[[Tensor], Tensor]:
        return lambda point: tail(point[None])[0, label]

    return [
        Single(head(x[None])[0] if split else x, value_of(int(label))) for x, label in zip(inputs, labels, strict=True)
    ]


def gradient(example: Single) -> Tensor:
    return example.gradient(example.coordinates)


def input_x_gradient(example: Single) -> Tensor:
    return example.coordinates * example.gradient(example.coordinates)


def integrated_gradients(example: Single, baseline: Tensor, n_steps: int) -> Tensor:
    nodes, weights = np.polynomial.legendre.leggauss(n_steps)
    x, total = example.coordinates, torch.zeros_like(example.coordinates)
    for node, weight in zip(nodes, weights, strict=True):
        alpha = (node + 1) / 2
        total = total + weight / 2 * (x - baseline) * example.gradient(baseline + alpha * (x - baseline))
    return total


def expected_gradients(example: Single, references: Sequence[Tensor], alphas: Sequence[float]) -> Tensor:
    x, total = example.coordinates, torch.zeros_like(example.coordinates)
    for reference, alpha in zip(references, alphas, strict=True):
        total = total + (x - reference) * example.gradient(reference + float(alpha) * (x - reference))
    return total / len(references)


def recentred_gradients(
    example: Single, references: Sequence[Tensor], alphas: Sequence[float], everyone: Sequence[Tensor]
) -> Tensor:
    """Expected gradients whose every difference is corrected by an estimate of E x' that its own draw cannot sway.

    ``references`` were drawn in random order from ``everyone``, none twice: without draw j, the mean of the others and
    what is left over (everyone but them all) make up that estimate, each weighted so that E x' comes out.
    """
    x, total, k, n = example.coordinates, torch.zeros_like(example.coordinates), len(references), len(everyone)
    mean = sum(everyone) / n
    for j, (reference, alpha) in enumerate(zip(references, alphas, strict=True)):
        others = sum(r for i, r in enumerate(references) if i != j) / (k - 1)
        # given draw j, a draw among the others averages to (n mean - draw j) / (n - 1)
        estimate = ((n - 1) * others + reference) / n
        delta = x - mean + (estimate - reference)
        total = total + delta * example.gradient(reference + float(alpha) * (x - reference))
    return total / k


def product_quantile(share: float) -> float:
    """g with P(a b <= g) = share for a, b uniform: Newton's steps on g - g log g, which is concave, from the left."""
    g = share / 10 if share > 0 else 0.0
    for _ in range(200):
        g = min(max(g - (g - g * math.log(g) - share) / -math.log(g), 1e-300), 1 - 1e-16)
    return g


def strata(draws: Tensor) -> list[list[float]]:
    """Row by row, the j-th of k numbers in [0, 1) moved into the j-th of k equal parts of [0, 1)."""
    return [[(j + float(u)) / len(row) for j, u in enumerate(row)] for row in draws]


def hessian(example: Single, point: Tensor) -> Tensor:
    """Row by row: (p, p)."""
    point = point if point.requires_grad else point.detach().requires_grad_()
    (slope,) = torch.autograd.grad(example.value(point), point, create_graph=True)
    rows = []
    for entry in slope.flatten():
        (row,) = torch.autograd.grad(entry, point, create_graph=True, allow_unused=True)
        rows.append(torch.zeros_like(point).flatten() if row is None else row.flatten())
    return torch.stack(rows)


def hessian_products(example: Single, ways: Tensor) -> Tensor:
    """The whole matrix times each direction (K, *F), over sqrt(K)."""
    matrix, k = hessian(example, example.coordinates), len(ways)
    return torch.stack([(matrix @ way.flatten()).reshape(way.shape) / math.sqrt(k) for way in ways])


def gradient_differences(example: Single, ways: Tensor, step: float) -> Tensor:
    x, k = example.coordinates, len(ways)
    own = example.gradient(x)
    return torch.stack([(example.gradient(x + step * way) - own) / step / math.sqrt(k) for way in ways])


def interactions(example: Single, reference: Tensor, inner: float, outer: float) -> Tensor:
    """One draw of the two nested paths: (*F, *F)."""
    x = example.coordinates
    point = reference + inner * outer * (x - reference)
    delta, slope = (x - reference).flatten(), example.gradient(point).flatten()
    curve = hessian(example, point)
    found = torch.outer(delta, delta) * inner * outer * curve + torch.diag(delta * slope)
    return found.reshape(*x.shape, *x.shape)


def integrated_hessians(example: Single, baseline: Tensor, n_steps: int) -> Tensor:
    """The product of two Gauss-Legendre rules, node by node."""
    nodes, weights = np.polynomial.legendre.leggauss(n_steps)
    total: Tensor | float = 0.0
    for a, wa in zip((nodes + 1) / 2, weights / 2, strict=True):
        for b, wb in zip((nodes + 1) / 2, weights / 2, strict=True):
            total = total + wa * wb * interactions(example, baseline, a, b)
    assert isinstance(total, Tensor)
    return total


def smooth_grad(example: Single, noise: Sequence[Tensor], sigma: float) -> Tensor:
    x, total = example.coordinates, torch.zeros_like(example.coordinates)
    for standard in noise:
        total = total + example.gradient(x + sigma * (x.max() - x.min()) * standard)
    return total / len(noise)


def occlusion(example: Single, reference: Tensor, window: Sequence[int] | None, stride: Sequence[int] | None) -> Tensor:
    x = example.coordinates
    lost, covered = torch.zeros_like(x), torch.zeros_like(x)
    for places in _windows(tuple(x.shape), window, stride):
        without = x.clone()
        for place in places:
            without[place] = reference[place]
        loss = example.value(x) - example.value(without)
        for place in places:
            lost = lost + torch.zeros_like(x).index_put(tuple(torch.tensor([i]) for i in place), loss[None])
            covered[place] += 1
    return lost / covered


def _windows(
    shape: tuple[int, ...], window: Sequence[int] | None, stride: Sequence[int] | None
) -> list[list[tuple[int, ...]]]:
    """The places that each window covers; the last one along a dimension is pushed back inside."""
    if window is None:
        return [[place] for place in itertools.product(*map(range, shape))]
    assert stride is not None
    leading = shape[: len(shape) - len(window)]
    corners = []
    for size, wide, step in zip(shape[len(leading) :], window, stride, strict=True):
        starts, start = [], 0
        while start + wide < size:
            starts.append(start)
            start += step
        corners.append([*starts, size - wide])
    found = []
    for corner in itertools.product(*corners):
        spans = [range(a, a + w) for a, w in zip(corner, window, strict=True)]
        found.append(list(itertools.product(*map(range, leading), *spans)))
    return found


def grad_cam(example: Single, size: tuple[int, int]) -> Tensor:
    maps, slopes = example.coordinates, example.gradient(example.coordinates)
    heat = torch.zeros(maps.shape[1:], dtype=maps.dtype)
    for channel in range(len(maps)):
        heat = heat + slopes[channel].sum() / slopes[channel].numel() * maps[channel]
    return bilinear(torch.relu(heat), size)[None]


def bilinear(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlargement pixel by pixel, centres aligned, edge values repeated."""
    height, width = picture.shape
    rows = []
    for i in range(size[0]):
        row = []
        y = min(max((i + 0.5) * height / size[0] - 0.5, 0.0), height - 1.0)
        for j in range(size[1]):
            x = min(max((j + 0.5) * width / size[1] - 0.5, 0.0), width - 1.0)
            top, left = int(y), int(x)
            below, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = picture[top, left] * (1 - x + left) + picture[top, right] * (x - left)
            lower = picture[below, left] * (1 - x + left) + picture[below, right] * (x - left)
            row.append(upper * (1 - y + top) + lower * (y - top))
        rows.append(torch.stack(row))
    return torch.stack(rows)


# --- priors, one example at a time: phi (*F) -> a number ---


def l1(phi: Tensor) -> float:
    return sum(abs(float(value)) for value in phi.flatten())


def l2(phi: Tensor) -> float:
    return sum(float(value) ** 2 for value in phi.flatten())


def irrelevant(phi: Tensor, marked: Tensor) -> float:
    return sum(float(p) ** 2 for p, m in zip(phi.flatten(), marked.flatten(), strict=True) if m)


def independence(phi: Tensor, targets: Tensor, eps: float) -> float:
    pairs = [(p, t) for p, t in zip(phi.flatten().tolist(), targets.flatten().tolist(), strict=True) if t == t]
    inner, own, other = (
        sum(a * b for a, b in found) for found in (pairs, [(p, p) for p, _ in pairs], [(t, t) for _, t in pairs])
    )
    return inner**2 / (own * other + eps)


def ranking(phi: Tensor, relevant: Tensor) -> float:
    """Every pair of one inside and one outside."""
    pairs = list(zip(phi.flatten().tolist(), relevant.flatten().tolist(), strict=True))
    inside, outside = [p for p, r in pairs if r], [p for p, r in pairs if not r]
    return sum(max(o - i, 0.0) for i in inside for o in outside)


def concept_direction(phi: Tensor, direction: Tensor) -> float:
    """A direction of channels, the same at every place."""
    length = math.sqrt(sum(float(d) ** 2 for d in direction))
    return sum(float(d) / length * float(p) for d, row in zip(direction, phi, strict=True) for p in row.flatten()) ** 2


def match_targets(phi: Tensor, targets: Tensor) -> float:
    pairs = zip(phi.flatten(), targets.flatten(), strict=True)
    return sum((float(p) - float(t)) ** 2 for p, t in pairs if not math.isnan(t))


def group_contribution(phi: Tensor) -> float:
    """The first of the parts against the sum of the others, by two exponentials."""
    shares = []
    for relevant, *others in phi.reshape(-1, phi.shape[-1]).tolist():
        shares.append(math.exp(relevant) / (math.exp(relevant) + math.exp(sum(others))))
    return sum(shares) / len(shares)


def meta_features(phi: Tensor, meta: Tensor, weight: Tensor, bias: float) -> float:
    """With a linear predictor."""
    total = 0.0
    for value, known in zip(phi.flatten().tolist(), meta.tolist(), strict=True):
        total += abs(value - bias - sum(w * m for w, m in zip(weight.tolist(), known, strict=True)))
    return total


def energy(phi: Tensor, relevant: Tensor, positive: bool) -> float:
    sizes = [max(float(p), 0.0) if positive else abs(float(p)) for p in phi.flatten()]
    outside = sum(s for s, r in zip(sizes, relevant.flatten(), strict=True) if not r)
    return outside / sum(sizes)


def sign(phi: Tensor, signs: Tensor) -> float:
    wrong = 0.0
    for p, s in zip(phi.flatten().tolist(), signs.flatten().tolist(), strict=True):
        if (s > 0 and p < 0) or (s < 0 and p > 0):
            wrong += abs(p)
    return wrong


def total_variation(phi: Tensor, dims: int, standardize: bool, floor: float | None) -> float:
    picture = phi.reshape(-1, *phi.shape[phi.ndim - dims :]).sum(0)
    places = list(itertools.product(*map(range, picture.shape)))
    values = {place: float(picture[place]) for place in places}
    if standardize:
        mean = sum(values.values()) / len(values)
        spread = math.sqrt(sum((v - mean) ** 2 for v in values.values()) / len(values))
        divisor = max(spread, floor if floor is not None else 1 / math.sqrt(len(values)))
        values = {place: (v - mean) / divisor for place, v in values.items()}
    total = 0.0
    for place in places:
        for dim in range(dims):
            neighbour = (*place[:dim], place[dim] + 1, *place[dim + 1 :])
            if neighbour in values:
                total += abs(values[neighbour] - values[place])
    return total


def gini(importances: Sequence[float]) -> float:
    """The definition, over all pairs."""
    p, total = len(importances), sum(importances)
    if total == 0:
        return 0.0
    return sum(abs(a - b) for a in importances for b in importances) / (2 * p * total)


def sparsity(batch: Tensor) -> float:
    """Batch level: (B, *F) -> a number."""
    return 1 - gini(_mean_absolute(batch))


def graph_smoothness(batch: Tensor, adjacency: Tensor, kind: str = "unnormalized") -> float:
    """Batch level: v' L v with the explicit Laplacian, |L v|^2 with that of a random walk."""
    v = torch.tensor(_mean_absolute(batch), dtype=torch.float64)
    return float(smoothness_of(v, laplacian(adjacency.double(), kind), kind))


def smoothness_of(v: Tensor, matrix: Tensor, kind: str) -> Tensor:
    """(p,) and the Laplacian (p, p) -> ()."""
    return (matrix @ v).square().sum() if kind == "random-walk" else v @ matrix @ v


def laplacian(adjacency: Tensor, kind: str) -> Tensor:
    """D - W without loops at nodes, D^-1/2 (D - W) D^-1/2 or D^-1 (D - W), zero rows for nodes without edges."""
    links = adjacency - torch.diag(adjacency.diagonal())
    degrees = links.sum(1)
    plain = torch.diag(degrees) - links
    if kind == "unnormalized":
        return plain
    power = -0.5 if kind == "symmetric" else -1.0
    scale = torch.tensor([d**power if d > 0 else 0.0 for d in degrees.tolist()], dtype=adjacency.dtype)
    return scale[:, None] * plain * scale[None] if kind == "symmetric" else scale[:, None] * plain


def _mean_absolute(batch: Tensor) -> list[float]:
    flat = batch.flatten(1).abs()
    return [sum(float(row[i]) for row in flat) / len(flat) for i in range(flat.shape[1])]
