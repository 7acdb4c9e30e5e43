"""The axioms of attribution as measurements on any model and method, each beside what a blind method would show.

Sundararajan, Taly, Yan (2017) for completeness, sensitivity, implementation invariance and linearity; Erion et al.
(2021) for symmetry. Every measurement changes the model around the user's, never the user's own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rightly.core import seeding
from rightly.core.batch import Inputs, Model, outputs_of
from rightly.core.errors import ArgumentError
from rightly.core.scalar import explained
from rightly.core.types import Centre, Draw, Reference, View
from rightly.evaluation.explainer import Explainer, features, in_input_space, read

#: share of the features that a model is made to ignore; pairs of features that are made interchangeable
_IGNORED, _PAIRS = 0.25, 4
#: the weights of the two models in a sum
_SUM = (2.0, -3.0)
#: a rewritten model may differ from the model by so many roundings of its largest output
_ROUNDINGS = 2**14


@dataclass(frozen=True)
class Violation:
    """How far explanations are from an axiom.

    Attributes:
        values: (B,), the distance of each example, none negative, in the unit of the attributions.
        scale: mean distance that a method would show that knows nothing of the axiom, in the same unit.
    """

    values: Tensor
    scale: float

    @property
    def relative(self) -> Tensor:
        """(B,): 0 where the axiom holds, about 1 for a method that knows nothing of it; NaN without a scale."""
        if self.scale > 0:
            return self.values / self.scale
        return torch.where(self.values == 0, self.values, torch.nan)

    @property
    def mean(self) -> float:
        """Over the examples, relative."""
        return float(self.relative.mean())

    @property
    def largest(self) -> float:
        """Over the examples, relative."""
        return float(self.relative.max())


def completeness(explainer: Explainer, model: Model, inputs: Inputs) -> Violation:
    """|sum(phi) - (f(x) - E f(x'))|; the scale is the mean of |f(x) - E f(x')|, which no attribution at all misses."""
    found = explainer.result(model, inputs)
    if found.completeness_gap is None:
        raise ArgumentError("the method gives no completeness gap", got=repr(explainer.method))
    gap = found.completeness_gap
    wanted = found.attributions.flatten(1).sum(1) - gap
    return Violation(gap.abs(), float(wanted.abs().mean()))


def sensitivity(explainer: Explainer, model: Model, inputs: Inputs, *, seed: int = 0) -> Violation:
    """Absolute attribution of features that the model is made to ignore (the mean of the examples stands for them).

    A random quarter of the features is ignored. The scale is what they would get if attribution were spread evenly.
    """
    in_input_space(explainer)
    x = _several(inputs)
    count = x[0].numel()
    order = torch.randperm(count, generator=seeding.generator("ignored features", seed))
    ignored = torch.zeros(count, dtype=torch.bool)
    ignored[order[: max(1, int(_IGNORED * count))]] = True
    gone, fill = ignored.reshape(x.shape[1:]).to(x.device), x.mean(0)
    blind = around([model], lambda points: outputs_of(model(torch.where(gone, fill.to(points), points))))
    sizes = explainer(blind, x).abs().flatten(1)
    share = float(ignored.double().mean())
    return Violation(sizes[:, ignored.to(sizes.device)].sum(1), share * float(sizes.sum(1).mean()))


def implementation_invariance(explainer: Explainer, model: Model, inputs: Inputs, *, seed: int = 0) -> Violation:
    """Distance between the explanations of the model and of the same function written otherwise (``rewritten``).

    The scale is the distance of unrelated explanations of the same sizes.
    """
    in_input_space(explainer)
    x = features(inputs)
    other = rewritten(model, x, seed=seed)
    return _apart(explainer(model, x), explainer(other, x))


def linearity(explainer: Explainer, model: Model, inputs: Inputs, *, other: Model | None = None) -> Violation:
    """Distance between phi(a f + b g) and a phi(f) + b phi(g), f and g being the explained numbers of two models.

    Args:
        other: g, with inputs and outputs like the model's; by default the model on inputs rolled by one place along
            their last dimension. The scale is as for implementation invariance.
    """
    in_input_space(explainer)
    x = features(inputs)
    second = other or around([model], lambda points: outputs_of(model(points.roll(1, -1))))
    a, b = _SUM
    output = explainer.method.output

    def total(outputs: Tensor, labels: Tensor | None) -> Tensor:
        return sum(c * explained(outputs[:, k], labels, labels, output) for k, c in enumerate(_SUM))  # type: ignore[return-value]

    both = around([model, second], lambda points: torch.stack([outputs_of(f(points)) for f in (model, second)], 1))
    return _apart(explainer.changed(output=total)(both, x), a * explainer(model, x) + b * explainer(second, x))


def symmetry(explainer: Explainer, model: Model, inputs: Inputs, *, seed: int = 0) -> Violation:
    """|phi_i - phi_j| of features that the model is made to treat alike, at examples and references where they agree.

    Four random pairs; the model is averaged with itself after a swap. The scale is the distance of two unrelated
    attributions of these sizes.
    """
    in_input_space(explainer)
    x = _several(inputs)
    generator = seeding.generator("interchangeable features", seed)
    values, scale = x.new_zeros(len(x)), 0.0
    for _ in range(_PAIRS):
        i, j = torch.randperm(x[0].numel(), generator=generator)[:2].tolist()
        found = _of_pair(explainer, model, x, i, j)
        values, scale = values + found.values / _PAIRS, scale + found.scale / _PAIRS
    return Violation(values, scale)


def _of_pair(explainer: Explainer, model: Model, x: Tensor, i: int, j: int) -> Violation:
    def swapped(points: Tensor) -> Tensor:
        flat = points.flatten(1)
        order = torch.arange(flat.shape[1], device=flat.device)
        order[i], order[j] = j, i
        return flat[:, order].reshape(points.shape)

    alike = around([model], lambda points: (outputs_of(model(points)) + outputs_of(model(swapped(points)))) / 2)
    reference = getattr(explainer.method, "reference", None)
    asked = explainer if reference is None else explainer.changed(reference=_Tied(reference, i, j))
    phi = asked(alike, _tied(x, i, j)).flatten(1)
    return _apart(phi[:, i : i + 1], phi[:, j : j + 1])


@dataclass(frozen=True)
class _Tied:
    """A reference whose draws have feature j equal to feature i, so that nothing but the method can tell them apart."""

    reference: Reference
    i: int
    j: int

    def draw(self, view: View, n_samples: int, generator: torch.Generator) -> Draw:
        found = self.reference.draw(view, n_samples, generator)
        centre = found.centre
        if centre is not None:
            known = centre.mean
            centre = Centre(lambda: _tied(known(), self.i, self.j), centre.start, centre.factor)
        return Draw(found.n, lambda rows, samples: _tied(found.gather(rows, samples), self.i, self.j), centre)


def _tied(points: Tensor, i: int, j: int) -> Tensor:
    flat = points.flatten(1).clone()
    flat[:, j] = flat[:, i]
    return flat.reshape(points.shape)


def _apart(first: Tensor, second: Tensor) -> Violation:
    """Euclidean distances, and those of unrelated vectors of the same lengths (Pythagoras)."""
    a, b = first.flatten(1), second.flatten(1)
    return Violation((a - b).norm(dim=1), float(torch.hypot(a.norm(dim=1), b.norm(dim=1)).mean()))


def _several(inputs: Inputs) -> Tensor:
    x = features(inputs)
    if x[0].numel() < 2:
        raise ArgumentError("there is nothing to tell apart", expected="at least 2 features", got=x[0].numel())
    return x


class _Around(nn.Module):
    """A function of models, which are held as parts so that they are read as a model is: dropout off."""

    def __init__(self, models: list[Model], function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.parts = nn.ModuleList([model for model in models if isinstance(model, nn.Module)])
        self.function = function

    def forward(self, points: Tensor) -> Tensor:
        return self.function(points)


def around(models: list[Model], function: Callable[[Tensor], Tensor]) -> nn.Module:
    """``function`` (which calls ``models``) as a model."""
    return _Around(models, function)


def rewritten(model: Model, inputs: Tensor, *, seed: int = 0) -> nn.Module:
    """The same function with other parts: every linear layer and convolution becomes two that turn and turn back,
    every ReLU is written as (x + |x|) / 2, and the input is halved after it was doubled.

    Raises:
        ArgumentError: the result differs from the model by more than rounding (a model that reads its own layers).
    """
    inner: Model = model
    if isinstance(model, nn.Module):
        inner = copy.deepcopy(model)
        for parent in list(inner.modules()):
            for name, child in list(parent.named_children()):
                if (new := _rewritten_part(child, seed, name)) is not None:
                    setattr(parent, name, new)
        inner = _rewritten_part(inner, seed, "") or inner
    found = around([inner], lambda points: outputs_of(inner((2 * points) / 2)))
    expected = read(model, inputs)
    try:
        outputs = read(found, inputs)
    except (AttributeError, TypeError) as problem:
        raise ArgumentError(
            "the model could not be written otherwise",
            expected="a model that is the function of its layers",
            got=f"one that reads its own layers ({problem})",
        ) from problem
    allowed = _ROUNDINGS * torch.finfo(expected.dtype).eps * max(1.0, float(expected.abs().max()))
    if not bool(((outputs - expected).abs() <= allowed).all()):
        raise ArgumentError(
            "the model could not be written otherwise",
            expected="a model that is the function of its layers, with the same outputs at every call",
            got=f"outputs that differ by {float((outputs - expected).abs().max()):.1e}",
        )
    return found


_Weighted = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


class _SpelledReLU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x + x.abs()) / 2


def _rewritten_part(layer: nn.Module, seed: int, name: str) -> nn.Module | None:
    """The layer otherwise; None for one that is left as it is (subclasses too: somebody may read their weights)."""
    kind = type(layer)
    if kind is nn.ReLU:
        return _SpelledReLU()
    if isinstance(layer, nn.Linear) and kind is nn.Linear:
        size = layer.out_features
        return _turned_and_back(layer, nn.Linear(size, size, bias=False, device="meta"), seed, name)
    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    if isinstance(layer, convolutions) and kind in convolutions and layer.groups == 1:
        size = layer.out_channels
        return _turned_and_back(layer, kind(size, size, 1, bias=False, device="meta"), seed, name)
    return None


def _turned_and_back(layer: _Weighted, back: _Weighted, seed: int, name: str) -> nn.Module:
    """The layer with its outputs turned by a random rotation, then ``back``, which turns them again."""
    weight, size = layer.weight, len(layer.weight)
    draws = torch.randn(size, size, generator=seeding.generator("rotation", seed, name), dtype=torch.float64)
    turn = torch.linalg.qr(draws)[0].to(weight)
    there = copy.deepcopy(layer)
    with torch.no_grad():
        there.weight.copy_(torch.tensordot(turn, weight, 1))
        if layer.bias is not None and there.bias is not None:
            there.bias.copy_(turn @ layer.bias)
    shape = (size, size, *(1,) * (weight.ndim - 2))
    back.weight = nn.Parameter(turn.T.reshape(shape).clone(), requires_grad=weight.requires_grad)
    return nn.Sequential(there, back.train(layer.training))
