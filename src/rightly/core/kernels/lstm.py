"""LSTM with a second derivative at the cost of two more passes.

Torch's own second derivative unrolls the network into single operations and goes back through each of them. Here it
is written out. With pre-activations a, gates i, f, o = sigmoid(a) and g = tanh(a), cells c and outputs h,

    a_t = inputs_t + W h_{t-1},        c_t = f_t c_{t-1} + i_t g_t,        h_t = o_t tanh(c_t),

``Adjoint`` is the gradient, a pass backward in time. Its own gradient, given a cotangent u of it, is

* the tangent of the network along u, a pass forward in time;
* what changes in the gradient's factors through the gates and cells, for all steps at once. That is handed to ``Run``
  as the cotangent of its outputs ``gates`` and ``cells``, so that the second pass backward in time is ``Run``'s
  ordinary gradient, made once for everything that arrives there.

The convention between the two: the cotangent of ``gates`` is the one *of the pre-activations*. Both stay in this file.
The columns of g come multiplied by -2 (``scaled``): what is stored of g is s with g = 1 - 2 s, and likewise
tanh(c) = 1 - 2 ``squashed``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rightly.core.kernels.function import Kernel, final
from rightly.core.kernels.sequence import Visited, WeightOf, Weights, blocks, from_start, project, scaled, steps


def layer(inputs: Tensor, state: Sequence[Tensor], weights: Weights) -> tuple[Tensor, Sequence[Tensor]]:
    """One layer in one direction: (T, B, I), states (B, H) -> hidden (T, B, H), last hidden and cell states."""
    weights = scaled(weights, tanh_gate=2)
    bias = None
    if weights.inputs_bias is not None and weights.hidden_bias is not None:
        bias = weights.inputs_bias + weights.hidden_bias
    shape, visited = inputs.shape[:2], Visited()
    from_inputs = WeightOf.one(weights.inputs, bias, *shape, Visited(inputs.detach()))
    from_hidden = WeightOf.one(weights.hidden, None, *shape, visited)
    hidden, cells, _ = Run.many(inputs, from_inputs, from_hidden, *state, weights.inputs, weights.hidden, bias)
    visited.series = from_start(state[0].detach(), hidden.detach())[:-1]
    return hidden, (hidden[-1], cells[-1])


class Run(Kernel):
    """(inputs (T, B, I), the weights' stand-ins, h_0, c_0 (B, H), the weights) -> hidden, cells, gates."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        from_inputs: Tensor,
        from_hidden: Tensor,
        h: Tensor,
        c: Tensor,
        w_inputs: Tensor,
        w: Tensor,
        bias: Tensor | None,
    ) -> tuple[Tensor, ...]:
        gates = project(inputs, w_inputs, bias)
        slopes = torch.empty_like(gates)
        hidden, cells, squashed, opening = (gates.new_empty(*gates.shape[:2], w.shape[1]) for _ in range(4))
        ctx.save_for_backward(gates, cells, squashed, slopes, opening, c, w_inputs, w)
        ctx.set_materialize_grads(False)
        turned, first = w.t(), c
        tracks = (gates, *gates.chunk(4, -1), hidden, cells, squashed)
        for gate, i, f, s, o, out, cell, squash in steps(tracks):
            gate.addmm_(h, turned).sigmoid_()
            c = torch.addcmul(i, i, s, value=-2, out=cell).addcmul_(f, c)
            torch.mul(c, -2, out=squash).sigmoid_()
            h = torch.addcmul(o, o, squash, value=-2, out=out)
        _slopes(gates, from_start(first, cells)[:-1], squashed, slopes, opening)
        return hidden, cells, gates

    @staticmethod
    def backward(ctx: Any, hidden: Tensor | None, cells: Tensor | None, gates: Tensor | None) -> tuple[Any, ...]:
        by_inputs, by_a, by_h, by_c = Adjoint.many(hidden, cells, gates, ctx.needs_input_grad[0], *ctx.saved_tensors)
        return by_inputs, by_a, by_a, by_h, by_c, None, None, None


