"""The axioms that a method can declare, each as a check on any method."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from contracts.agreement import evaluating
from contracts.problems import Problem, draws, initialised

#: float64: completeness as declared (core.registry.TRAITS), everything else to rounding
COMPLETE = 1e-10
ROUNDING = 1e-12


def explain(method: Any, model: Any, problem: Problem) -> Tensor:
    return method(model, problem.inputs, problem.labels, diagnostics=False, generator=draws(5)).attributions


def completeness_gap(method: Any, problem: Problem, reference: float) -> Tensor:
    """sum(phi) - (f(x) - f(reference)), counted without the library's own diagnostics: (B,)."""
    phi = explain(method, problem.model, problem)
    rows = torch.arange(len(problem.labels))
    with evaluating(problem.model), torch.no_grad():
        view = problem.space.open(problem.model, problem.inputs)
        own = view.rest(view.coordinates, rows)[rows, problem.labels]
        base = view.rest(torch.full_like(view.coordinates, reference), rows)[rows, problem.labels]
    return phi.flatten(1).sum(1) - (own - base)


def check_completeness(method: Any, problem: Problem, reference: float) -> float:
    """Raise ``AssertionError`` unless attributions add up to what they explain; returns the largest gap."""
    gap = float(completeness_gap(method, problem, reference).abs().max())
    assert gap <= COMPLETE, f"attributions miss what they explain by {gap:.1e}"
    return gap


class _Rotated(nn.Module):
    """W x + b as Q' (Q (W x + b)): other parameters, another depth, the same function."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        size = linear.out_features
        turn = torch.linalg.qr(torch.randn(size, size, generator=draws(1), dtype=torch.float64))[0]
        self.there, self.back = nn.Linear(linear.in_features, size).double(), nn.Linear(size, size).double()
        with torch.no_grad():
            self.there.weight.copy_(turn @ linear.weight)
            self.there.bias.copy_(turn @ linear.bias)
            self.back.weight.copy_(turn.T)
            self.back.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.back(self.there(x))


class _Spelled(nn.Module):
    """Softplus and tanh by other formulas."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.soft = isinstance(module, nn.Softplus)

    def forward(self, x: Tensor) -> Tensor:
        if self.soft:
            return torch.relu(x) + torch.log1p(torch.exp(-x.abs()))
        return 2 * torch.sigmoid(2 * x) - 1


def rewritten(model: nn.Sequential) -> nn.Sequential:
    """The same function of the input, made otherwise."""
    layers: list[nn.Module] = []
    for module in model:
        if isinstance(module, nn.Linear):
            layers.append(_Rotated(module))
        elif isinstance(module, nn.Softplus | nn.Tanh):
            layers.append(_Spelled(module))
        else:
            layers.append(module)
    return nn.Sequential(*layers)


def check_implementation_invariance(method: Any, problem: Problem) -> None:
    """Raise ``AssertionError`` unless equal functions get equal attributions."""
    other = rewritten(problem.model)
    with evaluating(problem.model), evaluating(other):
        assert torch.allclose(other(problem.inputs), problem.model(problem.inputs), rtol=0, atol=1e-12)
    _same(explain(method, other, problem), explain(method, problem.model, problem), "equal functions differ")


class Blinkered(nn.Module):
    """A model that sees its input through a mask."""

    def __init__(self, model: nn.Module, seen: Tensor) -> None:
        super().__init__()
        self.model, self.seen = model, seen

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x * self.seen)


def _parts(phi: Tensor, shape: torch.Size) -> Tensor:
    """What each feature got, (B, *F): of pairs (B, *F, *F), the size of all that it is part of."""
    if phi.ndim < 1 + 2 * len(shape):
        return phi
    sizes = phi.abs().reshape(len(phi), shape.numel(), shape.numel())
    return (sizes.sum(1) + sizes.sum(2)).reshape(-1, *shape)


