"""GRU with a second derivative at the cost of two more passes; the plan is that of ``lstm``.

With r, z = sigmoid(a_r), sigmoid(a_z) and y the recurrent part of the new value,

    (a_r, a_z, y)_t = inputs_t (a_r and a_z only) + W h_{t-1} + b,    n_t = tanh(x_t + r_t y_t),
    h_t = (1 - z_t) n_t + z_t h_{t-1},

where x is the inputs' part of the new value. ``Adjoint`` hands what changes in its factors to ``Run`` as the cotangents
of its outputs ``gates`` (of a_r, a_z, y) and ``new`` (of x): cotangents *of the pre-activations*. The columns of n come
multiplied by -2 (``scaled``): what is stored as ``new`` is s with n = 1 - 2 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rightly.core.kernels.function import Kernel, final
from rightly.core.kernels.sequence import Visited, WeightOf, Weights, blocks, from_start, project, scaled, steps


def layer(inputs: Tensor, state: Sequence[Tensor], weights: Weights) -> tuple[Tensor, Sequence[Tensor]]:
    """One layer in one direction: (T, B, I), state (B, H) -> hidden (T, B, H), last hidden state."""
    weights = scaled(weights, tanh_gate=2)
    shape, visited = inputs.shape[:2], Visited()
    from_inputs = WeightOf.one(weights.inputs, weights.inputs_bias, *shape, Visited(inputs.detach()))
    from_hidden = WeightOf.one(weights.hidden, weights.hidden_bias, *shape, visited)
    hidden, _, _ = Run.many(inputs, from_inputs, from_hidden, *state, *weights)
    visited.series = from_start(state[0].detach(), hidden.detach())[:-1]
    return hidden.clone(), (hidden[-1],)  # what the model reads may be changed in place; Run keeps its own


class Run(Kernel):
    """(inputs (T, B, I), the weights' stand-ins, h_0 (B, H), the weights) -> hidden, gates, new."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        from_inputs: Tensor,
        from_hidden: Tensor,
        h: Tensor,
        w_inputs: Tensor,
        w: Tensor,
        inputs_bias: Tensor | None,
        bias: Tensor | None,
    ) -> tuple[Tensor, ...]:
        gates = project(inputs, w_inputs, inputs_bias)
        last = gates.chunk(3, -1)[2]
        drive = last.clone(memory_format=torch.contiguous_format)
        last.zero_()
        if bias is not None:
            gates += bias
        slopes = torch.empty_like(gates)
        hidden, new, through = (torch.empty_like(drive) for _ in range(3))
        ctx.save_for_backward(hidden, gates, new, slopes, through, h, w_inputs, w)
        ctx.set_materialize_grads(False)
        turned, one, first = w.t(), h.new_ones(()), h
        size = w.shape[1]
        tracks = (gates, gates[..., : 2 * size], *gates.chunk(3, -1), drive, new, hidden)
        for gate, sigmoids, r, z, y, x, s, out in steps(tracks):
            gate.addmm_(h, turned)
            sigmoids.sigmoid_()
            torch.addcmul(x, r, y, out=s).sigmoid_()
            h = torch.sub(one, s, alpha=2, out=x).lerp_(h, z)
            out.copy_(h)
        _slopes(gates, new, from_start(first, hidden)[:-1], slopes, through)
        return hidden, gates, new

    @staticmethod
    def backward(ctx: Any, hidden: Tensor | None, gates: Tensor | None, new: Tensor | None) -> tuple[Any, ...]:
        asked = ctx.needs_input_grad[0]
        by_inputs, by_driven, by_a, by_h = Adjoint.many(hidden, gates, new, asked, *ctx.saved_tensors)
        return by_inputs, by_driven, by_a, by_h, None, None, None, None


