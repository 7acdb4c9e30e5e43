"""Adaptive wavelets: valid filters for any angle, gradients without the model, the wavelet behind the labels found."""

import math

import pytest
import torch
from torch import nn

import rightly as rt
from contracts.derivatives import check_gradient
from contracts.problems import draws, normal
from contracts.unchanged import check_unchanged
from rightly.core.errors import ArgumentError, ShapeError
from rightly.distillation.lattice import angles_of, filter_of
from rightly.distillation.losses import reconstruction, sparsities, validity
from rightly.spaces.filters import Bank, bank
from rightly.spaces.wavelet import analyse

# --- the lattice


def rotations(angles):
    """The filter from the definition: two polyphase polynomials, delayed and rotated as matrices of numbers."""
    even, odd = [math.cos(angles[0])], [math.sin(angles[0])]
    for angle in angles[1:]:
        cos, sin = math.cos(angle), math.sin(angle)
        even, odd = [*even, 0.0], [0.0, *odd]
        even, odd = (
            [cos * e - sin * o for e, o in zip(even, odd, strict=True)],
            [sin * e + cos * o for e, o in zip(even, odd, strict=True)],
        )
    return [tap for pair in zip(even, odd, strict=True) for tap in pair]


@pytest.mark.parametrize("size", [0, 1, 2, 4, 9])
@pytest.mark.parametrize("seed", range(4))
def test_every_angle_gives_a_valid_wavelet(size, seed):
    angles = 3 * normal(size, seed=seed)
    low = filter_of(angles)
    whole = [*angles.tolist(), math.pi / 4 - float(angles.sum())]
    assert torch.allclose(low, torch.tensor(rotations(whole), dtype=torch.float64), rtol=0, atol=1e-13)
    assert max(float(value) for value in validity(low).values()) < 1e-24
    x = normal(3, 32, seed=seed)
    assert float(reconstruction(low, x, 3, 1)) < 1e-24
    assert torch.allclose(filter_of(angles_of(low)), low, rtol=0, atol=1e-9)


@pytest.mark.parametrize("moments", range(1, 11))
def test_daubechies_filters_have_angles(moments):
    low = bank(f"db{moments}").low
    assert torch.allclose(filter_of(angles_of(low)), low, rtol=0, atol=1e-12)


def test_other_filters_have_none():
    with pytest.raises(ShapeError, match="no orthogonal low-pass filter"):
        angles_of(torch.tensor([0.5, 0.5, 0.3, 0.1]))


def test_the_filter_follows_its_angles():
    angles = normal(4, seed=1).requires_grad_()
    way = normal(10, seed=2)
    check_gradient(lambda: (filter_of(angles) * way).sum(), [angles])


# --- the losses


def test_validity_from_the_definition():
    low = normal(6, seed=1)
    h = low.tolist()
    g = [(-1) ** i * h[5 - i] for i in range(6)]
    found = validity(low)
    assert float(found["low_sum"]) == pytest.approx((sum(h) - math.sqrt(2)) ** 2 / 2)
    assert float(found["high_sum"]) == pytest.approx(sum(g) ** 2 / 2)
    assert float(found["norm"]) == pytest.approx((sum(v * v for v in h) - 1) ** 2 / 2)

    def power(w):
        real, imag = (sum(v * f(w * n) for n, v in enumerate(h)) for f in (math.cos, math.sin))
        return real**2 + imag**2

    turns = [2 * math.pi * k / 6 for k in range(3)]
    expected = sum((power(w) + power(w + math.pi) - 2) ** 2 for w in turns) / 2
    assert float(found["modulus"]) == pytest.approx(expected)
    shifts = [sum(h[n] * h[n - 2 * k] for n in range(6) if 0 <= n - 2 * k < 6) - (k == 0) for k in range(-2, 3)]
    assert float(found["shift"]) == pytest.approx(sum(v * v for v in shifts) / 2)


