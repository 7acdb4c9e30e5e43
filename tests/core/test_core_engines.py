"""Finite differences and two phases from inside."""

from functools import partial

import pytest
import torch
from torch import nn

from contracts.engines import explain, relative_error
from contracts.problems import initialised, normal
from contracts.zoo import Case, case
from rightly.attributions import ExpectedGradients, Gradient, InputXGradient
from rightly.core import autodiff, operators
from rightly.core.engines import DoubleBackward, FiniteDifferences, TwoPhase
from rightly.core.frozen import FrozenMasks
from rightly.core.intercept import Unsupported
from rightly.spaces import Layer


def differences(subject, step=1e-3):
    parameters = list(subject.model.parameters())
    return FiniteDifferences(lambda: parameters, partial(autodiff.reading, subject.model, trainable=False), step)


def single(name="gelu"):
    subject = case(name)
    return Case(subject.model.float().eval(), subject.inputs.float(), subject.labels)


@pytest.mark.parametrize(("start", "better"), [(1e-1, "smaller"), (1e-5, "larger")])
def test_the_step_moves_to_where_differences_agree(start, better):
    subject = single()
    engine = differences(subject, start)
    phi = explain(Gradient(output="loss"), subject, engine)
    (phi**2).sum().backward(retain_graph=True)
    moved = engine.step
    assert (moved < start) if better == "smaller" else (moved > start)
    (phi**2).sum().backward()
    assert engine.step == moved, "it is adapted now and then, not at every step"


@pytest.mark.parametrize("start", [1e-1, 1e-5])
def test_adapting_lowers_the_error(start):
    before = relative_error(differences(single(), start), single(), Gradient(output="loss"))
    subject = single()
    engine = differences(subject, start)
    for _ in range(3):
        engine.calls = 0
        (explain(Gradient(output="loss"), subject, engine) ** 2).sum().backward()
    subject = single()
    after = relative_error(differences(subject, engine.step), subject, Gradient(output="loss"))
    assert after < before


def test_the_step_stays_within_bounds():
    """Of a linear model a wide difference is the best one, of a curved one in float64 a narrow one."""
    linear = Case(initialised(nn.Sequential(nn.Linear(6, 3))).float(), single().inputs, single().labels)
    for subject, start in ((linear, 1e-1), (case("gelu"), 1e-5), (single(), 1e-1), (single(), 1e-5)):
        engine = differences(subject, start)
        for _ in range(12):
            engine.calls = 0
            (explain(Gradient(output="loss"), subject, engine) ** 2).sum().backward()
            assert 1e-5 <= engine.step <= 1e-1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_at_zero_and_cotangents_of_zero_are_finite(dtype):
    model = initialised(nn.Sequential(nn.Linear(6, 5), nn.Softplus(), nn.Linear(5, 3))).to(dtype)
    for inputs in (torch.zeros(3, 6), torch.eye(3, 6) * torch.tensor([[0.0], [1.0], [1e-30]])):
        subject = Case(model, inputs.to(dtype), torch.tensor([0, 1, 2]))
        for weights in (torch.zeros(3, 1), torch.ones(3, 1), torch.tensor([[0.0], [1.0], [0.0]])):
            phi = explain(Gradient(output="loss"), subject, differences(subject))
            grads = torch.autograd.grad((weights.to(dtype) * phi).sum(), model[0].weight)
            assert grads[0].isfinite().all()
            assert bool(grads[0].abs().sum() > 0) == bool(weights.any())


def test_signs_alternate_so_that_errors_of_second_order_cancel():
    """Two equal points: their errors are opposite up to fourth order."""
    subject = case("gelu")
    subject = Case(subject.model, subject.inputs[:1].repeat(2, 1), subject.labels[:1].repeat(2))
    error = relative_error(differences(subject, 1e-2), subject, Gradient())
    alone = Case(subject.model, subject.inputs[:1], subject.labels[:1])
    one = relative_error(differences(alone, 1e-2), alone, Gradient())
    assert 0 < one < 0.1
    phi = explain(Gradient(), subject, differences(subject, 1e-2))
    exact = explain(Gradient(), subject, DoubleBackward())
    weight = subject.model[0].weight
    found, right = (torch.autograd.grad(p.sum(), weight)[0] for p in (phi, exact))
    phi = explain(Gradient(), alone, differences(alone, 1e-2))
    single_point = 2 * torch.autograd.grad(phi.sum(), weight)[0]
    assert (found - right).norm() < 0.2 * (single_point - right).norm()
    assert error < 0.5


