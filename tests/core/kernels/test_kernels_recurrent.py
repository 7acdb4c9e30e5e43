"""LSTM and GRU kernels against torch's own, in float64: values, gradients, gradients of gradients."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from core.kernels.compare import agree, derivatives, mixed
from rightly.core.errors import DoubleBackwardError
from rightly.core.kernels import cheap_second_derivatives, lstm
from rightly.core.kernels.mode import RULES

KINDS = [nn.LSTM, nn.GRU]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return made.requires_grad_()


def recurrent(kind: type[nn.Module], **options: object) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return kind(3, 5, **options).double()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("layers", "both", "batch_first", "bias", "states"),
    [
        *((1, False, first, bias, states) for first, bias, states in product((False, True), repeat=3)),
        (2, False, True, True, False),
        (3, True, False, True, True),
        (1, True, True, False, True),
    ],
)
def test_all_derivatives_are_those_of_torch(
    kind: type[nn.Module], layers: int, both: bool, batch_first: bool, bias: bool, states: bool
) -> None:
    model = recurrent(kind, num_layers=layers, bidirectional=both, batch_first=batch_first, bias=bias)
    inputs = drawn(4, 6, 3)
    first = [drawn(layers * (1 + both), 4 if batch_first else 6, 5, seed=k) for k in range(1 + (kind is nn.LSTM))]
    given = (tuple(first) if len(first) > 1 else first[0],) if states else ()

    def value() -> Tensor:
        hidden, last = model(inputs, *given)
        ends = last if isinstance(last, tuple) else (last,)
        return sum((mixed(each, k) for k, each in enumerate((hidden, *ends))), inputs.new_zeros(()))

    asked = [inputs, *(first if states else [])]
    agree(value, asked, [*asked, *model.parameters()])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("read", ["hidden", "last", "cells"])
def test_one_output_is_enough(kind: type[nn.Module], read: str) -> None:
    model, inputs = recurrent(kind), drawn(4, 2, 3)

    def value() -> Tensor:
        hidden, last = model(inputs)
        ends = last if isinstance(last, tuple) else (last,)
        return mixed({"hidden": hidden, "last": ends[0], "cells": ends[-1]}[read])

    agree(value, [inputs], [inputs, *model.parameters()])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 4, 3), (7, 1, 3), (5, 3)])
def test_every_length_and_batch(kind: type[nn.Module], shape: tuple[int, ...]) -> None:
    model, inputs = recurrent(kind), drawn(*shape)
    agree(lambda: mixed(model(inputs)[0]), [inputs], [inputs, *model.parameters()])


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_of_steps_never_changes_a_number(kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rightly.core.kernels.sequence.CACHED", 100)
    model, inputs = recurrent(kind), drawn(7, 2, 3)
    agree(lambda: mixed(model(inputs)[0]), [inputs], [inputs, *model.parameters()])


class Nested(nn.Module):
    """A recurrent module deep inside, called twice, with frozen weights beside trained ones."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 3), nn.ModuleDict({"net": recurrent(kind)})["net"])
        self.head = nn.Linear(5, 2)
        self.inner[1].weight_hh_l0.requires_grad_(False)

    def forward(self, inputs: Tensor) -> Tensor:
        again = self.inner[1](self.inner(inputs.transpose(0, 1))[0][..., :3].tanh())[0]
        return self.head(again[-1]).log_softmax(-1)


@pytest.mark.parametrize("kind", KINDS)
def test_inside_a_model_called_twice_behind_a_curved_head(kind: type[nn.Module]) -> None:
    model, inputs = Nested(kind).double(), drawn(2, 4, 3)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    agree(lambda: mixed(model(inputs)), [inputs], [inputs, *trained])


@pytest.mark.parametrize("kind", KINDS)
def test_gradgradcheck(kind: type[nn.Module]) -> None:
    model, inputs = recurrent(kind), drawn(3, 2, 3)

    def function(*values: Tensor) -> Tensor:
        names = [name for name, _ in model.named_parameters()]
        with cheap_second_derivatives():
            # weights are given as the arguments, because the kernel differentiates them once only
            return torch.func.functional_call(model, dict(zip(names, values[1:], strict=True)), (values[0],))[0]

    assert torch.autograd.gradcheck(function, (inputs, *model.parameters()))
    frozen = [parameter.detach() for parameter in model.parameters()]
    assert torch.autograd.gradgradcheck(lambda x: function(x, *frozen), (inputs,))