class Adjoint(Kernel):
    """The gradient of ``Run``: its outputs' cotangents -> those of inputs, (a_r, a_z, x), (a_r, a_z, y) and h_0."""

    @staticmethod
    def forward(
        ctx: Any,
        by_hidden: Tensor | None,
        by_gates: Tensor | None,
        by_new: Tensor | None,
        to_inputs: bool,
        hidden: Tensor,
        gates: Tensor,
        new: Tensor,
        slopes: Tensor,
        through: Tensor,
        h: Tensor,
        w_inputs: Tensor,
        w: Tensor,
    ) -> tuple[Tensor | None, ...]:
        nothing = hidden.new_zeros(()).expand_as(hidden)
        to_h = from_start(torch.zeros_like(h), nothing if by_hidden is None else by_hidden)
        to_a = torch.empty_like(gates) if by_gates is None else by_gates  # in place: nobody else has seen it
        parts = (each.unflatten(-1, (3, -1)) for each in (to_a, slopes))
        tracks = (to_a, *parts, to_h[1:], to_h[:-1], gates.chunk(3, -1)[1])
        for a, a_rzy, k_rzy, h_now, h_before, z in reversed(list(steps(tracks))):
            if by_gates is None:
                torch.mul(h_now.unsqueeze(1), k_rzy, out=a_rzy)
            else:
                a_rzy.addcmul_(h_now.unsqueeze(1), k_rzy)
            h_before.addcmul_(h_now, z).addmm_(a, w)
        to_driven = to_a.clone()
        to_x = to_driven.chunk(3, -1)[2]
        torch.mul(to_h[1:], through, out=to_x)
        if by_new is not None:
            to_x += by_new

        ctx.save_for_backward(gates, new, slopes, through, h, w_inputs, w, to_h, to_a, to_driven)
        ctx.set_materialize_grads(False)
        return to_driven @ w_inputs if to_inputs else None, to_driven, to_a, to_h[0].clone()

    @staticmethod
    @final
    def backward(
        ctx: Any, along: Tensor | None, along_driven: Tensor | None, along_a: Tensor | None, along_h: Tensor | None
    ) -> tuple[Any, ...]:
        gates, new, slopes, through, h, w_inputs, w, to_h, to_a, to_driven = ctx.saved_tensors
        moved_a = torch.zeros_like(gates) if along is None else project(along, w_inputs, None)
        if along_driven is not None:
            moved_a += along_driven
        moved_y = moved_a.chunk(3, -1)[2]
        moved_x = moved_y.clone(memory_format=torch.contiguous_format)
        moved_y.zero_()
        if along_a is not None:
            moved_a += along_a
        moved_h = from_start(torch.zeros_like(h) if along_h is None else along_h, moved_x * through)

        turned = w.t()
        tracks = (moved_a, *moved_a.chunk(3, -1), *slopes.chunk(3, -1), gates.chunk(3, -1)[1])
        tracks = (*tracks, moved_h[:-1], moved_h[1:])
        for a, a_r, a_z, a_y, k_r, k_z, k_y, z, h_before, h_now in steps(tracks):
            a.addmm_(h_before, turned)
            h_now.addcmul_(h_before, z).addcmul_(a_r, k_r).addcmul_(a_z, k_z).addcmul_(a_y, k_y)
        of_h = _second(gates, new, to_h, to_a, to_driven, moved_a, moved_x, moved_h)

        of_w = to_a.flatten(0, 1).t() @ moved_h[:-1].flatten(0, 1)
        of_w_inputs = None if along is None else to_driven.flatten(0, 1).t() @ along.flatten(0, 1)
        moved = moved_h[1:] if ctx.needs_input_grad[0] else None
        return moved, None, None, None, of_h[1:], moved_a, moved_x, None, None, of_h[0], of_w_inputs, of_w


def _slopes(gates: Tensor, new: Tensor, before: Tensor, slopes: Tensor, through: Tensor) -> None:
    """Fill the derivatives of h within a step: by (a_r, a_z, y), and by x."""
    for gate, s, h_before, slope, k_x in blocks((gates, new, before, slopes, through)):
        r, z, y = gate.chunk(3, -1)
        k_r, k_z, k_y = slope.chunk(3, -1)
        torch.addcmul(s, s, s, value=-1, out=k_x)
        k_x.addcmul_(k_x, z, value=-1).mul_(-2)
        torch.mul(k_x, r, out=k_y)
        torch.addcmul(k_y, k_y, r, value=-1, out=k_r).mul_(y)
        torch.add(h_before - 1, s, alpha=2, out=k_z).mul_(torch.addcmul(z, z, z, value=-1))


def _second(
    gates: Tensor,
    new: Tensor,
    to_h: Tensor,
    to_a: Tensor,
    to_driven: Tensor,
    moved_a: Tensor,
    moved_x: Tensor,
    moved_h: Tensor,
) -> Tensor:
    """What a motion changes in the slopes, as cotangents: of the pre-activations (in place of the motions) and of h."""
    of_h = torch.empty_like(to_h)
    of_h[-1] = 0
    tracks = (gates, new, to_h[1:], to_a, to_driven, moved_a, moved_x, moved_h[:-1], of_h[:-1])
    for gate, s, d_h, d_a, d_driven, a, a_x, h_before, of_before in blocks(tracks):
        r, z, y = gate.chunk(3, -1)
        a_r, a_z, a_y = a.chunk(3, -1)
        d_r, d_z, _ = d_a.chunk(3, -1)
        d_x = d_driven.chunk(3, -1)[2]
        slope = torch.addcmul(r, r, r, value=-1)
        opened = slope * a_r
        motion = a_x.addcmul_(r, a_y).addcmul_(opened, y)  # of x + r y
        slope.mul_(d_x)
        turn = torch.addcmul(z, z, z, value=-1).mul_(d_h)
        torch.mul(turn, a_z, out=of_before)
        turn.mul_(h_before).addcmul_(torch.mul(d_x, z), motion, value=-1)
        turned = torch.mul(z, a_z).mul_(d_x)
        # each in its own slope: the second derivative of a sigmoid is 1 - 2 s times its first
        torch.mul(motion, d_x, out=a_x)
        a_x.addcmul_(a_x, s, value=-2).sub_(turned)
        a_z.mul_(d_z).addcmul_(a_z, z, value=-2).add_(turn)
        of_y = torch.mul(a_x, r).addcmul_(d_x, opened)
        a_r.mul_(d_r).addcmul_(a_r, r, value=-2).addcmul_(slope, a_y)
        a_r.addcmul_(torch.addcmul(r, r, r, value=-1).mul_(y), a_x)
        a_y.copy_(of_y)
    return of_h