def test_differences_refuse_points_that_are_trained():
    subject = case("gelu")
    with pytest.raises(Unsupported, match="depend on parameters"):
        explain(InputXGradient(space=Layer("0")), subject, differences(subject))


def test_two_phases_add_what_the_chunks_give():
    weight = torch.tensor([2.0, 3.0], dtype=torch.float64, requires_grad=True)
    seen = []

    def part(number):
        def run(keep):
            seen.append((number, keep, torch.is_grad_enabled()))
            value = weight**2 * number
            return value if keep else value.detach()

        return run

    engine = TwoPhase(DoubleBackward(), 4, lambda: [weight], torch.enable_grad)
    total = engine.total([part(1), part(2), part(3)])
    assert [keep for _, keep, _ in seen] == [False] * 3
    assert torch.equal(total, 6 * weight.detach() ** 2)
    (found,) = torch.autograd.grad((total * torch.tensor([1.0, 10.0])).sum(), weight)
    assert [keep for _, keep, _ in seen[3:]] == [True] * 3
    assert torch.equal(found, 6 * 2 * weight.detach() * torch.tensor([1.0, 10.0]))


def test_two_phases_read_as_their_inner_engine_does():
    assert TwoPhase(DoubleBackward(), 1, list, None).twice
    assert not TwoPhase(FrozenMasks(), 1, list, None).twice
    assert DoubleBackward.twice
    assert not FrozenMasks.twice
    assert not FiniteDifferences.twice


@pytest.mark.parametrize("frozen", [True, False])
def test_parameters_that_are_not_reached_have_no_gradient(frozen):
    model = initialised(_Front(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))))
    model.unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
    subject = Case(model, normal(3, 6, seed=1), torch.tensor([0, 1, 2]))
    inner = FrozenMasks() if frozen else DoubleBackward()
    parameters = list(model.parameters())
    engine = TwoPhase(inner, 2, lambda: parameters, partial(autodiff.reading, model, trainable=inner.twice))
    phi = explain(ExpectedGradients(n_samples=2), subject, engine)
    found = torch.autograd.grad((phi**2).sum(), parameters, allow_unused=True)
    reached = {name for (name, _), grad in zip(model.named_parameters(), found, strict=True) if grad is not None}
    assert "unused" not in reached
    assert {"inner.0.weight", "inner.2.weight"} <= reached


class _Front(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


def test_the_functions_of_a_model_are_seen():
    with operators.operators() as seen:
        nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True), nn.Linear(2, 2), nn.LeakyReLU())(torch.ones(1, 2))
    assert {"linear", "relu", "leaky_relu"} <= seen.names
    assert {"relu", "leaky_relu"} <= operators.KINKED
    assert "linear" not in operators.KINKED


class _Reads(nn.Module):
    def forward(self, x):
        return x * 2 if self.training else x


class _Nested(nn.Module):
    def forward(self, x):
        def inner():
            return x * 2 if self.training else x

        return inner()


@pytest.mark.parametrize(
    ("module", "matters"),
    [
        (nn.Linear(2, 2), False),
        (nn.Dropout(0.5), True),
        (nn.Dropout(0.0), False),
        (nn.BatchNorm1d(2), True),
        (nn.BatchNorm1d(2, track_running_stats=False), False),
        (nn.InstanceNorm1d(2), False),
        (nn.RReLU(), True),
        (nn.LSTM(2, 2), False),
        (nn.LSTM(2, 2, 2, dropout=0.5), True),
        (nn.MultiheadAttention(2, 1, dropout=0.1), True),
        (nn.MultiheadAttention(2, 1), False),
        (nn.Sequential(nn.ReLU(), nn.Dropout2d()), True),
        (_Reads(), True),
        (_Nested(), True),
        (_Front(nn.ReLU()), False),
    ],
)
def test_where_the_mode_matters(module, matters):
    assert operators.mode_matters(module) is matters
    assert operators.mode_matters(module.eval()) is False


def test_memory_is_counted_once_a_tensor():
    x = torch.ones(10, dtype=torch.float64, requires_grad=True)

    def run():
        y = x * 1.0
        return (y.sin() + y.cos()).sum()

    assert operators.saved_bytes(run) == 80
