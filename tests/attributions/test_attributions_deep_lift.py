"""DeepLIFT adds up exactly, is what the paper and captum say it is, and is trained through with the right gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

import rightly as rt
from contracts.problems import Attentive, Recurrent, components, initialised, kinked_model, normal, reference_of
from rightly.core import autodiff, secants
from rightly.core.errors import ArgumentError, DecompositionError

DOUBLE = torch.float64
LABELS = torch.tensor([0, 2, 1, 1])


class Applied(nn.Module):
    """A function between two linear layers, whose result lies where the function is defined."""

    def __init__(self, function, *, positive=False):
        super().__init__()
        self.function, self.positive = function, positive
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        h = self.first(x)
        if self.positive:
            h = 0.1 + 0.8 * h.sigmoid()
        return self.last(self.function(h))


def explained(model, inputs=None, labels=LABELS, **arguments):
    inputs = normal(4, 6, seed=1) if inputs is None else inputs
    return rt.DeepLift(**arguments)(model, inputs, labels)


def check_adds_up(model, inputs=None, labels=LABELS, **arguments):
    gap = explained(model, inputs, labels, **arguments).completeness_gap
    assert gap.abs().max() <= 1e-10, "the attributions miss what they explain"


ARGUMENTS = {
    "pow": (3,),
    "clamp": (-0.2, 0.4),
    "clip": (-0.2, 0.4),
    "clamp_min": (0.1,),
    "clamp_max": (0.2,),
    "threshold": (0.1, -1),
}


@pytest.mark.parametrize("name", sorted(secants.ELEMENTWISE))
def test_every_elementwise_function_adds_up(name):
    # acosh begins at 1
    shift = 2.0 if name == "acosh" else 0.0
    function = getattr(torch, name, None) or getattr(F, name)
    check_adds_up(initialised(Applied(lambda h: function(h + shift, *ARGUMENTS.get(name, ())), positive=True)))


@pytest.mark.parametrize(
    "function",
    [
        nn.ReLU(inplace=True),
        nn.LeakyReLU(0.1, inplace=True),
        nn.Hardtanh(inplace=True),
        nn.SiLU(inplace=True),
        nn.PReLU(5),
        nn.PReLU(),
        lambda h: h.relu_() + h.tanh(),
        lambda h: h**2,
        lambda h: abs(h),
        lambda h: F.relu(input=h, inplace=True),
        lambda h: F.max_pool1d(h[:, None], 2)[:, 0].repeat(1, 3)[:, :5],
    ],
)
def test_every_spelling_adds_up(function):
    check_adds_up(initialised(Applied(function)))


@pytest.mark.parametrize("reference", components("reference"), ids=lambda e: e.name)
def test_it_adds_up_against_any_reference(reference):
    check_adds_up(initialised(Applied(torch.relu)), reference=reference_of(reference, (6,)), n_samples=3)


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, 2, 1, 2),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        lambda h: torch.max_pool2d(h, 2),
        lambda h: F.max_pool3d(h[:, None], 2).flatten(1, 2),
    ],
)
def test_max_pooling_adds_up(pool):
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), Called(pool), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3))
    inputs = normal(4, 2, 6, 6, seed=2)
    model.double()(inputs)
    check_adds_up(initialised(model), inputs, reference=rt.references.InBatch(), n_samples=2)
    # where nothing is apart, the attributions are zero, not lost
    same = explained(model, inputs[:1].expand(4, -1, -1, -1), reference=rt.references.InBatch(), n_samples=2)
    assert same.attributions.abs().max() == 0


class Called(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_one_layer_of_relus_in_closed_form():
    model = initialised(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)))
    x, other = normal(4, 6, seed=3), normal(6, seed=4)
    (w, b), (v, _) = ((layer.weight, layer.bias) for layer in (model[0], model[2]))
    z, z0 = x @ w.T + b, other @ w.T + b
    slopes = (z.relu() - z0.relu()) / (z - z0)
    expected = (x - other) * torch.einsum("bj,bj,ji->bi", v[LABELS], slopes, w)
    found = explained(model, x, reference=rt.references.Constant(other)).attributions
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-12)


def test_what_a_maximum_loses_goes_to_where_the_larger_was():
    """Windows of two: the larger lies in the reference, then in the example, at another place than the smaller."""
    model = Called(lambda x: F.max_pool1d(x[:, None], 2).sum((1, 2)))
    x, other = torch.tensor([[1.0, 0.0, 4.0, 1.0]]), torch.tensor([0.0, 3.0, 1.0, 2.0])
    found = explained(model, x, torch.tensor([0]), reference=rt.references.Constant(other)).attributions
    torch.testing.assert_close(found, torch.tensor([[0.0, -2.0, 2.0, 0.0]]))


def test_where_the_two_are_the_same_the_slope_is_the_derivative():
    model = initialised(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)))
    x, other = normal(4, 6, seed=3), normal(4, 6, seed=3)
    other[:, 0] += 1e-9
    found = explained(model, x, reference=rt.references.Constant(other[0]), labels=LABELS).attributions
    gradient = rt.Gradient()(model, x, LABELS).attributions
    torch.testing.assert_close(found[0, 0], -1e-9 * gradient[0, 0], rtol=1e-6, atol=0)
    assert found[0, 1:].abs().max() == 0


def test_a_linear_model_gives_differences_times_gradients():
    model, x = initialised(nn.Linear(6, 3)), normal(4, 6, seed=5)
    gradient = rt.Gradient()(model, x, LABELS).attributions
    found = explained(model, x, reference=rt.references.Constant(0.3)).attributions
    torch.testing.assert_close(found, (x - 0.3) * gradient, rtol=0, atol=1e-12)


def _sines(model):
    """Weights that everybody can write down."""
    with torch.no_grad():
        for number, parameter in enumerate(model.double().parameters()):
            parameter.copy_(torch.sin(1.7 * torch.arange(parameter.numel()).double() + number).reshape(parameter.shape))
    return model


#: captum 0.9.0, DeepLift, of the two models below
CAPTUM = [
    [-0.0091957360825202, -0.08396627334329519, 0.004208618249851087, -0.05754169118078267],
    [-0.02156564652639952, -0.0016834131403910308, -0.0022009579605485013, -0.011553465944086615],
    [-0.020125133177936263, -0.006204242420288365, -0.01858852360015312, -0.015382905931597312],
]
CAPTUM_POOLED = [
    *(0.0, 0.3012795502903782, -0.027975385328341294, 0.0, 0.0, 0.0, 0.027961848089442617, -0.10740753882489752),
    *(-0.16701348862658516, -0.09286202073329504, 0.195488955133034, -0.029511324230955677, -0.050095701014681394),
    *(-0.005915528523032715, -0.07638812525565176, -0.35868234474865884, 0.020781934987639326, 0.00756845576030164),
]


def test_it_agrees_with_captum():
    layers = [nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3), nn.Softplus(), nn.Linear(3, 2)]
    inputs = torch.cos(2.3 * torch.arange(12, dtype=DOUBLE)).reshape(3, 4)
    baseline = rt.references.Constant(0.2)
    found = explained(_sines(nn.Sequential(*layers)), inputs, torch.tensor([0, 1, 1]), reference=baseline).attributions
    torch.testing.assert_close(found, torch.tensor(CAPTUM, dtype=DOUBLE), rtol=0, atol=1e-14)
    layers = [
        nn.Conv2d(1, 2, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(8, 3),
        nn.Sigmoid(),
        nn.Linear(3, 2),
    ]
    inputs = torch.cos(2.3 * torch.arange(72, dtype=DOUBLE)).reshape(2, 1, 6, 6)
    found = explained(_sines(nn.Sequential(*layers)), inputs, torch.tensor([0, 1]), reference=baseline).attributions
    torch.testing.assert_close(found[0].flatten()[:18], torch.tensor(CAPTUM_POOLED, dtype=DOUBLE), rtol=0, atol=1e-14)


# ------------------------------------------------------------------------------------------------------------ training


class Reparametrised(nn.Module):
    """A function of a weight alone, whose rows are no pairs of points."""

    def __init__(self):
        super().__init__()
        self.raw, self.slope, self.last = nn.Parameter(torch.randn(8, 6)), nn.PReLU(8), nn.Linear(8, 3)

    def forward(self, x):
        return self.last(self.slope(x @ F.softplus(self.raw).T) + F.gelu(x @ self.raw.tanh().T))


MODELS = {
    "smooth": lambda: initialised(
        nn.Sequential(
            nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 3)
        )
    ),
    "kinked": lambda: kinked_model(),
    "weights": lambda: initialised(Reparametrised()),
}


def check_gradient(name):
    """Of a mix of the attributions, against central differences of it."""
    model = MODELS[name]()
    inputs = normal(4, 1, 6, 6, seed=6) if name == "kinked" else normal(4, 6, seed=6)
    mix, method = normal(*inputs.shape, seed=7), rt.DeepLift(rt.references.Constant(0.1))

    def value():
        return (method(model, inputs, LABELS, create_graph=True).attributions * mix).sum()

    parameters = list(model.parameters())
    way = [normal(*parameter.shape, seed=8 + number) for number, parameter in enumerate(parameters)]
    found = autodiff.along(autodiff.parameter_gradient(value(), parameters), way)
    expected = autodiff.central_difference(lambda: value().item(), parameters, way, 1e-6)
    assert abs(found - expected) <= 1e-6 * max(1, abs(expected)), "the parameters' gradient is not that of the value"


@pytest.mark.parametrize("name", MODELS)
def test_the_parameters_gradient_is_true(name):
    check_gradient(name)


def test_training_makes_it_small_where_it_should_be():
    torch.manual_seed(0)
    x = torch.randn(256, 6)
    y = (x[:, 0] + x[:, 1] > 0).long()
    x[:, 1] = x[:, 0] + 0.1 * x[:, 1]
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))
    term = rt.Term(rt.DeepLift(rt.references.InBatch()), rt.priors.Irrelevant(), 10.0)
    irrelevant = torch.zeros(1, 6)
    irrelevant[0, 1] = 1
    run = rt.fit(
        rt.Objective(model, F.cross_entropy, [term]),
        (x, y, rt.Annotation(irrelevant=irrelevant)),
        epochs=40,
        lr=0.01,
        seed=0,
    )
    found = rt.DeepLift()(model, x, y).attributions.abs().mean(0)
    assert found[1] < 0.05 * found[0]
    assert set(run.engines.values()) == {"double-backward: DeepLift takes no input gradients"}


# -------------------------------------------------------------------------------------------------- planted defects


def test_a_derivative_in_the_place_of_a_slope_is_noticed(monkeypatch):
    monkeypatch.setattr(secants, "_slopes", lambda run, kinked, x, cotangent: autodiff.sent_back(run, x, cotangent))
    with pytest.raises(DecompositionError, match="misses"):
        check_adds_up(MODELS["smooth"]())


def test_a_slope_in_the_place_of_a_derivative_is_noticed(monkeypatch):
    """As it would be if training went back through the multipliers' own functions."""

    def forever(self, values, points, *, create_graph):
        self.sending = True
        return autodiff.gradient(values, points, create_graph=create_graph)

    monkeypatch.setattr(secants.secants, "gradient", forever)
    for name in MODELS:
        with pytest.raises(AssertionError, match="not that of the value"):
            check_gradient(name)


