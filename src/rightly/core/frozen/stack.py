"""The same passes for a plain stack of linear layers and ReLUs, where what is saved beside the products matters most.

No operation has to be seen: the layers are known. The batch of the task and the points go through in one product a
layer, forwards; backwards each goes its own way; and both of a weight's gradients are written into one tensor.
Stacks of many models (``StackedLinear``) are products of blocks and otherwise the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rightly.core import autodiff
from rightly.core.intercept import Unsupported
from rightly.core.kernels.function import final
from rightly.core.stacked import StackedDropout, StackedLinear
from rightly.core.types import Read

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class FrozenStack:
    """``FrozenMasks`` for a plain stack at its inputs; see there.

    Args:
        model: a stack that ``fits``.
    """

    twice = False
    curved = False

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.start()

    def start(self, batch: Tensor | None = None) -> None:
        """Begin a step.

        Args:
            batch: of the task, to go through together with the points, or to be the points; then take what
                ``finish`` gives.
        """
        if not fits(self.model):
            raise Unsupported("the model is not a plain stack any more")
        self.layers = layers_of(self.model)
        self.batch = batch
        self.outputs: Tensor | None = None

    def finish(self) -> Tensor | None:
        """End the step: the model's outputs for the batch, with their graph, if they came along."""
        outputs, self.outputs, self.batch = self.outputs, None, None
        return outputs

    def gradient(self, read: Read, value_of: Read, points: Tensor) -> Tensor:
        """See ``rightly.core.types.Engine``; the layers are called here, not ``read``."""
        if torch.is_autocast_enabled(points.device.type):
            raise Unsupported("autocast changes the precision on the way")
        if points.requires_grad:
            raise Unsupported("the points themselves depend on parameters")
        batch = None if self.outputs is not None else self.batch
        work = _Work(self.layers, batch, points, value_of)
        gradient, outputs = _Function.apply(work, *work.parameters)  # type: ignore[no-untyped-call]
        self.outputs = outputs if self.outputs is None else self.outputs
        return gradient  # type: ignore[no-any-return]


def fits(model: nn.Module) -> bool:
    """Whether the model is a plain stack: linear layers, ReLUs, flattenings and dropouts in sequence, unwatched."""
    layers = list(_leaves(model))
    known = all(_known(layer) for layer in layers)
    watched = any("forward" in vars(m) or any(vars(m)[hooks] for hooks in _HOOKS) for m in model.modules())
    return known and not watched and isinstance(_first_product(layers), nn.Linear | StackedLinear)


def layers_of(model: nn.Module) -> list[nn.Module]:
    """Its linear layers and ReLUs, in order; what does nothing to a row of numbers is left out."""
    return [layer for layer in _leaves(model) if isinstance(layer, nn.Linear | StackedLinear | nn.ReLU)]


def _leaves(module: nn.Module) -> Any:
    if type(module) is nn.Sequential:
        for child in module:
            yield from _leaves(child)
    else:
        yield module


def _known(layer: nn.Module) -> bool:
    if type(layer) is nn.Flatten:
        return layer.start_dim == 1 and layer.end_dim == -1
    # a dropout does nothing while the model is read; where it is on, no batch of the task's goes through
    return type(layer) in (nn.Linear, StackedLinear, nn.ReLU, nn.Identity, nn.Dropout, StackedDropout)


def _first_product(layers: Sequence[nn.Module]) -> nn.Module | None:
    return next((layer for layer in layers if isinstance(layer, nn.Linear | StackedLinear)), None)


@dataclass(frozen=True)
class _Product:
    """A linear layer that ran: weight ([M,] in, out), the rows that went in, and the numbers of its parameters."""

    weight: Tensor
    rows: Tensor
    numbers: tuple[int | None, int | None]
    turned: bool