def check_sensitivity(method: Any, problem: Problem) -> None:
    """Raise ``AssertionError`` unless features that the function ignores get exactly nothing, and others something."""
    seen = torch.ones(problem.inputs.shape[1:], dtype=torch.float64)
    seen.reshape(-1)[::3] = 0
    phi = _parts(explain(method, Blinkered(problem.model, seen), problem), seen.shape)
    assert not phi[:, seen == 0].any(), "a feature that the model ignores gets attribution"
    assert bool(phi[:, seen == 1].all()), "a feature that the model reads gets none"


class Mixed(nn.Module):
    """a f + b g."""

    def __init__(self, f: nn.Module, g: nn.Module, a: float, b: float) -> None:
        super().__init__()
        self.f, self.g, self.a, self.b = f, g, a, b

    def forward(self, x: Tensor) -> Tensor:
        return self.a * self.f(x) + self.b * self.g(x)


def check_linearity(method: Any, problem: Problem, other: nn.Module) -> None:
    """Raise ``AssertionError`` unless a sum of models gets the sum of their attributions."""
    found = explain(method, Mixed(problem.model, other, 2.0, -3.0), problem)
    parts = 2.0 * explain(method, problem.model, problem) - 3.0 * explain(method, other, problem)
    _same(found, parts, "the attributions of a sum are not the sum of the attributions")


class Symmetric(nn.Module):
    """A model that treats features 0 and 3 alike, and not linearly."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        a, b = x[:, 0], x[:, 3]
        together = torch.stack([a + b, a * b, torch.cos(a - b)], 1)
        return self.model(torch.cat([together, x[:, [1, 2, 4]]], 1))


def check_symmetry(method: Any, problem: Problem) -> None:
    """Raise ``AssertionError`` unless interchangeable features with equal values get equal attributions.

    Of pairs, those with the one feature get what those with the other get.
    """
    inputs = problem.inputs.clone()
    inputs[:, 3] = inputs[:, 0]
    alike = Problem(problem.name, problem.model, inputs, problem.labels, problem.space, problem.images)
    phi = explain(method, Symmetric(problem.model), alike)
    swapped = phi[:, [3, 1, 2, 0, 4, 5]]
    if phi.ndim == 3:
        swapped = swapped[:, :, [3, 1, 2, 0, 4, 5]]
    _same(swapped, phi, "interchangeable features are told apart")
    own = phi if phi.ndim == 2 else phi.diagonal(dim1=1, dim2=2)
    assert bool((own[:, 0] - own[:, 1]).abs().min() > 1e-6), "all features get the same, so that nothing was checked"


def check_pairs(method: Any, problem: Problem, alone: Any, tolerance: float = COMPLETE) -> None:
    """Raise ``AssertionError`` unless interactions are symmetric, and rows add up to what ``alone`` gives a feature.

    ``alone`` is None where they add up to nothing that has a name.
    """
    phi = explain(method, problem.model, problem)
    size = len(problem.shape)
    assert phi.shape == (len(problem.labels), *problem.shape, *problem.shape), f"interactions are {tuple(phi.shape)}"
    flat = phi.reshape(len(phi), phi[0].numel() // (n := torch.Size(problem.shape).numel()), n)
    _same(flat.mT, flat, "interactions depend on the order")
    if alone is None:
        return
    gap = (phi.flatten(1 + size).sum(-1) - explain(alone, problem.model, problem)).abs().max()
    assert gap <= tolerance, f"interactions miss the attributions that they make up by {float(gap):.1e}"


def another(model: nn.Sequential) -> nn.Module:
    """A model of the same kind with other parameters."""
    return initialised(copy.deepcopy(model), 77)


def _same(found: Tensor, expected: Tensor, problem: str) -> None:
    gap = float((found - expected).abs().max()) / max(float(expected.abs().max()), 1e-30)
    assert gap <= ROUNDING, f"{problem}, by {gap:.1e}"
