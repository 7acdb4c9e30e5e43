"""Occlusion windows and Grad-CAM maps."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rightly as rt
from contracts.problems import normal, vectors
from rightly.attributions.occlusion import _starts
from rightly.core.errors import ArgumentError


@given(st.integers(1, 20), st.data())
def test_every_place_is_covered_and_no_window_sticks_out(size, data):
    window, stride = data.draw(st.integers(1, size)), data.draw(st.integers(1, size))
    starts = _starts(size, window, stride)
    assert starts == sorted(set(starts))
    assert starts[0] == 0
    assert starts[-1] == size - window
    if stride <= window:
        assert {i for s in starts for i in range(s, s + window)} == set(range(size))


class _Sum(torch.nn.Module):
    """One output: a weighted sum of pixels."""

    def __init__(self, weights):
        super().__init__()
        self.weights = weights

    def forward(self, x):
        return (x * self.weights).flatten(1).sum(1)


@pytest.mark.parametrize(
    ("window", "stride"), [((2, 2), (2, 2)), ((3, 2), (1, 2)), ((2, 3), (2, 1)), ((4, 5), (1, 1)), ((1, 1), (1, 1))]
)
def test_each_feature_gets_the_mean_over_the_windows_that_cover_it(window, stride):
    """A sum over pixels loses, with a window, the weights inside it."""
    weights, x = normal(2, 4, 5, seed=1), torch.ones(1, 2, 4, 5, dtype=torch.float64)
    found = rt.Occlusion(window=window, stride=stride)(_Sum(weights), x).attributions[0]
    corners = list(itertools.product(*(_starts(n, w, s) for n, w, s in zip((4, 5), window, stride, strict=True))))
    lost = torch.zeros(4, 5, dtype=torch.float64)
    times = torch.zeros(4, 5, dtype=torch.float64)
    for i, j in corners:
        inside = (slice(i, i + window[0]), slice(j, j + window[1]))
        lost[inside] += weights[:, inside[0], inside[1]].sum()
        times[inside] += 1
    assert bool((times > 0).all())
    assert torch.allclose(found, (lost / times).expand(2, 4, 5), rtol=1e-12, atol=1e-12)


def test_a_stride_that_leaves_gaps_is_refused():
    """What no window covers would be divided by no windows: NaN."""
    with pytest.raises(ArgumentError, match="uncovered"):
        rt.Occlusion(window=(1,), stride=(3,))
    with pytest.raises(ArgumentError, match="uncovered"):
        rt.Occlusion(window=(3, 2), stride=(1, 3))


def test_channels_are_taken_away_together():
    found = rt.Occlusion(window=(1,))(_Sum(normal(3, 4, seed=2)), torch.ones(1, 3, 4, dtype=torch.float64)).attributions
    assert torch.allclose(found[0], normal(3, 4, seed=2).sum(0).expand(3, 4))


def test_without_a_window_single_features_are_taken():
    x = normal(2, 3, 4, seed=3)
    found = rt.Occlusion()(_Sum(normal(3, 4, seed=2)), x).attributions
    assert torch.allclose(found, x * normal(3, 4, seed=2))


def test_several_references_are_averaged():
    problem = vectors()
    call = (problem.model, problem.inputs, problem.labels)
    data = normal(3, 6, seed=4)
    found = rt.Occlusion(rt.references.Sample(data), window=(2,), n_samples=3)(*call).attributions
    each = [rt.Occlusion(rt.references.Constant(row), window=(2,))(*call).attributions for row in data]
    assert torch.allclose(found, sum(each) / 3, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_grad_cam_of_signals_pictures_and_volumes(dims):
    convolution = {1: torch.nn.Conv1d, 2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[dims]
    model = torch.nn.Sequential(convolution(1, 2, 3, stride=2), torch.nn.ReLU(), torch.nn.Flatten()).double()
    x = normal(2, 1, *[5] * dims, seed=5)
    labels = torch.tensor([0, 1])
    found = rt.GradCam(rt.spaces.Layer("1"))(model, x, labels)
    assert found.attributions.shape == (2, 1, *[5] * dims)
    assert bool((found.attributions >= 0).all())
    small = rt.GradCam(rt.spaces.Layer("1"), resize=False)(model, x, labels).attributions
    assert small.shape == (2, 1, *[2] * dims)


def test_smooth_grad_noise_scales_with_each_example():
    """Sigma is a share of the range: a constant example gets no noise, one ten times as wide ten times as much."""
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, x):
            seen.append(x.detach())
            return (x**2).sum(1)

    x = torch.tensor([[3.0, 3.0], [0.0, 1.0], [0.0, 10.0]], dtype=torch.float64)
    rt.SmoothGrad(n_samples=2000, sigma=0.3)(Spy(), x, diagnostics=False)
    noise = seen[0].reshape(3, 2000, 2) - x[:, None]
    assert not noise[0].any()
    assert noise[1].std() == pytest.approx(0.3, rel=0.05)
    assert noise[2].std() == pytest.approx(3.0, rel=0.05)


def test_var_grad_is_the_unbiased_variance():
    problem = vectors()
    call = (problem.model, problem.inputs, problem.labels)
    kinds = {}
    for kind in ("mean", "square", "variance"):
        method = rt.SmoothGrad(n_samples=5, kind=kind)
        kinds[kind] = method(*call, generator=torch.Generator().manual_seed(1)).attributions
    expected = (kinds["square"] - kinds["mean"] ** 2) * 5 / 4
    assert torch.allclose(kinds["variance"], expected, rtol=1e-10, atol=1e-14)