def test_the_other_losses_from_the_definition():
    low, x, slopes = normal(4, seed=1), normal(3, 16, seed=2), normal(3, 16, seed=3)
    space = rt.spaces.Wavelet(low, 2)
    l1, attributed = sparsities(low, x, slopes, 2, 1, False)
    assert float(l1) == pytest.approx(float(space.encode(x).abs().sum()) / 3 / 3)
    assert float(attributed) == pytest.approx(float(space.encode(slopes).abs().sum()) / 3 / 3)
    product = (space.encode(x) * space.encode(slopes)).abs().sum() / 9
    assert float(sparsities(low, x, slopes, 2, 1, True)[1]) == pytest.approx(float(product))
    off = x - space.decode(space.encode(x), (16,))
    assert float(reconstruction(low, x, 2, 1)) == pytest.approx(float(off.square().sum()) / 3)
    assert off.abs().max() > 0.1


@pytest.mark.parametrize("seed", range(3))
def test_losses_follow_the_filter(seed):
    low, x, slopes = normal(6, seed=seed).requires_grad_(), normal(3, 16, seed=2), normal(3, 16, seed=3)

    def value():
        return sum(validity(low).values()) + sum(sparsities(low, x, slopes, 2, 1, True)) + reconstruction(low, x, 2, 1)

    check_gradient(value, [low])


# --- the cached gradient


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(1, 6, batch_first=True), nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.lstm(x[..., None])[0][:, -1])


def _teacher(kind):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = {
            "mlp": lambda: nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 2)),
            "lstm": Recurrent,
        }[kind]()
    return made.double()