def test_a_maximum_that_loses_its_share_is_noticed(monkeypatch):
    monkeypatch.setattr(secants, "_winners", lambda run, x, cotangent: autodiff.sent_back(run_first(run), x, cotangent))
    with pytest.raises(DecompositionError, match="misses"):
        check_adds_up(kinked_model(), normal(4, 1, 6, 6, seed=6), reference=rt.references.InBatch())


def run_first(run):
    return lambda x: run(x)[0]


# -------------------------------------------------------------------------------------------------- what has no rule


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (nn.Softmax(1), "softmax"),
        (nn.LayerNorm(5), "layer_norm"),
        (lambda h: h * h.sigmoid(), "mul"),
        (lambda h: (h.abs() + 1).pow(h.abs()), "pow"),
        (lambda h: h.amax(1, keepdim=True) + h, "amax"),
        (lambda h: h * h.detach(), "mul"),
    ],
)
def test_what_has_no_rule_is_told(function, told):
    with pytest.raises(DecompositionError, match=told):
        explained(initialised(Applied(function)))


def test_attention_and_recurrent_layers_are_told():
    with pytest.raises(DecompositionError, match=r"attention|softmax"):
        explained(initialised(Attentive()), normal(4, 5, 8, seed=1))
    tokens = torch.arange(16).reshape(4, 4) % 11
    with pytest.raises(DecompositionError, match="lstm"):
        explained(initialised(Recurrent()), tokens, space=rt.spaces.Layer("embedding"))


