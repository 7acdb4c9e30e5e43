"""Attention, layer normalisation and GELU kernels against torch's own, in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from core.kernels.compare import agree, mixed
from rightly.core.errors import DoubleBackwardError
from rightly.core.kernels import attention, cheap_second_derivatives, smooth
from rightly.core.kernels.mode import RULES


@pytest.fixture(autouse=True)
def _twice_differentiable():
    with sdpa_kernel(SDPBackend.MATH):
        yield


def drawn(*shape: int, seed: int = 0) -> Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return made.requires_grad_()


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return make().double()


@pytest.mark.parametrize("shape", [(5,), (2, 5), (4, 3, 5)])
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu(shape: tuple[int, ...], approximate: str) -> None:
    inputs = drawn(*shape)
    agree(lambda: mixed(F.gelu(inputs, approximate=approximate)), [inputs], [inputs])


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)])
@pytest.mark.parametrize("affine", ["no", "weight", "bias", "both"])
def test_layer_norm(shape: tuple[int, ...], affine: str) -> None:
    inputs = drawn(*shape)
    weight = drawn(5, seed=1) if affine in ("weight", "both") else None
    bias = drawn(5, seed=2) if affine in ("bias", "both") else None
    given = [each for each in (weight, bias) if each is not None]
    agree(lambda: mixed(F.layer_norm(inputs, (5,), weight, bias, 1e-3)), [inputs], [inputs, *given])


def test_layer_norm_of_a_transposed_tensor_and_over_two_axes() -> None:
    inputs = drawn(5, 4, 3)
    agree(lambda: mixed(F.layer_norm(inputs.permute(2, 1, 0), [5])), [inputs], [inputs])
    agree(lambda: mixed(F.layer_norm(inputs, [4, 3])), [inputs], [inputs])


@pytest.mark.parametrize("function", [F.gelu, lambda x: F.layer_norm(x, (4,))])
def test_gradgradcheck_of_smooth_functions(function: Callable[[Tensor], Tensor]) -> None:
    def own(x: Tensor) -> Tensor:
        with cheap_second_derivatives():
            return function(x)

    assert torch.autograd.gradgradcheck(own, (drawn(2, 4),))


MASK = torch.tensor([[True, False, True], [True, True, False], [False, True, True]])


@pytest.mark.parametrize("lead", [(2,), (2, 4)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": 0.3},
        {"is_causal": True},
        {"attn_mask": MASK},
        {"attn_mask": MASK.double() - 0.5},
        {"attn_mask": MASK & torch.tensor([[True], [False], [True]])},
        {"attn_mask": MASK.expand(2, 1, 3, 3)},
    ],
)
def test_scaled_dot_product_attention(lead: tuple[int, ...], options: dict[str, object]) -> None:
    mask = options.get("attn_mask")
    if isinstance(mask, Tensor) and mask.dim() == 4 and len(lead) == 1:
        options = {"attn_mask": mask[:, 0]}
    parts = [drawn(*lead, 3, 5, seed=k) for k in range(3)]
    agree(lambda: mixed(F.scaled_dot_product_attention(*parts, **options)), parts, parts)


def test_attention_that_does_not_fit_goes_to_torch() -> None:
    query, key = drawn(2, 3, 5), drawn(2, 4, 5, seed=1)
    agree(lambda: mixed(F.scaled_dot_product_attention(query, key, key)), [query, key], [query, key])
    assert attention.attention(query, key, key) is None
    bias = drawn(3, 3, seed=2)
    agree(lambda: mixed(F.scaled_dot_product_attention(query, query, query, bias)), [query], [query, bias])
    assert attention.attention(query, query, query, dropout_p=0.1) is None


def test_gradgradcheck_of_attention() -> None:
    def own(*parts: Tensor) -> Tensor:
        with cheap_second_derivatives():
            return F.scaled_dot_product_attention(*parts)

    assert torch.autograd.gradgradcheck(own, tuple(drawn(1, 2, 3, seed=k) for k in range(3)))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_multi_head_self_attention(batch_first: bool, bias: bool) -> None:
    model = seeded(lambda: nn.MultiheadAttention(6, 2, bias=bias, batch_first=batch_first))
    inputs = drawn(3, 4, 6)
    agree(lambda: mixed(model(inputs, inputs, inputs, need_weights=False)[0]), [inputs], [inputs, *model.parameters()])


@pytest.mark.parametrize(
    "options",
    [
        {"need_weights": True},
        {"need_weights": False, "key_padding_mask": torch.tensor([[False, False, True]] * 4)},
        {"need_weights": False, "attn_mask": ~MASK},
    ],
)
def test_multi_head_attention_that_does_not_fit(options: dict[str, object]) -> None:
    model, inputs = seeded(lambda: nn.MultiheadAttention(6, 2)), drawn(3, 4, 6)
    agree(lambda: mixed(model(inputs, inputs, inputs, **options)[0]), [inputs], [inputs, *model.parameters()])


def test_cross_attention() -> None:
    model, inputs, other = seeded(lambda: nn.MultiheadAttention(6, 2)), drawn(3, 4, 6), drawn(5, 4, 6, seed=1)
    agree(lambda: mixed(model(inputs, other, other)[0]), [inputs], [inputs, other, *model.parameters()])


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_transformer_encoder(norm_first: bool, batch_first: bool) -> None:
    def make() -> nn.Module:
        layer = nn.TransformerEncoderLayer(6, 2, 7, 0.1, "gelu", batch_first=batch_first, norm_first=norm_first)
        return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()

    model, inputs = seeded(make), drawn(3, 4, 6)
    agree(lambda: mixed(model(inputs).mean(1).log_softmax(-1)), [inputs], [inputs, *model.parameters()])


@pytest.mark.parametrize("function", [F.gelu, lambda x: F.layer_norm(x, (4,)), lambda x: attention.attention(x, x, x)])
def test_a_third_derivative_is_an_error(function: Callable[[Tensor], Tensor]) -> None:
    inputs = drawn(2, 3, 4)
    with cheap_second_derivatives():
        value = mixed(function(inputs))
    (first,) = torch.autograd.grad(value, inputs, create_graph=True)
    with pytest.raises(DoubleBackwardError):
        torch.autograd.grad(first.square().sum(), inputs, create_graph=True)


@pytest.mark.parametrize(
    ("kernel", "call"),
    [(smooth.Gelu, F.gelu), (smooth.Normal, lambda x: F.layer_norm(x, (4,))), (attention.Attend, None)],
)
def test_the_kernels_are_used(kernel: type, call: Callable[[Tensor], Tensor] | None) -> None:
    inputs = drawn(2, 3, 4)
    call = call or (lambda x: F.scaled_dot_product_attention(x, x, x))
    with cheap_second_derivatives():
        found, waiting = set(), [call(inputs).grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None:
            found.add(node.name())
            waiting += [before for before, _ in node.next_functions]
    assert f"{kernel.__name__}Backward" in found


def test_the_comparison_finds_a_planted_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = drawn(2, 4)
    real = smooth._row_mean
    monkeypatch.setattr(smooth, "_row_mean", lambda *args: -real(*args))
    with pytest.raises(AssertionError):
        agree(lambda: mixed(F.layer_norm(inputs, (4,))), [inputs], [inputs])
    monkeypatch.setitem(RULES, F.gelu, F.silu)
    with pytest.raises(AssertionError):
        agree(lambda: mixed(F.gelu(inputs)), [inputs], [inputs])
