"""Interval bounds: never wrong at any point of the box, exact where they can be, refused where there is no rule."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from contracts import zoo
from contracts.problems import draws, initialised, normal
from rightly.core import autodiff
from rightly.core.intercept import Unsupported
from rightly.core.intervals import gradient_bounds, output_bounds

#: of the zoo, what has no rule, and the word by which the error names it
REFUSED = {
    "1-D": "prelu", "2-D": "prelu", "3-D": "prelu", "prelu": "prelu", "pools": "adaptive_max_pool2d",
    "branches": "gt", "counting": "gt", "precision kept": "gt", "ties": "gt", "kinks": "threshold",
    "extremes": "detach", "detached": "detach", "numpy": "detach", "sums": "diff", "scaled by a sum": "item",
    "gelu": "gelu", "transformer": "attention", "lstm": "lstm", "layer norm": "layer_norm", "softmax": "softmax",
    "batch statistics": "batch norm", "square": "mul", "gate": "mul", "matrix square": "t", "power": "pow",
    "quotient": "abs", "norm": "abs", "hypernet": "detach", "einsum": "einsum", "changed after detach": "detach",
    "written through a view": "in place", "read through a view": "in place", "hook on a tensor": "register_hook",
    "gradient reversal": "view_as", "hook on gradients": "view_as", "difference from a constant": "diff",
    "trained bounds": "clamp", "written into a buffer": "plain tensor",
    "dropout that is always on": "dropout", "scripted": "forward", "traced": "ScriptMethod",
}  # fmt: skip
#: whose gradient has a path of its own
UNDIFFERENTIATED = {"half recorded", "a Function of known operations"}
BOUNDED = [name for name in zoo.FITS | zoo.BENT if name not in REFUSED]


def _layers(*layers):
    return lambda: nn.Sequential(nn.Linear(6, 8), *layers, nn.Linear(8, 3))


def _pool(*layers):
    return lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(True), *layers, nn.Flatten(), nn.LazyLinear(3))


def _in_place(self, h):
    h = h + 0.3
    before = F.softplus(h.clone()) + torch.tanh(h)
    h.mul_(-3).sub_(0.1).sigmoid_()
    return torch.cat(tensors=[before[:, :3], h[:, 3:]], dim=1)


#: what the zoo does not have
MORE = {
    **{
        type(layer).__name__ + str(n): (_layers(layer), (6,))
        for n, layer in enumerate(
            [
                *(nn.Tanh(), nn.Sigmoid(), nn.Softplus(3, 2), nn.ELU(0.7), nn.CELU(1.5), nn.Softsign()),
                *(nn.LogSigmoid(), nn.Hardtanh(-0.3, 0.4), nn.ReLU6(), nn.LeakyReLU(0.2, True), nn.LeakyReLU(1.0)),
            ]
        )
    },
    "exp and clamp": (lambda: zoo.vectors(lambda self, h: (h / 3).exp().clamp(0.5, 2) + h.clamp_min(0.2))[0](), (6,)),
    "in place": (lambda: zoo.vectors(_in_place)[0](), (6,)),
    "transposed convolution": (
        lambda: nn.Sequential(nn.ConvTranspose2d(2, 3, 3, 2, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 144, 3)),
        (2, 6, 6),
    ),
    "overlapping max": (_pool(nn.MaxPool2d(3, 1, 1)), (2, 6, 6)),
    "odd max": (_pool(nn.MaxPool2d((2, 3), (1, 2), (0, 1), 1)), (2, 6, 6)),
    "max of one": (_pool(nn.MaxPool2d(1)), (2, 6, 6)),
    "means": (_pool(nn.AvgPool2d(3, 1, 1), nn.AdaptiveAvgPool2d(2)), (2, 6, 6)),
}


def _case(name):
    if name not in MORE:
        return zoo.case(name)
    make, shape = MORE[name]
    model = make()
    inputs = normal(3, *shape, seed=31)
    model.double()(inputs)  # lazy layers
    return zoo.Case(initialised(model), inputs, zoo.LABELS)


def _first_class(low, high):
    slope = torch.zeros_like(low)
    slope[:, 1] = 1
    return slope, slope


def _box(case, eps=0.05):
    """Every other value may move."""
    width = eps * (torch.rand(case.inputs.shape, generator=draws(1)) < 0.5).double()
    return case.inputs - width, case.inputs + width


def _points(low, high, count):
    """Random places, and corners."""
    for n in range(count):
        share = torch.rand(low.shape, generator=draws(100 + n)).double()
        yield low + (high - low) * (share.round() if n % 2 else share)


def _gradient(model, points):
    points = points.clone().requires_grad_()
    outputs = model(points)
    return outputs, autodiff.gradient(outputs[:, 1], points, create_graph=False)


@pytest.mark.parametrize("name", [*BOUNDED, *MORE])
def test_no_point_of_the_box_is_outside_the_bounds(name):
    """Outputs and input gradients at 200 points, and equality where the box is one point."""
    case = _case(name)
    low, high = _box(case)
    differentiable = name not in UNDIFFERENTIATED
    with autodiff.reading(case.model, trainable=True):
        least, most = output_bounds(case.model, low, high)
        assert bool((most - least > 1e-6).any())
        slopes = gradient_bounds(case.model, low, high, _first_class) if differentiable else None
        for points in _points(low, high, 200):
            outputs, gradient = _gradient(case.model, points)
            assert bool((outputs >= least - 1e-9).all() & (outputs <= most + 1e-9).all())
            if slopes is not None:
                assert bool((gradient >= slopes[0] - 1e-9).all() & (gradient <= slopes[1] + 1e-9).all())
        outputs, gradient = _gradient(case.model, case.inputs)
        for bound in output_bounds(case.model, case.inputs, case.inputs):
            assert torch.allclose(bound, outputs, rtol=1e-10, atol=1e-10)
        if differentiable:
            for bound in gradient_bounds(case.model, case.inputs, case.inputs, _first_class):
                assert torch.allclose(bound, gradient, rtol=1e-9, atol=1e-10)


def test_thousands_of_points_of_a_wide_box():
    """As wide as decoy regions are: from 0 to 1."""
    model = initialised(nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.Softplus(), nn.Linear(16, 3)))
    x = torch.rand(2, 6, generator=draws(0)).double()
    low, high = x.clone(), x.clone()
    low[:, :3], high[:, :3] = 0, 1
    least, most = output_bounds(model, low, high)
    below, above = gradient_bounds(model, low, high, _first_class)
    points = (low + (high - low) * torch.rand(5000, 1, 6, generator=draws(1)).double()).flatten(0, 1)
    outputs, gradient = _gradient(model, points)
    for found, (a, b) in ((outputs, (least, most)), (gradient, (below, above))):
        each = found.unflatten(0, (5000, 2))
        assert bool((each >= a - 1e-12).all() & (each <= b + 1e-12).all())
        assert bool((each.amax(0) - each.amin(0) > 0.05 * (b - a)).any())  # and not absurdly wide


def test_linear_models_are_bounded_exactly():
    model = initialised(nn.Sequential(nn.Flatten(), nn.Linear(6, 3)))
    low, high = _box(zoo.Case(model, normal(3, 2, 3, seed=1), zoo.LABELS), 0.7)
    weight, bias = model[1].weight, model[1].bias
    middle, half = (low + high).flatten(1) / 2, (high - low).flatten(1) / 2
    least, most = output_bounds(model, low, high)
    assert torch.allclose(least, middle @ weight.T + bias - half @ weight.abs().T)
    assert torch.allclose(most, middle @ weight.T + bias + half @ weight.abs().T)
    for bound in gradient_bounds(model, low, high, _first_class):
        assert torch.allclose(bound.flatten(1), weight[1].expand(3, 6))


@pytest.mark.parametrize("layer", [nn.ReLU(), nn.Softplus(), nn.Tanh(), nn.Sigmoid(), nn.ELU(), nn.Hardtanh(-0.2, 0.5)])
def test_one_function_of_one_number_is_bounded_exactly(layer):
    """Against a fine grid: nothing is lost where nothing is added up."""
    for a, b in itertools.product((-1.0, -0.1, 0.3), (0.0, 0.4, 2.0)):
        low, high = torch.tensor([[a]]).double(), torch.tensor([[a + b]]).double()
        grid = torch.linspace(a, a + b, 4001).double()[:, None].requires_grad_()
        values = layer(grid)
        (slopes,) = torch.autograd.grad(values.sum(), grid)
        found = output_bounds(layer, low, high)
        assert torch.allclose(torch.cat(found), torch.stack([values.min(), values.max()])[:, None])
        one = torch.ones(1, 1).double()
        found = gradient_bounds(layer, low, high, lambda x, y: (one, one))
        assert torch.allclose(torch.cat(found), torch.stack([slopes.min(), slopes.max()])[:, None], atol=1e-3)


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rule_is_named(name):
    case = zoo.case(name)
    with autodiff.reading(case.model, trainable=True), pytest.raises(Unsupported, match=REFUSED[name]):
        output_bounds(case.model, case.inputs, case.inputs)


@pytest.mark.parametrize("name", UNDIFFERENTIATED)
def test_a_gradient_that_takes_another_path_is_refused(name):
    case = zoo.case(name)
    with pytest.raises(Unsupported, match="without gradients"):
        gradient_bounds(case.model, case.inputs, case.inputs, _first_class)


@pytest.mark.parametrize("function", [F.selu, lambda h: F.elu(h, 1.7), lambda h: F.max_pool1d(h, 2, ceil_mode=True)])
def test_slopes_without_a_rule_are_refused_and_outputs_are_not(function):
    x = normal(3, 1, 6, seed=1)
    least, most = output_bounds(function, x - 0.1, x + 0.1)
    assert bool((least <= function(x)).all() & (function(x) <= most).all())
    with pytest.raises(Unsupported, match="no bounds for the slope"):
        gradient_bounds(function, x, x, lambda a, b: (torch.ones_like(a), torch.ones_like(a)))


def test_a_constant_output_is_refused():
    with pytest.raises(Unsupported, match="does not depend"):
        output_bounds(lambda x: torch.ones(3, 2), torch.zeros(3, 6), torch.ones(3, 6))


@pytest.mark.parametrize(
    "function",
    [lambda x: x.clamp(0, 1), lambda x: x.clip(0, 1), lambda x: x.clamp_min(0), lambda x: x.clamp_max(1),
     lambda x: F.hardtanh(x, 0, 1), F.relu6],
)  # fmt: skip
def test_slopes_at_the_edges_of_a_clamp_are_those_of_torch(function):
    x = torch.tensor([[0.0, 1.0, 6.0, -0.5, 0.5]], requires_grad=True)
    slope = autodiff.gradient(function(x).sum(), x, create_graph=False)
    x = x.detach()
    for found in gradient_bounds(function, x, x, lambda low, high: (torch.ones_like(low), torch.ones_like(high))):
        assert torch.equal(found, slope)


def test_a_mask_of_truth_values_is_a_factor():
    low, high = torch.tensor([[-1.0, -2.0]]), torch.tensor([[3.0, 4.0]])
    mask = torch.tensor([True, False])
    for read in (lambda x: x * mask, lambda x: mask * x):
        found = output_bounds(read, low, high)
        assert torch.equal(found[0], low * mask)
        assert torch.equal(found[1], high * mask)


@pytest.mark.parametrize(
    ("read", "word"),
    [(lambda x: F.elu(x, -1.0), "elu"), (lambda x: F.celu(x, -1.0), "celu"), (lambda x: F.softplus(x, -1.0), "beta"),
     (lambda x: x.view(torch.int32), "view")],
)  # fmt: skip
def test_arguments_for_which_the_rules_do_not_hold_are_refused(read, word):
    with pytest.raises(Unsupported, match=word):
        output_bounds(read, torch.tensor([[-1.0]]), torch.tensor([[1.0]]))
