"""Simple models of wavelet coefficients, of peaks, and shallow trees."""

import numpy as np
import pytest
import torch
from torch import nn

import rightly as rt
from contracts.problems import draws, initialised, normal
from contracts.unchanged import check_unchanged
from rightly.core.errors import ArgumentError, ShapeError
from rightly.spaces.filters import bank

sklearn = pytest.importorskip("sklearn", reason="needs the extra sklearn")


def _signals(rows=300, seed=1):
    space = rt.spaces.Wavelet("db3", 2)
    signals = torch.randn(rows, 32, generator=draws(seed))
    finest = space.encode(signals)[:, 16:]
    return space, signals, finest.amax(1)


def test_features_are_the_largest_of_every_scale():
    space, signals, values = _signals()
    found, _ = rt.distillation.fit_predictor(space, signals, values, task="regression", largest=10)
    features = found.features(signals)
    assert features.shape == (300, 8 + 8 + 10)
    coefficients = space.encode(signals.double())
    for row in (0, 17):
        expected = []
        for scale in space.scales((32,)):
            own = sorted(coefficients[row][scale].tolist(), reverse=True)
            expected += own[:10]
        assert features[row].tolist() == pytest.approx(expected, abs=1e-5)


def test_regression_is_that_of_scikit_learn():
    space, signals, values = _signals()
    found, which = rt.distillation.fit_predictor([space], signals, values, task="regression", largest=4)
    assert which == 0
    features = found.features(signals).astype(np.float64)
    from sklearn.linear_model import LinearRegression

    said = LinearRegression().fit(features, values).predict(features)
    assert np.abs(said - found(signals)).max() < 0.05 * float(values.std())
    assert found.cross_validated > 0.95  # the largest detail is one of the features


def test_classification_says_log_odds_or_scores():
    space, signals, values = _signals()
    two = (values > values.median()).long()
    found, _ = rt.distillation.fit_predictor(space, signals, two, task="classification")
    said = found(signals)
    assert said.shape == (300,)
    assert ((said > 0) == two.numpy()).mean() > 0.9
    assert 0.9 < found.cross_validated <= 1
    three = torch.bucketize(values, values.quantile(torch.tensor([1 / 3, 2 / 3])))
    found, _ = rt.distillation.fit_predictor(space, signals, three, task="classification")
    assert found(signals).shape == (300, 3)
    assert (found(signals).argmax(1) == three.numpy()).mean() > 0.75
    assert -0.7 < found.cross_validated < 0


def test_the_wavelet_is_chosen_by_cross_validation():
    space, signals, values = _signals(1000)
    others = [rt.spaces.Wavelet("haar", 2), space, rt.spaces.Wavelet("db7", 2)]
    found, which = rt.distillation.fit_predictor(others, signals, values, task="regression", largest=2)
    assert which == 1
    alone, _ = rt.distillation.fit_predictor(space, signals, values, task="regression", largest=2)
    assert found.cross_validated == alone.cross_validated


def test_images_have_predictors_too():
    signals = torch.randn(60, 1, 8, 8, generator=draws(1))
    found, _ = rt.distillation.fit_predictor(
        rt.spaces.Wavelet("haar", 2, dims=2), signals, signals.sum((1, 2, 3)), task="regression", largest=4
    )
    assert found.features(signals).shape == (60, 12)
    assert found.cross_validated > 0.99


# --- peaks


def _peaks(values, edges):
    """Heights above all eight neighbours, away from the border, counted by hand."""
    found = [0] * (len(edges) + 1)
    for i in range(1, len(values) - 1):
        for j in range(1, len(values[0]) - 1):
            around = [values[i + a][j + b] for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]
            if values[i][j] > max(around):
                found[sum(edge < values[i][j] for edge in edges)] += 1
    return found


def test_peaks_are_counted_between_edges():
    maps = normal(3, 12, 10, seed=1)
    kernels = rt.distillation.map_kernels(bank("db3").low)
    edges = torch.tensor([[-0.5, 0.2, 1.0]]).expand(4, 3).double()
    found = rt.distillation.peak_counts(maps, kernels, edges)
    assert found.shape == (3, 16)
    for row in range(3):
        for k, kernel in enumerate(kernels):
            heights = [
                [
                    sum(
                        float(kernel[a, b] * maps[row, i + a - 1, j + b - 1])
                        for a in range(3)
                        for b in range(3)
                        if 0 <= i + a - 1 < 12 and 0 <= j + b - 1 < 10
                    )
                    for j in range(10)
                ]
                for i in range(12)
            ]
            assert found[row, 4 * k : 4 * k + 4].tolist() == _peaks(heights, [-0.5, 0.2, 1.0])