class Adjoint(Kernel):
    """The gradient of ``Run``: cotangents of its outputs -> those of inputs, pre-activations, h_0 and c_0."""

    @staticmethod
    def forward(
        ctx: Any,
        by_hidden: Tensor | None,
        by_cells: Tensor | None,
        by_gates: Tensor | None,
        to_inputs: bool,
        gates: Tensor,
        cells: Tensor,
        squashed: Tensor,
        slopes: Tensor,
        opening: Tensor,
        c: Tensor,
        w_inputs: Tensor,
        w: Tensor,
    ) -> tuple[Tensor | None, ...]:
        start, nothing = torch.zeros_like(c), cells.new_zeros(()).expand_as(cells)
        to_h = from_start(start, nothing if by_hidden is None else by_hidden)
        to_c = from_start(start, nothing if by_cells is None else by_cells)
        to_a = torch.empty_like(gates) if by_gates is None else by_gates  # in place: nobody else has seen it

        cell_parts, output_parts = zip(*(_parts(each) for each in (to_a, slopes)), strict=True)
        forget = gates.chunk(4, -1)[1]
        tracks = (to_a, *cell_parts, *output_parts, to_c[1:], to_c[:-1], to_h[1:], to_h[:-1], opening, forget)
        for a, a_ifg, k_ifg, a_o, k_o, c_now, c_before, h_now, h_before, open_, f in reversed(list(steps(tracks))):
            c_now.addcmul_(h_now, open_)
            if by_gates is None:
                torch.mul(c_now.unsqueeze(1), k_ifg, out=a_ifg)
                torch.mul(h_now, k_o, out=a_o)
            else:
                a_ifg.addcmul_(c_now.unsqueeze(1), k_ifg)
                a_o.addcmul_(h_now, k_o)
            c_before.addcmul_(c_now, f)
            h_before.addmm_(a, w)

        ctx.save_for_backward(gates, cells, squashed, slopes, opening, c, w_inputs, w, to_a, to_h, to_c)
        ctx.set_materialize_grads(False)
        return to_a @ w_inputs if to_inputs else None, to_a, to_h[0].clone(), to_c[0].clone()

    @staticmethod
    @final
    def backward(
        ctx: Any, along: Tensor | None, along_a: Tensor | None, along_h: Tensor | None, along_c: Tensor | None
    ) -> tuple[Any, ...]:
        gates, cells, squashed, slopes, opening, c, w_inputs, w, to_a, to_h, to_c = ctx.saved_tensors
        moved_a = torch.zeros_like(gates) if along is None else project(along, w_inputs, None)
        if along_a is not None:
            moved_a += along_a
        moved_h, moved_c = (cells.new_empty(len(cells) + 1, *c.shape) for _ in range(2))
        for moved, first in ((moved_h, along_h), (moved_c, along_c)):
            moved[0] = 0 if first is None else first

        turned, forget = w.t(), gates.chunk(4, -1)[1]
        tracks = (moved_a, *moved_a.chunk(4, -1), *slopes.chunk(4, -1), forget, opening)
        tracks = (*tracks, moved_h[:-1], moved_h[1:], moved_c[:-1], moved_c[1:])
        for a, a_i, a_f, a_s, a_o, k_i, k_f, k_s, k_o, f, open_, h_before, h_now, c_before, c_now in steps(tracks):
            a.addmm_(h_before, turned)
            torch.mul(c_before, f, out=c_now).addcmul_(a_i, k_i).addcmul_(a_f, k_f).addcmul_(a_s, k_s)
            torch.mul(a_o, k_o, out=h_now).addcmul_(c_now, open_)
        of_c = _second(gates, squashed, opening, to_a, to_h, to_c, moved_a, moved_c)

        rows = to_a.flatten(0, 1).t()
        of_w = rows @ moved_h[:-1].flatten(0, 1)
        of_w_inputs = None if along is None else rows @ along.flatten(0, 1)
        asked = ctx.needs_input_grad
        return (
            moved_h[1:] if asked[0] else None,
            moved_c[1:] if asked[1] else None,
            *(None, None, moved_a, of_c[1:], None, None, None, of_c[0], of_w_inputs, of_w),
        )


def _slopes(gates: Tensor, before: Tensor, squashed: Tensor, slopes: Tensor, opening: Tensor) -> None:
    """Fill the derivatives within a step: of (c, c, c, h) by the pre-activations of (i, f, g, o), and of h by c."""
    for gate, c_before, squash, slope, open_ in blocks((gates, before, squashed, slopes, opening)):
        i, _, s, o = gate.chunk(4, -1)
        torch.addcmul(gate, gate, gate, value=-1, out=slope)
        k_i, k_f, k_s, k_o = slope.chunk(4, -1)
        k_i.addcmul_(k_i, s, value=-2)
        k_f.mul_(c_before)
        k_s.mul_(i).mul_(-2)
        k_o.addcmul_(k_o, squash, value=-2)
        torch.addcmul(squash, squash, squash, value=-1, out=open_).mul_(o).mul_(4)


def _second(
    gates: Tensor,
    squashed: Tensor,
    opening: Tensor,
    to_a: Tensor,
    to_h: Tensor,
    to_c: Tensor,
    moved_a: Tensor,
    moved_c: Tensor,
) -> Tensor:
    """What a motion changes in the slopes, as cotangents: of the pre-activations (in ``moved_a``) and of the cells."""
    of_c = torch.empty_like(to_c)
    of_c[0] = 0
    shifted = (to_h[1:], to_c[1:], moved_c[:-1], moved_c[1:], of_c[:-1], of_c[1:])
    for gate, squash, open_, d_a, a, d_h, d_c, c_before, c_now, of_before, of_now in blocks(
        (gates, squashed, opening, to_a, moved_a, *shifted)
    ):
        i, f, _, o = gate.chunk(4, -1)
        a_i, a_f, a_s, a_o = a.chunk(4, -1)
        d_s = d_a.chunk(4, -1)[2]
        lost = torch.addcmul(f, f, f, value=-1).mul_(d_c)
        opened = torch.addcmul(open_, open_, o, value=-1).mul_(d_h)
        torch.mul(opened, a_o, out=of_now)
        of_now.addcmul_(torch.addcmul(open_, open_, squash, value=-2).mul_(d_h), c_now, value=-2)
        of_before.addcmul_(lost, a_f)
        both = torch.addcmul(d_s, d_s, i, value=-1)  # i and g stand in one product: each changes the other's slope
        of_i, of_s = both * a_s, both.mul_(a_i)
        # each in its own slope: the second derivative of a sigmoid is 1 - 2 s times its first
        a.mul_(d_a).addcmul_(a, gate, value=-2)
        a_i.add_(of_i)
        a_f.addcmul_(lost, c_before)
        a_s.add_(of_s)
        a_o.addcmul_(opened, c_now)
    return of_c


def _parts(gates: Tensor) -> tuple[Tensor, Tensor]:
    """Views (T, B, 3, H) of what goes through the cell and (T, B, H) of the output gate."""
    parts = gates.unflatten(-1, (4, -1))
    return parts[:, :, :3], parts[:, :, 3]