def test_float32_agrees_to_its_precision() -> None:
    model, inputs = recurrent(nn.LSTM).float(), drawn(6, 4, 3).detach().float().requires_grad_()
    agree(lambda: mixed(model(inputs)[0]), [inputs], [inputs, *model.parameters()], tolerance=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_fit_goes_to_torch(kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = drawn(4, 2, 3)
    packed = nn.utils.rnn.pack_padded_sequence(inputs, torch.tensor([4, 2]))
    dropping = recurrent(kind, num_layers=2, dropout=0.5)
    cases: list[tuple[nn.Module, object]] = [(recurrent(kind), packed), (dropping, inputs)]
    if kind is nn.LSTM:
        cases.append((recurrent(kind, proj_size=2), inputs))
    for model, given in cases:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            expected = model(given)[0]
            torch.manual_seed(0)
            with cheap_second_derivatives():
                found = model(given)[0]
        for one, other in zip(
            *((each if isinstance(each, tuple) else (each,)) for each in (found, expected)), strict=True
        ):
            if isinstance(one, Tensor):
                assert torch.equal(one, other)
    with cheap_second_derivatives():
        found = dropping.eval()(inputs)[0]  # the same module does fit when nothing is dropped
    assert "RunBackward" in {node.name() for node in _nodes(found)}


def _nodes(tensor: Tensor) -> list[torch.autograd.graph.Node]:
    found, waiting = [], [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found.append(node)
            waiting += [before for before, _ in node.next_functions]
    return found


def test_the_pass_of_an_attribution_makes_no_weight_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs, made = recurrent(nn.LSTM), drawn(4, 2, 3), []
    real = lstm.WeightOf.backward
    monkeypatch.setattr(lstm.WeightOf, "backward", staticmethod(lambda ctx, grad: made.append(1) or real(ctx, grad)))
    with cheap_second_derivatives():
        value = mixed(model(inputs)[0])
    (gradient,) = torch.autograd.grad(value, inputs, create_graph=True)
    assert not made
    torch.autograd.grad(gradient.square().sum(), list(model.parameters()))
    assert made


@pytest.mark.parametrize("kind", KINDS)
def test_a_derivative_that_is_not_there_is_an_error(kind: type[nn.Module]) -> None:
    model, inputs = recurrent(kind), drawn(3, 2, 3)
    with cheap_second_derivatives():
        value = mixed(model(inputs)[0])
    (first,) = torch.autograd.grad(value, inputs, create_graph=True)
    with pytest.raises(DoubleBackwardError, match="faster engines"):
        torch.autograd.grad(first.square().sum(), inputs, create_graph=True)
    with pytest.raises(DoubleBackwardError, match="faster engines"):
        torch.autograd.grad(value, list(model.parameters()), create_graph=True)


def _without_the_second_adjoint(*args: Tensor) -> Tensor:
    return torch.zeros_like(args[5])


def test_the_comparison_finds_a_planted_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = recurrent(nn.LSTM), drawn(4, 2, 3)
    monkeypatch.setattr(lstm, "_second", _without_the_second_adjoint)
    with pytest.raises(AssertionError):
        agree(lambda: mixed(model(inputs)[0]), [inputs], [inputs, *model.parameters()])


def test_the_comparison_finds_a_kernel_of_another_function(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = recurrent(nn.GRU), drawn(4, 2, 3)
    real: Callable[..., tuple[Tensor, ...]] = RULES[torch.gru]
    monkeypatch.setitem(RULES, torch.gru, lambda x, *rest: real(x * (1 + 1e-9), *rest))
    with pytest.raises(AssertionError):
        agree(lambda: mixed(model(inputs)[0]), [inputs], [inputs, *model.parameters()])


def test_a_second_gradient_of_the_same_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = recurrent(nn.LSTM), drawn(4, 2, 3)
    with cheap_second_derivatives():
        value = mixed(model(inputs)[0])
    once = derivatives(value, [inputs], [*model.parameters()])
    again = derivatives(value, [inputs], [*model.parameters()])
    for one, other in zip(once, again, strict=True):
        assert torch.equal(one, other)