@pytest.mark.parametrize("length", [3, 4])
def test_examples_that_do_not_come_first_are_told(length):
    model = initialised(Applied(lambda h: h.reshape(len(h), 1, 5).expand(-1, length, -1).transpose(0, 1).tanh().sum(0)))
    with pytest.raises(DecompositionError):
        explained(model)


def test_a_softmax_after_the_model_is_told_a_sigmoid_is_followed():
    model = initialised(Applied(torch.relu))
    with pytest.raises(DecompositionError, match="output='logit'"):
        explained(model, output="prob")
    check_adds_up(model, output=lambda outputs, labels: (outputs[:, 1] - outputs[:, 0]).sigmoid())


def test_checkpointing_is_refused():
    layers = initialised(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)))
    model = Called(lambda x: torch.utils.checkpoint.checkpoint(layers, x, use_reentrant=False))
    with pytest.raises(ArgumentError, match="checkpoint"):
        explained(model)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE], ids=str)
def test_a_large_constant_does_not_hide_a_product(dtype):
    inputs = torch.ones(2, 2, dtype=dtype)
    with pytest.raises(DecompositionError, match="mul"):
        rt.DeepLift()(lambda x: (x[:, :1] * x[:, 1:]) + 1e4, inputs)


def test_what_is_no_number_does_not_add_up():
    """The slope of the logarithm from zero."""
    with pytest.raises(DecompositionError, match="without bound"):
        rt.DeepLift()(lambda x: torch.log(x).sum(1, keepdim=True), torch.ones(2, 2))


@pytest.mark.parametrize("name", ["sqrt", "log", "reciprocal", "rsqrt"])
def test_functions_that_are_steep_at_zero_are_fine_there(name):
    """In single precision a thousandth is not nearly nothing."""
    function = getattr(torch, name)
    inputs, reference = torch.tensor([[4e-3, 1e-3], [2e-3, 5e-4]]), rt.references.Constant(2e-4)
    found = rt.DeepLift(reference)(lambda x: function(x).sum(1, keepdim=True), inputs).attributions
    torch.testing.assert_close(found, function(inputs) - function(torch.full_like(inputs, 2e-4)), rtol=1e-5, atol=0)


def test_functions_called_by_keyword():
    model = Applied(lambda h: F.relu(F.gelu(input=h), inplace=False))
    check_adds_up(initialised(model).to(DOUBLE))
