"""What every transform keeps: the model's output, the gradient, the residual, the parameters' graph."""

import numpy as np
import pytest
import torch
from torch import nn

import rightly as rt
from contracts.derivatives import check_gradient, check_term
from contracts.problems import (
    components,
    draws,
    images,
    initialised,
    normal,
    objective,
    space_of,
    vector_model,
    vectors,
)
from rightly.core.engines import DoubleBackward
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.frozen import FrozenMasks
from rightly.spaces.transform import Transform

TRANSFORMS = [entry for entry in components("space") if issubclass(entry.cls, Transform)]
LOSSY = {"linear", "latent"}


def test_there_are_four_transforms():
    assert {entry.name for entry in TRANSFORMS} >= {"fourier", "wavelet", "linear", "latent"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("make", [vectors, images], ids=["vectors", "images"])
@pytest.mark.parametrize("entry", TRANSFORMS, ids=lambda e: e.name)
def test_the_model_sees_the_example_itself(entry, make, dtype):
    problem = make()
    model, inputs = problem.model.to(dtype).eval(), problem.inputs.to(dtype)
    view = space_of(entry, tuple(inputs.shape[1:])).open(lambda x: x, inputs)
    seen = view.rest(view.coordinates, torch.arange(len(inputs)))
    assert (seen - inputs).abs().max() <= 4 * torch.finfo(dtype).eps * inputs.abs().max()
    through = space_of(entry, tuple(inputs.shape[1:])).open(model, inputs)
    outputs = through.rest(through.coordinates, torch.arange(len(inputs)))
    assert torch.allclose(outputs, model(inputs), rtol=1e-5 if dtype == torch.float32 else 1e-13, atol=0)


@pytest.mark.parametrize("name", sorted(LOSSY))
def test_a_residual_is_what_the_transform_loses(name):
    """Elsewhere the residual stays as it is, row by row; without it these would not be the examples at all."""
    inputs = normal(4, 6, seed=1)
    space = next(space_of(entry, (6,)) for entry in TRANSFORMS if entry.name == name)
    lost = inputs - space.decode(space.encode(inputs), (6,))
    assert lost.abs().max() > 0.1
    view = space.open(lambda x: x, inputs)
    rows = torch.tensor([2, 0, 2])
    points = normal(3, *view.coordinates.shape[1:], seed=2)
    assert torch.allclose(view.rest(points, rows), space.decode(points, (6,)) + lost[rows], rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["fourier", "wavelet"])
@pytest.mark.parametrize("make", [vectors, images], ids=["vectors", "images"])
def test_the_gradient_in_an_orthonormal_space_is_the_transformed_gradient(name, make):
    problem = make()
    entry = next(entry for entry in TRANSFORMS if entry.name == name)
    space = space_of(entry, tuple(problem.inputs.shape[1:]))
    plain = rt.Gradient()(problem.model, problem.inputs, problem.labels).attributions
    found = rt.Gradient(space=space)(problem.model, problem.inputs, problem.labels).attributions
    assert torch.allclose(found, space.encode(plain), rtol=0, atol=1e-13)


def test_an_identity_changes_nothing():
    problem = vectors()
    same = rt.spaces.Linear(torch.eye(6, dtype=torch.float64))
    for method in (rt.IntegratedGradients, rt.Occlusion, rt.InputXGradient):
        there = method(space=same)(problem.model, problem.inputs, problem.labels).attributions
        here = method()(problem.model, problem.inputs, problem.labels).attributions
        assert torch.allclose(there, here, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", [rt.Gradient, rt.ExpectedGradients], ids=lambda m: m.__name__)
@pytest.mark.parametrize("entry", TRANSFORMS, ids=lambda e: e.name)
def test_a_layer_can_be_transformed(entry, method):
    """The coordinates, and what they leave over, follow the parameters in front of the layer."""
    problem = vectors()
    arguments = {**entry.example((8,)), "of": rt.spaces.Layer("0")}
    term = rt.Term(method(space=entry.cls(**arguments)), rt.priors.L2())
    check_term(objective(problem, term), problem.inputs, problem.labels)


@pytest.mark.parametrize("entry", TRANSFORMS, ids=lambda e: e.name)
def test_one_of_several_inputs_can_be_transformed(entry):
    a, b = normal(3, 6, seed=1), normal(3, 6, seed=2)
    model = vector_model().eval()
    space = entry.cls(**{**entry.example((6,)), "of": rt.spaces.Input("b")})
    whole = rt.InputXGradient(space=space)(lambda a, b: model(a * b), {"a": a, "b": b}, torch.tensor([0, 1, 2]))
    alone = entry.cls(**entry.example((6,)))
    rows = [
        rt.InputXGradient(space=alone)(lambda x, i=i: model(a[i] * x), b[i : i + 1], torch.tensor([i])).attributions
        for i in range(3)
    ]
    assert torch.allclose(whole.attributions, torch.cat(rows), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["fourier", "wavelet", "linear"])
def test_frozen_masks_serve_products_with_matrices(name):
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    initialised(model).eval()
    entry = next(entry for entry in TRANSFORMS if entry.name == name)
    inputs, labels = normal(5, 6, seed=1), torch.tensor([0, 1, 2, 0, 1])
    slopes = []
    for engine in (DoubleBackward(), FrozenMasks()):
        method = rt.Gradient(space=space_of(entry, (6,)), output="loss")
        found = method(model, inputs, labels, create_graph=True, engine=engine, diagnostics=False)
        slopes.append(torch.autograd.grad(found.attributions.square().sum(), list(model.parameters())[:3]))
    for first, second in zip(*slopes, strict=True):
        assert torch.allclose(first, second, rtol=0, atol=1e-12)


class Coder(nn.Module):
    """With dropout and batch norm, which must be off while it is read."""

    def __init__(self, before, after):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(before, after), nn.BatchNorm1d(after), nn.Dropout(0.5), nn.Tanh())

    def forward(self, x):
        return self.body(x)


def test_an_autoencoder_is_read_and_left_alone():
    problem = vectors()
    encoder, decoder = initialised(Coder(6, 3), 5), initialised(Coder(3, 6), 6)
    encoder.body[3].eval()
    space = rt.spaces.Latent(encoder, decoder)
    before = [value.clone() for m in (encoder, decoder) for value in m.state_dict().values()]
    first, second = (
        rt.InputXGradient(space=space)(problem.model, problem.inputs, problem.labels).attributions for _ in range(2)
    )
    assert torch.equal(first, second)
    assert first.shape == (4, 3)
    assert [m.training for m in encoder.modules()] == [True, True, True, True, True, False]
    assert all(m.training for m in decoder.modules())
    after = [value for m in (encoder, decoder) for value in m.state_dict().values()]
    assert all(torch.equal(was, now) for was, now in zip(before, after, strict=True))
    assert all(p.grad is None for m in (encoder, decoder) for p in m.parameters())
    code = encoder.eval()(problem.inputs)
    assert torch.equal(space.encode(problem.inputs), code)


def test_attributions_follow_the_parameters_of_an_autoencoder():
    problem = vectors()
    encoder, decoder = initialised(Coder(6, 3), 5).eval(), initialised(Coder(3, 6), 6).eval()
    space = rt.spaces.Latent(encoder, decoder)

    def value():
        found = rt.InputXGradient(space=space)(problem.model, problem.inputs, problem.labels, create_graph=True)
        return found.attributions.square().sum()

    check_gradient(value, [*encoder.body[0].parameters(), *decoder.body[0].parameters()])


def test_attributions_follow_a_filter_that_is_trained():
    """The residual follows the filter too, so that the model is asked at the example itself whatever the filter is."""
    problem = vectors()
    low = rt.spaces.Wavelet("db2").bank.low.clone().requires_grad_()

    def value():
        space = rt.spaces.Wavelet(low, 1)
        found = rt.Gradient(space=space)(problem.model, problem.inputs, problem.labels, create_graph=True)
        return found.attributions.abs().sum()

    check_gradient(value, [low])


def test_training_with_a_prior_in_a_space():
    """A model that may look at anything is kept off the high frequencies."""
    inputs = torch.randn(200, 16, generator=draws(1))
    space = rt.spaces.Fourier()
    labels = (space.encode(inputs)[:, [2, 14]].sum(1) > 0).long()
    models = {}
    for weight in (0.0, 1.0):
        model = rt.models.mlp(16, (32,), 2, seed=0)
        term = rt.Term(rt.ExpectedGradients(space=space), rt.priors.FrequencyBand(0.0, 0.2, norm="l1"), weight)
        rt.fit(rt.Objective(model, nn.functional.cross_entropy, [term]), (inputs, labels), epochs=30, lr=1e-2, seed=0)
        phi = rt.InputXGradient(space=space)(model, inputs, labels).attributions
        bands = rt.functional.over_regions(phi.abs(), space.bands((16,), (0.0, 0.2, 1.0))).mean(0)
        models[weight] = float(bands[1] / bands.sum())
    assert models[0.0] > 0.3
    assert models[1.0] < 0.05


# --- contextual decomposition in a space


@pytest.mark.parametrize("entry", TRANSFORMS, ids=lambda e: e.name)
def test_regions_of_coordinates_are_decomposed(entry):
    """A linear model in a linear space has a closed form; the residual belongs to what is irrelevant."""
    model, inputs = nn.Linear(6, 3, bias=False).double(), normal(4, 6, seed=1)
    space = space_of(entry, (6,))
    coordinates = space.encode(inputs)
    regions = torch.stack([torch.arange(coordinates.shape[1]) % 2 == 0, torch.arange(coordinates.shape[1]) == 1])
    found = rt.contextual_decomposition(model, inputs, regions, space=space, unknown="shapley")
    assert torch.allclose(found.relevant + found.irrelevant, model(inputs)[:, None], rtol=0, atol=1e-12)
    if entry.name in ("fourier", "wavelet"):
        for number, region in enumerate(regions):
            expected = model(space.decode(coordinates * region, (6,)))
            assert torch.allclose(found.relevant[:, number], expected, rtol=0, atol=1e-12)


# --- dictionaries


def test_least_squares_coefficients():
    atoms, x = normal(3, 6, seed=1), normal(5, 6, seed=2)
    space = rt.spaces.Linear(atoms, mean=torch.arange(6.0))
    expected = np.linalg.lstsq(atoms.numpy().T, (x - torch.arange(6.0)).numpy().T, rcond=None)[0].T
    assert np.allclose(space.encode(x).numpy(), expected, rtol=0, atol=1e-12)


def test_atoms_may_be_shaped_like_examples():
    atoms, x = normal(3, 2, 4, 4, seed=1), normal(5, 2, 4, 4, seed=2)
    flat = rt.spaces.Linear(atoms.flatten(1)).encode(x)
    assert torch.equal(rt.spaces.Linear(atoms).encode(x), flat)
    assert rt.spaces.Linear(atoms).decode(flat, (2, 4, 4)).shape == x.shape


def _fitted(name):
    decomposition = pytest.importorskip("sklearn.decomposition", reason="needs the extra sklearn")
    x = normal(60, 8, seed=3).abs().numpy()
    made = {
        "pca": decomposition.PCA(3),
        "whitened": decomposition.PCA(3, whiten=True),
        "nmf": decomposition.NMF(3, random_state=0, max_iter=2000),
        "ica": decomposition.FastICA(3, random_state=0, max_iter=2000),
        "svd": decomposition.TruncatedSVD(3, random_state=0),
        "topics": decomposition.LatentDirichletAllocation(3, random_state=0),
    }[name]
    return made.fit(x), torch.from_numpy(x)


@pytest.mark.parametrize("name", ["pca", "whitened", "nmf", "ica", "svd", "topics"])
def test_fitted_transformers(name):
    transformer, x = _fitted(name)
    given = rt.spaces.Linear.fitted(transformer, coefficients="transform")
    assert np.allclose(given.encode(x).numpy(), transformer.transform(x.numpy()), rtol=0, atol=1e-10)
    least = rt.spaces.Linear.fitted(transformer)
    if name != "topics":
        expected = transformer.inverse_transform(transformer.transform(x.numpy()))
        assert np.allclose(given.decode(given.encode(x), (8,)).numpy(), expected, rtol=0, atol=1e-10)
    else:
        assert torch.allclose(least.dictionary.sum(1), torch.ones(3, dtype=torch.float64))
    if name in ("pca", "whitened", "ica"):
        assert torch.allclose(least.encode(x), given.encode(x), rtol=0, atol=1e-8)
    model = vector_model(features=8).eval()
    labels = torch.zeros(60, dtype=torch.long)
    for space in (least, given):
        found = rt.IntegratedGradients(n_steps=20, space=space)(model, x, labels)
        assert found.attributions.shape == (60, 3)
        assert found.completeness_gap.abs().max() < 1e-9


def test_given_coefficients_do_not_train_a_layer():
    given = rt.spaces.Linear(torch.eye(8)[:3], coefficients=lambda x: x[:, :3], of=rt.spaces.Layer("0"))
    problem = vectors()
    with pytest.raises(ArgumentError, match="do not follow"):
        rt.Gradient(space=given)(problem.model, problem.inputs, problem.labels)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: rt.spaces.Linear(torch.ones(6)), ShapeError),
        (lambda: rt.spaces.Linear(torch.ones(2, 6), mean=torch.ones(5)), ShapeError),
        (lambda: rt.spaces.Linear(torch.ones(2, 6), coefficients=3), ArgumentError),
        (lambda: rt.spaces.Linear(torch.ones(2, 5)).encode(torch.ones(3, 6)), ShapeError),
        (lambda: rt.spaces.Linear(torch.ones(2, 6), coefficients=lambda x: x).encode(torch.ones(3, 6)), ShapeError),
        (lambda: rt.spaces.Linear.fitted(object()), ArgumentError),
        (lambda: rt.spaces.Latent(3, torch.tanh), ArgumentError),
        (lambda: rt.spaces.Latent(nn.Linear, torch.tanh), ArgumentError),
        (lambda: rt.spaces.Latent(lambda x: x[:1], torch.tanh).encode(torch.ones(3, 6)), ShapeError),
        (lambda: rt.spaces.Latent(torch.tanh, lambda s: s[:, :2]).decode(torch.ones(3, 6), (6,)), ShapeError),
        (lambda: rt.spaces.Fourier(3), ArgumentError),
        (lambda: rt.spaces.Fourier(of=rt.spaces.Input), ArgumentError),
        (lambda: rt.spaces.Fourier(2).encode(torch.ones(3, 6)), ShapeError),
        (lambda: rt.spaces.Fourier().bands((6,), (0.2, 0.1)), ArgumentError),
        (lambda: rt.spaces.Wavelet(3), ArgumentError),
        (lambda: rt.spaces.Wavelet("db2", 0), ArgumentError),
        (lambda: rt.spaces.Wavelet(torch.ones(3)), ShapeError),
        (lambda: rt.spaces.Wavelet("db2", dims=2).encode(torch.ones(3, 6)), ShapeError),
    ],
)
def test_bad_arguments_are_named(make, error):
    with pytest.raises(error) as caught:
        make()
    assert caught.value.expected is not None
    assert caught.value.got is not None
