"""The mode: when it puts its kernels in, and that it leaves nothing behind."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from core.kernels.compare import agree, mixed
from rightly.core.kernels import cheap_second_derivatives, gru, lstm, sequence
from rightly.core.kernels.mode import RULES


def kernel_of(tensor: Tensor) -> bool:
    return tensor.grad_fn is not None and tensor.grad_fn.name() == "BentBackward"


def test_only_inside_the_context() -> None:
    inputs = torch.ones(3, requires_grad=True)
    with cheap_second_derivatives():
        assert kernel_of(F.relu(inputs))
        with cheap_second_derivatives():
            assert kernel_of(F.relu(inputs))
    assert not kernel_of(F.relu(inputs))


def test_not_after_an_error_either() -> None:
    inputs = torch.ones(3, requires_grad=True)
    with pytest.raises(RuntimeError, match="size mismatch"), cheap_second_derivatives():
        torch.ones(2, 3) @ inputs[:2].relu()
    assert not kernel_of(F.relu(inputs))


def test_a_call_without_a_gradient_goes_to_torch() -> None:
    lstm, inputs = nn.LSTM(2, 3), torch.ones(4, 1, 2)
    with cheap_second_derivatives():
        assert F.relu(inputs).grad_fn is None
        with torch.no_grad():
            found = lstm(inputs)[0]
    with torch.no_grad():
        assert torch.equal(found, lstm(inputs)[0])
    assert found.grad_fn is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_goes_to_torch(dtype: torch.dtype) -> None:
    inputs = torch.ones(3, dtype=dtype, requires_grad=True)
    with cheap_second_derivatives():
        assert not kernel_of(F.relu(inputs))


def test_autocast_goes_to_torch() -> None:
    inputs = torch.ones(3, requires_grad=True)
    with cheap_second_derivatives(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert not kernel_of(F.relu(inputs))


FOLLOWED = {
    "leaky": F.leaky_relu,
    "hardtanh": F.hardtanh,
    "pool": lambda x: F.max_pool1d(x, 2),
    "gelu": F.gelu,
    "norm": lambda x: F.layer_norm(x, (4,)),
    "attention": lambda x: F.scaled_dot_product_attention(x, x, x),
    "lstm": lambda x: recurrent(nn.LSTM)(x)[0],
    "gru": lambda x: recurrent(nn.GRU)(x)[0],
}


def recurrent(kind: type[nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(4, 3, batch_first=True).double()


@pytest.mark.parametrize("name", FOLLOWED)
def test_what_comes_out_may_be_changed_in_place(name: str) -> None:
    made = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inputs = made.requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):
        agree(lambda: mixed(F.elu_(FOLLOWED[name](inputs * 1))), [inputs], [inputs])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_graph_is_freed_without_the_garbage_collector(kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = recurrent(kind), torch.ones(2, 3, 4, dtype=torch.float64, requires_grad=True)
    held = []

    def visited(*args: Tensor) -> sequence.Visited:
        made = sequence.Visited(*args)
        held.append(weakref.ref(made))
        return made

    for module in (lstm, gru):
        monkeypatch.setattr(module, "Visited", visited)
    collecting = gc.isenabled()
    gc.disable()
    try:
        with cheap_second_derivatives():
            hidden = model(inputs)[0]
        (gradient,) = torch.autograd.grad(hidden.sin().sum(), inputs, create_graph=True)
        torch.autograd.grad(gradient.square().sum(), list(model.parameters()))
        assert any(each() is not None for each in held)
        del hidden, gradient
        assert all(each() is None for each in held)
    finally:
        if collecting:
            gc.enable()


class Marked(Tensor):
    """A tensor with a meaning of its own."""


def test_subclasses_and_functional_transforms_go_to_torch() -> None:
    inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    with cheap_second_derivatives():
        assert isinstance(F.relu(inputs.as_subclass(Marked).requires_grad_()), Marked)
        found = torch.func.vmap(torch.func.grad(lambda x: F.relu(x).square().sum()))(inputs)
    assert torch.equal(found, 2 * inputs.relu())


def test_another_mode_still_sees_what_goes_to_torch() -> None:
    seen = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    with Watch(), cheap_second_derivatives():
        F.softplus(torch.ones(3, requires_grad=True))
    assert F.softplus in seen


def test_every_rule_stands_for_a_function_of_torch() -> None:
    for function, rule in RULES.items():
        assert callable(function)
        assert rule.__module__.startswith("rightly.core.kernels")