def test_kernels_are_centred_patches_of_the_products():
    low, high = bank("db2").low, bank("db2").high
    kernels = rt.distillation.map_kernels(low)
    assert kernels.shape == (4, 3, 3)
    assert torch.allclose(kernels[1:].flatten(1).sum(1), torch.zeros(3).double(), rtol=0, atol=1e-14)
    product = torch.outer(low, high)
    patches = [product[i : i + 3, j : j + 3] for i in range(2) for j in range(2)]
    best = max(patches, key=lambda patch: float(patch.flatten().var()))
    assert torch.allclose(kernels[1], best - best.mean())
    assert rt.distillation.map_kernels(bank("haar").low).shape == (4, 3, 3)


def test_the_nearest_counts_tell_the_parameter():
    parameters = torch.tensor([[0.1, 1.0], [0.2, 1.0], [0.3, 0.5]]).repeat_interleave(200, 0)
    counts = torch.poisson(10 + 40 * parameters[:, :1] * torch.tensor([1.0, 2.0, -0.2]), generator=draws(1))
    found = rt.distillation.NearestCounts.fit(counts, parameters)
    assert found.means.shape == (3, 3)
    assert (found(counts) == parameters).all(1).double().mean() > 0.75
    with pytest.raises(ShapeError, match="spread"):
        rt.distillation.NearestCounts.fit(counts[::200], parameters[::200])


# --- trees


def test_a_tree_finds_the_rule_behind_a_model():
    x = torch.randn(500, 4, generator=draws(1))
    model = lambda x: torch.stack([x[:, 1], 0.3 * torch.ones(len(x))], 1)  # noqa: E731  class 0 where x1 > 0.3
    found = rt.distill_tree(model, x, max_depth=2, features=["age", "pulse", "iron", "bmi"])
    assert found.fidelity > 0.98
    assert 0.5 < found.baseline < 0.75
    assert found.rows == 150
    assert "pulse <= 0.3" in found.rules or "pulse <= 0.2" in found.rules
    assert (found(x) == model(x).argmax(1)).double().mean() > 0.98
    assert found.tree.get_depth() <= 2


def test_a_tree_of_values():
    x = torch.rand(800, 3, generator=draws(1))
    found = rt.distill_tree(lambda x: (x[:, :1] > 0.5).float() * 3 + 0.01 * x[:, 1:2], x, task="regression")
    assert found.fidelity > 0.98
    assert found.baseline == 0.0


def test_fidelity_is_measured_on_other_rows():
    """A model of pure noise: a deep tree knows its own rows by heart and nothing else."""
    x = torch.randn(400, 5, generator=draws(1))
    model = lambda x: (1e6 * x.sum(1, keepdim=True)).sin()  # noqa: E731
    found = rt.distill_tree(model, x, max_depth=30, least=1)
    assert found.fidelity < 0.65
    assert found.fidelity == pytest.approx(found.baseline, abs=0.15)


def test_the_model_is_left_as_it_was():
    model = initialised(nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1)))
    x = normal(40, 6, seed=1)
    check_unchanged(lambda: rt.distill_tree(model, x), model, [x])


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: rt.distill_tree(torch.sum, torch.ones(3)), ShapeError),
        (lambda: rt.distill_tree(lambda x: x, torch.rand(9, 2), held_out=1.0), ArgumentError),
        (lambda: rt.distill_tree(lambda x: x, torch.rand(9, 2), task="ranking"), ArgumentError),
        (lambda: rt.distill_tree(lambda x: x, torch.rand(9, 2), task="regression"), ShapeError),
        (lambda: rt.distill_tree(lambda x: x, torch.rand(9, 2), features=["a"]), ShapeError),
        (lambda: rt.distill_tree(lambda x: x, torch.rand(9, 2), max_depth=0), ArgumentError),
        (lambda: rt.distillation.fit_predictor([], torch.rand(9, 4), torch.rand(9), task="regression"), ArgumentError),
        (
            lambda: rt.distillation.fit_predictor(
                rt.spaces.Wavelet("haar"), torch.rand(9, 4), torch.rand(8), task="regression"
            ),
            ShapeError,
        ),
        (
            lambda: rt.distillation.fit_predictor(
                rt.spaces.Wavelet("haar"), torch.rand(9, 4), torch.rand(9), task="ranking"
            ),
            ArgumentError,
        ),
        (lambda: rt.distillation.peak_counts(torch.rand(2, 5), torch.rand(1, 3, 3), torch.rand(1, 2)), ShapeError),
    ],
)
def test_bad_arguments_are_named(make, error):
    with pytest.raises(error) as caught:
        make()
    assert caught.value.expected is not None
    assert caught.value.got is not None