def _product(layer: Any, rows: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """Weight, bias and result of a linear layer or of many."""
    weight, bias = layer.weight, layer.bias
    if isinstance(layer, StackedLinear):
        return weight, bias, torch.bmm(rows, weight) if bias is None else torch.baddbmm(bias[:, None], rows, weight)
    return weight, bias, torch.mm(rows, weight.t()) if bias is None else torch.addmm(bias, rows, weight.t())


class _Work:
    """One joint pass; rows are ([M,] R, F), the batch's first, then the points'."""

    def __init__(self, layers: Sequence[nn.Module], batch: Tensor | None, points: Tensor, value_of: Read) -> None:
        self.parameters: list[Tensor] = []
        self.steps: list[_Product | Tensor] = []
        first = _first_product(layers)
        self.models = len(first.weight) if isinstance(first, StackedLinear) else None
        own = self._rows(points)
        width = first.weight.shape[1] if isinstance(first, nn.Linear | StackedLinear) else None
        if own.shape[-1] != width:
            raise Unsupported("the points are not rows of numbers")
        if batch is None or batch is points:
            rows, split = own, 0
        else:
            before = self._rows(batch)
            rows, split = torch.cat([before, own], -2), before.shape[-2]
        self.of_task = slice(0, split or None) if batch is not None else slice(0, 0)
        self.of_points = slice(split, None)
        self._run(layers, rows)
        self._explain(value_of, points)

    def _rows(self, inputs: Tensor) -> Tensor:
        flat = inputs.detach().reshape(len(inputs), -1)
        return flat if self.models is None else flat.reshape(self.models, -1, flat.shape[-1])

    @torch.no_grad()
    def _run(self, layers: Sequence[nn.Module], rows: Tensor) -> None:
        for layer in layers:
            if isinstance(layer, nn.ReLU):
                # in place of what the product made; what came in from outside stays as it is
                rows = rows.relu_() if self.steps and isinstance(self.steps[-1], _Product) else rows.relu()
                self.steps.append(rows)
                continue
            weight, bias, made = _product(layer, rows)
            numbers = self._number(weight), self._number(bias)
            turned = not isinstance(layer, StackedLinear)
            self.steps.append(_Product(weight.t() if turned else weight, rows, numbers, turned))
            rows = made
        self.rows = rows

    def _number(self, parameter: Tensor | None) -> int | None:
        if parameter is None or not parameter.requires_grad:
            return None
        known = [number for number, other in enumerate(self.parameters) if other is parameter]
        if known:
            return known[0]
        self.parameters.append(parameter)
        return len(self.parameters) - 1

    def _explain(self, value_of: Read, points: Tensor) -> None:
        mine = self.rows[..., self.of_points, :]
        self.shape = mine.shape
        self.leaf = mine.reshape(-1, mine.shape[-1]).requires_grad_()
        #: slope of the explained number with respect to the outputs, with a graph where that number bends
        self.slope = autodiff.gradient(value_of(self.leaf), self.leaf, create_graph=True)
        self.slopes, at_points = self._adjoint(self.slope.detach().reshape(self.shape), self.of_points, whole=True)
        self.gradient = at_points.reshape(points.shape)

    @torch.no_grad()
    def _adjoint(self, cotangent: Tensor, part: slice, *, whole: bool) -> tuple[list[Tensor], Tensor]:
        """Cotangents at the output of every product, last product first, and at the rows if ``whole``."""
        found = []
        last = next(number for number, step in enumerate(self.steps) if isinstance(step, _Product))
        for number in range(len(self.steps) - 1, -1, -1):
            step = self.steps[number]
            if isinstance(step, Tensor):
                cotangent = _masked(cotangent, step[..., part, :], fresh=number < len(self.steps) - 1)
                continue
            found.append(cotangent)
            if number == last and not whole:
                break
            cotangent = torch.matmul(cotangent, step.weight.transpose(-1, -2))
        return found, cotangent

    def give(self) -> tuple[Tensor, Tensor | None]:
        """The input gradients and the task's outputs, and forget them: a node may not keep what it gave away."""
        gradient = self.gradient
        del self.gradient
        task = self.rows[..., self.of_task, :]
        return gradient, None if task.shape[-2] == 0 else task.reshape(-1, task.shape[-1]).clone()

    @torch.no_grad()
    def pull(self, cotangent: Tensor | None, of_outputs: Tensor | None) -> list[Tensor | None]:
        """Gradient of ``sum(cotangent * gradient) + sum(of_outputs * outputs)`` with respect to the parameters."""
        found: list[Tensor | None] = [None] * len(self.parameters)
        passes: list[tuple[Tensor, slice]] = []
        if of_outputs is not None:
            passes.append((self._blocks(of_outputs), self.of_task))
        entering: list[Tensor] = []
        if cotangent is not None:
            entering, bend = self._push(cotangent)
            if bend is not None:
                passes.append((self._blocks(bend), self.of_points))
        for start, part in passes:
            slopes, _ = self._adjoint(start, part, whole=False)
            for step, slope in zip(self._products(), slopes, strict=False):
                self._weigh(found, step, slope, step.rows[..., part, :])
                if step.numbers[1] is not None:
                    _add(found, step.numbers[1], slope.sum(-2))
        if cotangent is not None:
            for step, slope, tangent in zip(self._products(), self.slopes, entering[::-1], strict=True):
                self._weigh(found, step, slope, tangent)
        return found

    def _push(self, cotangent: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """The tangent that enters every product, first product first, and what the head's curvature makes of it."""
        tangent, entering = self._rows(cotangent), []
        for number, step in enumerate(self.steps):
            if isinstance(step, Tensor):
                tangent = _masked(tangent, step[..., self.of_points, :], fresh=number > 0)
            else:
                entering.append(tangent)
                tangent = torch.matmul(tangent, step.weight)
        if not self.slope.requires_grad:
            return entering, None
        return entering, autodiff.pull([self.slope], [self.leaf], tangent.reshape(self.leaf.shape))[0]

    def held(self) -> list[Tensor]:
        """Weights that are not trained: the tangents meet them again."""
        return [step.weight for step in self._products() if step.numbers[0] is None]

    def _products(self) -> list[_Product]:
        return [step for step in reversed(self.steps) if isinstance(step, _Product)]

    def _blocks(self, rows: Tensor) -> Tensor:
        return rows if self.models is None else rows.reshape(self.models, -1, rows.shape[-1])

    def _weigh(self, found: list[Tensor | None], step: _Product, cotangent: Tensor, source: Tensor) -> None:
        """Add a product's weight gradient, into the memory of the one before."""
        number = step.numbers[0]
        if number is None:
            return
        left, right = (cotangent, source) if step.turned else (source, cotangent)
        before = found[number]
        if before is None:
            found[number] = torch.matmul(left.transpose(-1, -2), right)
        elif self.models is None:
            before.addmm_(left.t(), right)
        else:
            before.baddbmm_(left.transpose(1, 2), right)


def _masked(values: Tensor, held: Tensor, *, fresh: bool) -> Tensor:
    """Zero where ``held`` is not positive; in place where the values are our own."""
    masked: Tensor = (
        torch.ops.aten.threshold_backward.grad_input(values, held, 0, grad_input=values)
        if fresh
        else torch.ops.aten.threshold_backward(values, held, 0)
    )
    return masked


def _add(found: list[Tensor | None], number: int, part: Tensor) -> None:
    before = found[number]
    found[number] = part if before is None else before.add_(part)


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, work: _Work, *parameters: Tensor) -> Any:
        ctx.work = work
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*parameters, *work.held())
        return work.give()

    @staticmethod
    @final
    def backward(ctx: Any, cotangent: Tensor | None, of_outputs: Tensor | None) -> Any:
        _ = ctx.saved_tensors  # raises where a weight was changed in place since
        return None, *ctx.work.pull(cotangent, of_outputs)
