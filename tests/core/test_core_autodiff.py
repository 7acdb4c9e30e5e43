"""The only caller of autograd."""

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from rightly.core import autodiff
from rightly.core.errors import DoubleBackwardError, NotConnectedError


def test_gradients_belong_to_their_own_point():
    points = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    found = autodiff.gradient((points**3).sum(1), points, create_graph=True)
    assert torch.equal(found, 3 * points**2)
    assert found.requires_grad
    assert not autodiff.gradient((points**3).sum(1), points, create_graph=False).requires_grad


@pytest.mark.parametrize("values", [lambda p: p.detach().sum(1), lambda p: torch.ones(3, requires_grad=True) * 2])
def test_disconnected_values_are_named(values):
    points = torch.randn(3, 2, requires_grad=True)
    with pytest.raises(NotConnectedError, match="does not depend"):
        autodiff.gradient(values(points), points, create_graph=True)


def test_parameter_gradients_leave_grad_alone():
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    found = autodiff.parameter_gradient((used**2).sum(), [used, unused])
    assert found[0].tolist() == [2, 2]
    assert found[1] is None
    assert used.grad is None
    assert autodiff.parameter_gradient(torch.ones(()), [used]) == [None]
    assert autodiff.parameter_gradient((used**2).sum(), []) == []


def _raising(message):
    with autodiff.naming_operators():
        raise RuntimeError(message)


@pytest.mark.parametrize(
    ("message", "operator", "mend"),
    [
        ("derivative for aten::_scaled_dot_product_flash_attention_backward is not implemented", "attention", "MATH"),
        ("the derivative for '_cdist_backward' is not implemented.", "_cdist_backward", "another"),
        ("derivative for aten::_embedding_bag_dense_backward is not implemented", "embedding_bag", "nn.Embedding"),
        ("torch.compile with aot_autograd does not currently support double backward", "torch.compile", "objective"),
        ("cudnn RNN backward can only be called in training mode", "cudnn", "cudnn.flags"),
    ],
)
def test_operators_without_a_second_derivative_are_named(message, operator, mend):
    with pytest.raises(DoubleBackwardError) as caught:
        _raising(message)
    assert operator in caught.value.what
    assert mend in caught.value.mend or mend == "another"
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_other_errors_pass_through():
    with pytest.raises(RuntimeError, match="out of memory") as caught:
        _raising("out of memory")
    assert type(caught.value) is RuntimeError


def test_reading_switches_every_module_off_and_back():
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(3), nn.Dropout())).train()
    model[1].eval()
    model[1][1].train()
    before = [module.training for module in model.modules()]
    with autodiff.reading(model, trainable=True):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == before


def test_reading_records_gradients_wherever_it_is():
    weight = nn.Parameter(torch.ones(2))
    for outside in (torch.no_grad(), torch.inference_mode()):
        with outside, autodiff.reading(None, trainable=True):
            assert (weight * 2).requires_grad


def test_reading_for_training_uses_kernels_that_can_be_differentiated_twice():
    q = torch.randn(1, 1, 3, 4, requires_grad=True)
    for trainable in (True, False):
        with autodiff.reading(None, trainable=trainable):
            out = nn.functional.scaled_dot_product_attention(q, q, q)
            (first,) = torch.autograd.grad(out.sum(), q, create_graph=True)
        if trainable:
            (second,) = torch.autograd.grad(first.square().sum(), q)
            assert second.isfinite().all()
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        out = nn.functional.scaled_dot_product_attention(q, q, q)
        (first,) = torch.autograd.grad(out.sum(), q, create_graph=True)
    with pytest.raises(DoubleBackwardError, match="attention"):
        autodiff.parameter_gradient(first.square().sum(), [q])


def test_buffers_are_put_back():
    norm = nn.BatchNorm1d(3).train()
    before = {name: value.clone() for name, value in norm.named_buffers()}
    with autodiff.keeping_buffers(norm):
        norm(torch.randn(5, 3))
        assert norm.num_batches_tracked == 1
    assert all(torch.equal(value, before[name]) for name, value in norm.named_buffers())
    with pytest.raises(ValueError, match="expected 2D"), autodiff.keeping_buffers(norm):
        nn.Sequential(norm, nn.Flatten(0), norm)(torch.randn(5, 3))
    assert norm.num_batches_tracked == 0


def test_central_differences():
    a, b = nn.Parameter(torch.tensor([2.0]).double()), nn.Parameter(torch.tensor([3.0]).double())
    way = [torch.tensor([1.0]).double(), torch.tensor([-1.0]).double()]
    slope = autodiff.central_difference(lambda: float(a.detach() ** 2 * b.detach()), [a, b], way, 1e-5)
    assert slope == pytest.approx(2 * 2 * 3 - 4, rel=1e-9)
    assert autodiff.along([torch.tensor([12.0]), None], way) == 12.0
    assert (float(a.detach()), float(b.detach())) == (2.0, 3.0)
    with pytest.raises(KeyError):
        autodiff.central_difference(lambda: {}["x"], [a], way[:1], 0.1)
    assert float(a.detach()) == 2.0


def test_only_tensors_of_inference_mode_are_copied():
    plain = torch.ones(2)
    with torch.inference_mode():
        made = torch.ones(2)
    assert autodiff.recordable(plain) is plain
    assert not autodiff.recordable(made).is_inference()