@pytest.mark.parametrize("product", [False, True], ids=["gradient", "product"])
@pytest.mark.parametrize("parametrisation", ["lattice", "penalty"])
@pytest.mark.parametrize("kind", ["mlp", "lstm"])
def test_the_cached_gradient_gives_what_autograd_gives(kind, parametrisation, product):
    """Loss and filter gradient of the attribution term, against two passes of autograd through model and transform.

    Twelve steps are filled up to sixteen, so that the space is larger than the signal.
    """
    model, x = _teacher(kind), normal(5, 12, seed=1)
    before = normal(2, seed=4) if parametrisation == "lattice" else bank("db3").low + 0.1 * normal(6, seed=4)
    losses, slopes = [], []
    for cached in (True, False):
        parameters = before.clone().requires_grad_()
        low = filter_of(parameters) if parametrisation == "lattice" else parameters
        if cached:
            given = rt.distillation.input_gradients(model, x)
            loss = sparsities(low, x, given, 3, 1, product)[1]
        else:
            method = (rt.InputXGradient if product else rt.Gradient)(
                space=rt.spaces.Wavelet(low, 3), target="predicted"
            )
            found = method(model, x, create_graph=True, diagnostics=False).attributions
            loss = found.abs().sum() / len(x) / 4
        losses.append(float(loss.detach()))
        slopes.append(torch.autograd.grad(loss, parameters)[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    assert torch.allclose(*slopes, rtol=1e-10, atol=1e-12)
    assert slopes[0].abs().max() > 1e-4


PATHS = {
    "ig": lambda x, **of: rt.IntegratedGradients(n_steps=7, **of),
    "ig_two": lambda x, **of: rt.IntegratedGradients(rt.references.Sample(x), n_steps=4, n_samples=2, **of),
    "eg": lambda x, **of: rt.ExpectedGradients(rt.references.Sample(x), n_samples=3, **of),
    "eg_recentred": lambda x, **of: rt.ExpectedGradients(n_samples=4, recentred=True, **of),
}


@pytest.mark.parametrize("way", PATHS)
@pytest.mark.parametrize("kind", ["mlp", "lstm"])
def test_cached_paths_give_what_autograd_gives(kind, way):
    """Loss and filter gradient of the attribution term, against two passes of autograd through model and transform."""
    model, x = _teacher(kind), normal(5, 12, seed=1)
    losses, slopes = [], []
    for cached in (True, False):
        parameters = normal(2, seed=4).requires_grad_()
        low = filter_of(parameters)
        draws = torch.Generator().manual_seed(6)
        if cached:
            given = rt.distillation.path_gradients(
                PATHS[way](x, target="predicted"), model, x, generator=draws, chunk_size=8
            )
            loss = sparsities(low, x, given.gradients, 3, 1, True, given.moves)[1]
        else:
            method = PATHS[way](x, space=rt.spaces.Wavelet(low, 3), target="predicted")
            found = method(model, x, create_graph=True, diagnostics=False, generator=draws).attributions
            loss = found.abs().sum() / len(x) / 4
        losses.append(float(loss.detach()))
        slopes.append(torch.autograd.grad(loss, parameters)[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    assert torch.allclose(*slopes, rtol=1e-9, atol=1e-11)
    assert slopes[0].abs().max() > 1e-4


@pytest.mark.parametrize("way", PATHS)
def test_the_factors_of_a_path_multiply_to_the_attribution(way):
    model, x = _teacher("mlp"), normal(5, 12, seed=1)
    method = PATHS[way](x, target=1)
    given = rt.distillation.path_gradients(method, model, x, chunk_size=7)
    expected = method(model, x, diagnostics=False).attributions
    assert given.moves.shape == (5, method.n_samples, 12)
    if way == "ig":
        torch.testing.assert_close(given.moves[:, 0], x, rtol=1e-12, atol=0)
    torch.testing.assert_close(given.attributions, expected, rtol=1e-12, atol=1e-14)


def test_a_wavelet_is_distilled_from_paths_without_calling_the_model_again():
    model, x = _teacher("mlp"), normal(20, 12, seed=1)
    method = rt.IntegratedGradients(n_steps=5, target=1)
    arguments = {"wavelet": "db2", "levels": 2, "steps": 5, "restarts": 3}
    found = rt.distill_wavelet(model, x, attribution=method, **arguments)
    again = rt.distill_wavelet(None, x, gradients=rt.distillation.path_gradients(method, model, x), **arguments)
    other = rt.distill_wavelet(model, x, target=1, attribution="input_x_gradient", **arguments)
    assert torch.equal(found.low, again.low)
    assert not torch.equal(found.low, other.low)
    shown = method.__class__(n_steps=5, target=1, space=found.space())(model, x, diagnostics=False).attributions
    assert found.losses["attributions"] == pytest.approx(float(shown.abs().sum()) / len(x) / 3, rel=1e-9)


def test_attributions_without_such_factors_are_refused():
    model, x = _teacher("mlp"), normal(5, 12, seed=1)
    for bad in (rt.Gradient(), rt.IntegratedGradients(space=rt.spaces.Wavelet("db2", 2))):
        with pytest.raises(ArgumentError, match="paths"):
            rt.distillation.path_gradients(bad, model, x)
    with pytest.raises(ArgumentError, match="attribution"):
        rt.distill_wavelet(model, x, attribution=rt.Gradient())
    given = rt.distillation.path_gradients(rt.IntegratedGradients(n_steps=2, target=1), model, x)
    with pytest.raises(ShapeError, match="every signal"):
        rt.distill_wavelet(None, x[:4], gradients=given)
    with pytest.raises(ShapeError, match="move"):
        rt.distillation.PathGradients(given.moves, given.gradients[:, 0])


def test_no_step_calls_the_model():
    calls = []

    def model(x):
        calls.append(len(x))
        return x[:, :1] ** 2

    for steps in (2, 9):
        calls.clear()
        rt.distill_wavelet(model, normal(10, 16, seed=1), wavelet="db2", steps=steps, restarts=2)
        assert calls == [10]


def test_the_teacher_is_left_as_it_was():
    model, x = _teacher("mlp").train(), normal(10, 12, seed=1)
    check_unchanged(lambda: rt.distill_wavelet(model, x, wavelet="db2", steps=2, restarts=2), model, [x])


# --- the distillation


def _problem(seed=0, n=32, rows=400, dims=1, wavelet="db2"):
    """Gradients that are two coefficients of a wavelet, nearly; signals without a hint of it."""
    x = torch.randn(rows, *(n,) * dims, generator=draws(seed))
    space = rt.spaces.Wavelet(wavelet, 2, dims=dims)
    chosen = torch.zeros(1, *(n,) * dims)
    where = (n // 2 + 3,) if dims == 1 else (n // 4 + 1, 5)
    chosen[(0, *where)], chosen[(0, *(w - 2 for w in where))] = 2.0, -1.5
    slopes = space.decode(chosen, tuple(x.shape[1:])) + 0.02 * torch.randn(x.shape, generator=draws(seed + 1))
    return x, slopes


AWAY = filter_of(angles_of(bank("db2").low) + 1.0)


@pytest.mark.parametrize("dims", [1, 2])
def test_a_wavelet_is_found_again(dims):
    x, slopes = _problem(dims=dims, n=32 if dims == 1 else 16)
    found = rt.distill_wavelet(
        None, x, gradients=slopes, wavelet=AWAY, levels=2, dims=dims, steps=60, restarts=12, batch_size=32
    )
    assert rt.distillation.filter_distance(AWAY, bank("db2").low) > 0.25
    assert found.distance("db2") < 0.02
    assert found.losses["total"] == pytest.approx(min(found.finals))
    assert found.losses["total"] == pytest.approx(found.losses["attributions"])
    assert max(found.losses[name] for name in ("low_sum", "high_sum", "norm", "modulus", "shift")) < 1e-20


def test_penalties_lead_near_a_wavelet():
    x, slopes = _problem()
    start = bank("db2").low + 0.1 * normal(4, seed=1)
    found = rt.distill_wavelet(
        None, x, gradients=slopes, wavelet=start, levels=2, parametrisation="penalty", restarts=1, steps=300,
        interpretation=0.05,
    )  # fmt: skip
    assert found.distance("db2") < 0.05
    assert found.losses["reconstruction"] < 0.1
    assert found.losses["total"] == pytest.approx(
        sum(
            v * {"attributions": 0.05, "coefficients": 0.0}.get(k, 1.0) for k, v in found.losses.items() if k != "total"
        )
    )


def test_sparsity_alone_is_the_sparsest_of_wavelets():
    """One free angle: the filter that is found is at least as sparse as any on a fine grid."""
    x = rt.spaces.Wavelet("db2", 2).decode(
        torch.randn(200, 32, generator=draws(1)) * (torch.rand(200, 32, generator=draws(2)) < 0.1), (32,)
    )
    found = rt.distill_wavelet(
        None, x, gradients=torch.zeros_like(x), wavelet="db2", levels=2, sparsity=1.0, interpretation=0.0, steps=80,
        restarts=8, batch_size=200,
    )  # fmt: skip
    grid = [
        float(sparsities(filter_of(torch.tensor([a], dtype=torch.float64)), x, x, 2, 1, False)[0])
        for a in torch.linspace(-math.pi, math.pi, 200)
    ]
    assert found.losses["coefficients"] <= min(grid) * 1.001


def test_the_same_seed_gives_the_same_filter():
    x, slopes = _problem()
    found = [
        rt.distill_wavelet(None, x, gradients=slopes, wavelet="db3", steps=5, restarts=3, batch_size=64, seed=seed)
        for seed in (0, 0, 1)
    ]
    assert torch.equal(found[0].low, found[1].low)
    assert not torch.equal(found[0].low, found[2].low)


def test_starts_do_not_see_each_other():
    """All are trained at once; the one that starts at the wavelet ends where it would have ended alone."""
    from rightly.distillation.wavelets import _Work

    x, slopes = _problem()
    base = bank("db3").low
    work = _Work(x, slopes, None, base, 2, 1, False, "lattice", 10, 64, 0.02, 1, 1.0, 0)
    weights = {"coefficients": 0.1, "attributions": 1.0}
    both = torch.stack([work.own(base), work.own(base) + 0.5])
    together, histories = work.train(both, weights, 10, 0.02, 64)
    for row in range(2):
        alone, history = work.train(both[row : row + 1], weights, 10, 0.02, 64)
        assert torch.allclose(together[row], alone[0], rtol=0, atol=1e-5)
        assert torch.allclose(histories[row], history[0], rtol=1e-5, atol=0)


def test_a_path_goes_on_from_the_filter_before():
    x, slopes = _problem()
    arguments = {"gradients": slopes, "wavelet": AWAY, "levels": 2, "steps": 30, "restarts": 8, "batch_size": 64}
    found = rt.distill_wavelet(None, x, sparsity=[0.0, 0.01], interpretation=[0.0, 0.5, 1.0], **arguments)
    strengths = [(step.sparsity, step.interpretation) for step in found.path]
    assert strengths == [(s, i) for s in (0.0, 0.01) for i in (0.0, 0.5, 1.0)]
    assert torch.equal(found.low, found.path[-1].low)
    assert [len(step.finals) for step in found.path] == [4, 1, 1, 1, 1, 1]
    again = rt.distill_wavelet(
        None, x, sparsity=0.0, interpretation=0.5, **{**arguments, "wavelet": found.path[0].low, "restarts": 1}
    )
    assert torch.allclose(again.low, found.path[1].low, rtol=0, atol=1e-6)
    second = rt.distill_wavelet(
        None, x, sparsity=0.01, interpretation=0.0, **{**arguments, "wavelet": found.path[0].low, "restarts": 1}
    )
    assert torch.allclose(second.low, found.path[3].low, rtol=0, atol=1e-6)


# --- what is asked of a wavelet


def test_the_cascade_solves_the_two_scale_equation():
    low = bank("db2").low
    drawn = rt.distillation.cascade(low, 9)
    step = 2**9
    assert float(drawn.times[-1]) == 3
    root = math.sqrt(3)
    assert float(drawn.scaling[step]) == pytest.approx((1 + root) / 2, abs=0.08)  # known at 1 and 2; slow to come near
    assert float(drawn.scaling[2 * step]) == pytest.approx((1 - root) / 2, abs=0.08)
    area = lambda values: float(values.sum()) / step  # noqa: E731
    assert area(drawn.scaling) == pytest.approx(1.0, abs=1e-9)
    assert area(drawn.scaling**2) == pytest.approx(1.0, abs=1e-2)
    assert area(drawn.wavelet) == pytest.approx(0.0, abs=1e-9)
    assert area(drawn.wavelet * drawn.times) == pytest.approx(0.0, abs=1e-2)
    assert area(drawn.wavelet**2) == pytest.approx(1.0, abs=1e-2)
    assert area(drawn.scaling * drawn.wavelet) == pytest.approx(0.0, abs=1e-2)


def test_the_cascade_of_haar_is_a_box():
    drawn = rt.distillation.cascade(bank("haar").low, 3)
    assert torch.allclose(drawn.scaling, torch.tensor([1.0] * 8 + [0]).double(), rtol=0, atol=1e-14)
    assert torch.allclose(drawn.wavelet, torch.tensor([1.0] * 4 + [-1.0] * 4 + [0]).double(), rtol=0, atol=1e-14)


def test_distances():
    low = bank("db3").low
    assert rt.distillation.filter_distance(low, low.flip(0)) == 0
    assert rt.distillation.filter_distance(low, low.roll(2)) == 0
    padded = torch.cat([torch.zeros(2), bank("db2").low])
    assert rt.distillation.filter_distance(padded, bank("db2").low) == pytest.approx(0, abs=1e-7)
    assert rt.distillation.filter_distance(torch.tensor([1.0, 0]), torch.tensor([0.6, 0.8])) == pytest.approx(
        math.sqrt(0.2 + 0.2)
    )


def test_compression_counts_what_is_large_twice():
    space = rt.spaces.Wavelet("haar", 1)
    coefficients = torch.tensor([[1.0, 0.0, 2.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    slopes = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.5, 0.005, 3.0, 0.0]])
    x, g = space.decode(coefficients, (4,)), space.decode(slopes, (4,))
    assert rt.distillation.compression(space, x, g, 1e-2) == pytest.approx(2 / 8)
    assert rt.distillation.compression(space, x, g, 1e-3) == pytest.approx(3 / 8)
    with pytest.raises(ShapeError, match="gradient for every signal"):
        rt.distillation.compression(space, x, g[:1])


def test_compression_of_a_biorthogonal_wavelet_takes_its_own_saliency():
    pytest.importorskip("pywt", reason="needs the extra wavelets (PyWavelets)")
    space, x = rt.spaces.Wavelet("bior2.2", 2), normal(4, 32, seed=1)
    model = nn.Linear(32, 1).double()
    saliency = rt.Gradient(space=space)(model, x).attributions
    slopes = rt.Gradient()(model, x).attributions
    large = (space.encode(x).abs() > 0.1) & (saliency.abs() > 0.1)
    assert rt.distillation.compression(space, x, slopes, 0.1) == pytest.approx(float(large.double().mean()))


def test_a_distilled_wavelet_is_a_space():
    x, slopes = _problem()
    found = rt.distill_wavelet(None, x, gradients=slopes, wavelet="db2", levels=2, steps=2, restarts=1)
    expected = analyse(x, Bank.orthogonal(found.low), 2, 1)
    assert torch.equal(found.space().encode(x), expected)
    layer = found.space(rt.spaces.Layer("0"))
    assert layer.of == rt.spaces.Layer("0")


X = normal(6, 16, seed=1)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: rt.distill_wavelet(None, X), ArgumentError),
        (lambda: rt.distill_wavelet(None, X, gradients=X[:2]), ShapeError),
        (lambda: rt.distill_wavelet(None, [1.0], gradients=X), ShapeError),
        (lambda: rt.distill_wavelet(None, X, gradients=X, dims=2), ShapeError),
        (lambda: rt.distill_wavelet(None, X, gradients=X, sparsity=-1.0), ArgumentError),
        (lambda: rt.distill_wavelet(None, X, gradients=X, sparsity=[]), ArgumentError),
        (lambda: rt.distill_wavelet(None, X, gradients=X, steps=0), ArgumentError),
        (lambda: rt.distill_wavelet(None, X, gradients=X, restarts=0), ArgumentError),
        (lambda: rt.distill_wavelet(None, X, gradients=X, lr=0.0), ArgumentError),
        (lambda: rt.distill_wavelet(None, X, gradients=X, noise=-0.1), ArgumentError),
        (lambda: rt.distill_wavelet(None, X, gradients=X, parametrisation="spline"), ArgumentError),
        (lambda: rt.distill_wavelet(None, X, gradients=X, attribution="shap"), ArgumentError),
        (lambda: rt.distill_wavelet(None, X, gradients=X, wavelet=torch.ones(3)), ShapeError),
        (lambda: rt.distill_wavelet(None, X, gradients=X, wavelet=torch.ones(4).double()), ShapeError),
        (lambda: rt.distillation.cascade(bank("db2").low, 0), ArgumentError),
        (lambda: rt.distillation.filter_distance(torch.ones(2, 2), torch.ones(2)), ShapeError),
    ],
)
def test_bad_arguments_are_named(make, error):
    with pytest.raises(error) as caught:
        make()
    assert caught.value.expected is not None


def test_plain_gradients_are_not_taken_for_those_along_paths():
    signals = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ArgumentError, match="not along paths"):
        rt.distill_wavelet(None, signals, gradients=signals, attribution=rt.IntegratedGradients(n_steps=2), steps=1)
