"""Designs are unbiased and even, recentring is exact where it should be, and the standard error is never too small."""

import math
from dataclasses import replace

import pytest
import torch

import rightly as rt
from contracts.agreement import check_chunks, check_close
from contracts.derivatives import check_term
from contracts.problems import draws, images, normal, objective, tokens, vectors
from rightly.attributions import sampling
from rightly.core.errors import ArgumentError
from rightly.core.types import Centre

DESIGNS = ["independent", "latin", "lattice"]
REFERENCES = normal(7, 6, seed=40) + torch.linspace(-1, 1, 7, dtype=torch.float64)[:, None]


def _repeated(times):
    """One example many times over, so that one call gives many runs."""
    problem = vectors(1)
    problem.model.eval()
    return problem.model, problem.inputs.expand(times, 6).contiguous(), problem.labels.expand(times)


def _exact(model, inputs, labels, references=REFERENCES):
    method = rt.IntegratedGradients(rt.references.Sample(references), n_samples=len(references), n_steps=30)
    return method(model, inputs[:1], labels[:1]).attributions[0]


def bias(method, calls=30, times=150):
    """Largest z of the mean over many runs against the exact expected gradients.

    The runs of a call share permutations of the references, so that a call counts once.
    """
    model, inputs, labels = _repeated(times)
    means = torch.stack(
        [
            method(model, inputs, labels, diagnostics=False, generator=draws(seed)).attributions.mean(0)
            for seed in range(calls)
        ]
    )
    z = (means.mean(0) - _exact(model, inputs, labels)) / (means.std(0) / math.sqrt(calls))
    return float(z.abs().max())


#: few and many draws for 7 references: less than a round, whole rounds, and one left over
COUNTS = [1, 2, 3, 7, 8, 10, 14]


@pytest.mark.parametrize("k", COUNTS)
@pytest.mark.parametrize(
    ("design", "replacement", "recentred"),
    [
        *[(design, replacement, recentred) for design in DESIGNS[:2] for replacement in (0, 1) for recentred in (0, 1)],
        ("lattice", False, False),  # recentred: see test_a_recentred_lattice_is_nearly_unbiased
    ],
)
def test_every_design_is_unbiased(design, replacement, recentred, k):
    reference = rt.references.Sample(REFERENCES, replacement=bool(replacement))
    assert bias(rt.ExpectedGradients(reference, n_samples=k, design=design, recentred=bool(recentred))) < 4.5


def test_a_bias_would_be_found(monkeypatch):
    """Planted: no factor on the covariance, positions crowded at one end, references that are not as likely."""
    method = rt.ExpectedGradients(rt.references.Sample(REFERENCES), n_samples=3, recentred=True)
    plain = rt.ExpectedGradients(rt.references.Sample(REFERENCES), n_samples=3, recentred=False)
    assert bias(method) < 4.5
    with monkeypatch.context() as planted:
        planted.setattr(Centre, "without_replacement", classmethod(lambda cls, mean, k, n: cls(mean)))
        assert bias(method) > 8
    with monkeypatch.context() as planted:
        honest = sampling.draw

        def crowded(*arguments):
            drawn, positions = honest(*arguments)
            return drawn, positions**1.2

        planted.setattr(sampling, "draw", crowded)
        assert bias(plain) > 8
    with monkeypatch.context() as planted:

        def partial(problem, reference, n_samples, design, generator):
            index = torch.randint(6, (problem.batch, n_samples), generator=generator)
            return reference.pick(problem.view, index), torch.rand(problem.batch, n_samples, generator=generator)

        planted.setattr(sampling, "draw", partial)
        assert bias(plain) > 8


def test_a_recentred_lattice_is_nearly_unbiased():
    """The bias is the covariance of two sampling errors: here below a sixth of the sampling error."""
    references = normal(40, 6, seed=41)
    model, inputs, labels = _repeated(4000)
    method = rt.ExpectedGradients(rt.references.Sample(references), n_samples=10, design="lattice", recentred=True)
    found = method(model, inputs, labels, diagnostics=False).attributions
    off = (found.mean(0) - _exact(model, inputs, labels, references)).norm()
    assert off < found.var(0).sum().sqrt() / 6


def _points(k, design, n, batch=1, order=None):
    """(reference, position) of every draw, (B, K) each, as the model sees them: at x = 0 the points are (1 - a) e_i."""
    values = torch.arange(n, dtype=torch.float64) if order is None else order
    seen = []

    def model(points):
        if points.requires_grad:
            seen.append(points.detach().clone())
        return points @ values

    method = rt.ExpectedGradients(
        rt.references.Sample(torch.eye(n, dtype=torch.float64)), n_samples=k, design=design, recentred=False
    )
    method(model, torch.zeros(batch, n, dtype=torch.float64), diagnostics=False, generator=draws(0))
    points = torch.cat(seen).reshape(batch, k, n)
    return points.argmax(2), 1 - points.amax(2)


@pytest.mark.parametrize(("k", "n"), [(4, 9), (9, 9), (18, 9), (20, 9), (1, 9)])
def test_latin_takes_each_reference_as_often_and_each_part_of_the_path_once(k, n):
    references, positions = _points(k, "latin", n, batch=5)
    for row in references:
        counts = row.bincount(minlength=n)
        assert int(counts.max() - counts.min()) <= 1
    parts = (positions * k).floor().long().sort(1).values
    assert torch.equal(parts, torch.arange(k).expand(5, k))
    assert k == 1 or len({tuple(row.tolist()) for row in references}) > 1


@pytest.mark.parametrize(("k", "n"), [(5, 20), (10, 10), (30, 10)])
def test_the_lattice_is_even_over_ranks_and_positions(k, n):
    value = normal(n, seed=42)
    references, positions = _points(k, "lattice", n, batch=6, order=value)
    rank = value.argsort().argsort()[references].double()
    share = torch.floor(rank * k / n) if k <= n else torch.floor(rank)
    for row in share:
        assert row.long().bincount(minlength=min(k, n)).unique().tolist() == [max(1, k // n)]
    positions = positions.sort(1).values
    gaps = torch.cat([positions, positions[:, :1] + 1], 1).diff(dim=1)
    assert float(gaps.max()) < 2.7 / k  # three lengths of gap, the longest 2.62 times the shortest at most
    assert not torch.allclose(positions[0], positions[1])


def test_each_example_orders_the_references_by_its_own_class():
    values = torch.stack([torch.arange(6.0), -torch.arange(6.0)]).double()
    seen = []

    def model(points):
        if points.requires_grad:
            seen.append(points.detach().clone())
        return points @ values.T

    reference = rt.references.Sample(torch.eye(6, dtype=torch.float64))
    method = rt.ExpectedGradients(reference, n_samples=6, design="lattice", target=torch.tensor([0, 1]))
    method(model, torch.zeros(2, 6, dtype=torch.float64), diagnostics=False)
    first, second = seen[0].reshape(2, 6, 6).argmax(2)
    assert first.tolist() == [0, 1, 2, 3, 4, 5]
    assert second.tolist() == [5, 4, 3, 2, 1, 0]


def _bits(problem, reference, k, create_graph=False, **settings):
    method = rt.ExpectedGradients(reference, n_samples=k, space=problem.space, **settings)
    return method(
        problem.model, problem.inputs, problem.labels, create_graph=create_graph, generator=draws(2)
    ).attributions


@pytest.mark.parametrize(("k", "recentred"), [(1, False), (2, False), (9, False), (10, True), (40, True)])
def test_enough_draws_are_recentred(k, recentred):
    problem, reference = vectors(4), rt.references.Sample(normal(30, 6, seed=43))
    chosen = _bits(problem, reference, k)
    assert torch.equal(chosen, _bits(problem, reference, k, recentred=recentred))
    assert k == 1 or not torch.equal(chosen, _bits(problem, reference, k, recentred=not recentred))


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("k", [3, 12])
def test_a_graph_changes_no_draw(design, k):
    """A penalty that is evaluated is the one that was trained."""
    for space in (rt.spaces.Input(), rt.spaces.Layer("0")):
        problem, reference = vectors(4, space), rt.references.Sample(normal(15, 6, seed=43))
        found = (_bits(problem, reference, k, graph, design=design) for graph in (False, True))
        check_close(*found)


@pytest.mark.parametrize("space", [rt.spaces.Input(), rt.spaces.Layer("0")], ids=["input", "layer"])
@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("recentred", [False, "auto", True])
def test_chunks_change_nothing_in_any_design(space, design, recentred):
    data = rt.references.Sample(normal(5, 6, seed=44))
    for reference, k in ((data, 12), (data, 3), (rt.references.InBatch(), 4), (rt.references.Noise(0.3), 3)):
        if recentred is True and reference is data and isinstance(space, rt.spaces.Layer):
            continue
        method = rt.ExpectedGradients(reference, n_samples=k, design=design, recentred=recentred, space=space)
        check_chunks(method, vectors(3, space), (1, 4))


def test_a_lattice_works_for_several_inputs_outputs_and_tokens():
    x, y = normal(3, 4, seed=1), normal(3, 4, seed=2)
    reference = rt.references.Sample((normal(9, 4, seed=3), normal(9, 4, seed=4)))
    for name in (0, 1):
        space = rt.spaces.Input(name)
        method = rt.ExpectedGradients(reference, n_samples=6, design="lattice", recentred=True, space=space, target=2)
        found = method(lambda a, b: a * b, (x, y))
        mean = reference.data[name][:, 2].mean()
        check_close(found.attributions[:, 2], (y, x)[name][:, 2] * ((x, y)[name][:, 2] - mean))
    problem = tokens()
    sample = rt.references.Sample(torch.randint(11, (5, 4), generator=draws(1)))
    for output in ("loss", "log_prob_sum", lambda outputs, labels: outputs[:, 0]):
        method = rt.ExpectedGradients(sample, n_samples=4, design="lattice", space=problem.space, output=output)
        check_chunks(method, problem, (3,))


@pytest.mark.parametrize("k", [2, 3, 7, 9, 14])
@pytest.mark.parametrize("design", DESIGNS)
def test_recentred_differences_are_exact_on_linear_models(design, k):
    weights = normal(6, seed=45)
    x = normal(5, 6, seed=46)
    others = torch.stack([torch.cat([x[:b], x[b + 1 :]]).mean(0) for b in range(5)])
    labels = torch.tensor([0, 1, 0, 1, 0, 1, 0])
    for reference, mean in (
        (rt.references.Sample(REFERENCES), REFERENCES.mean(0)),
        (rt.references.Sample(REFERENCES, replacement=True), REFERENCES.mean(0)),
        (rt.references.Where(REFERENCES, labels=labels, label=0), REFERENCES[labels == 0].mean(0)),
        (rt.references.InBatch(), others),
        (rt.references.Noise(0.7), x),
    ):
        size = 4 if isinstance(reference, rt.references.Where | rt.references.InBatch) else 7
        if k % size == 1 and size != 7:
            continue  # a single draw beyond whole rounds has nothing to be compared with
        method = rt.ExpectedGradients(reference, n_samples=k, design=design, recentred=True)
        found = method(lambda x: x @ weights, x, generator=draws(1))
        assert torch.allclose(found.attributions, weights * (x - mean), rtol=0, atol=1e-12)
        assert float(found.standard_error.max()) < 1e-7


@pytest.mark.parametrize("space", [rt.spaces.Input(), rt.spaces.Layer("0")], ids=["input", "layer"])
def test_recentred_attributions_train(space):
    """In a layer's space the mean moves with the parameters, and its gradient counts."""
    problem = vectors(5, space)
    for k in (2, 3, 10):
        method = rt.ExpectedGradients(rt.references.InBatch(), n_samples=k, recentred=True, space=space)
        check_term(objective(problem, rt.Term(method, rt.priors.L2())), problem.inputs, problem.labels)


@pytest.mark.parametrize(
    ("reference", "space"),
    [
        (rt.references.Constant(0.0), rt.spaces.Input()),
        (rt.references.Sample(REFERENCES.numpy()), rt.spaces.Input()),
        (rt.references.Sample(REFERENCES), rt.spaces.Layer("0")),
    ],
    ids=["constant", "dataset", "layer"],
)
def test_an_unknown_mean_is_said(reference, space):
    problem = vectors(3, space)
    call = (problem.model, problem.inputs, problem.labels)
    rt.ExpectedGradients(reference, n_samples=12, space=space)(*call, create_graph=True)
    with pytest.raises(ArgumentError, match="mean of these references is not known"):
        rt.ExpectedGradients(reference, n_samples=12, recentred=True, space=space)(*call)


@pytest.mark.parametrize("arguments", [{"design": "sobol"}, {"design": None}, {"recentred": "yes"}, {"recentred": 1}])
def test_unknown_settings_are_named(arguments):
    with pytest.raises(ArgumentError):
        rt.ExpectedGradients(**arguments)


def _z(k, **settings):
    model, inputs, labels = _repeated(600)
    references = normal(60, 6, seed=47)
    replacement = settings.pop("replacement", False)
    reference = rt.references.Sample(references, replacement=replacement)
    found = rt.ExpectedGradients(reference, n_samples=k, **settings)(model, inputs, labels, generator=draws(3))
    return (found.attributions - _exact(model, inputs, labels, references)) / found.standard_error


@pytest.mark.parametrize("recentred", [False, True])
def test_the_standard_error_of_independent_draws_is_right(recentred):
    z = _z(150, design="independent", replacement=True, recentred=recentred).abs()
    assert float((z < 1).double().mean()) == pytest.approx(0.68, abs=0.05)
    assert float((z < 2).double().mean()) == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize("recentred", [False, True])
@pytest.mark.parametrize("design", ["latin", "lattice"])
@pytest.mark.parametrize("k", [30, 60, 150])
def test_the_standard_error_of_even_designs_is_not_too_small(design, recentred, k):
    z = _z(k, design=design, recentred=recentred).abs()
    assert float((z < 1).double().mean()) > 0.66
    assert float((z < 2).double().mean()) > 0.94


def test_even_designs_pay():
    """Root mean square error against plain Monte Carlo on a smooth net: what is promised with room to spare."""

    def error(k, **settings):
        model, inputs, labels = _repeated(200)
        references = normal(60, 6, seed=47)
        sample = rt.references.Sample(references, replacement=settings.pop("replacement", False))
        found = rt.ExpectedGradients(sample, n_samples=k, **settings)(model, inputs, labels, diagnostics=False)
        return float((found.attributions - _exact(model, inputs, labels, references)).square().mean().sqrt())

    for k, most in ((16, 0.6), (64, 0.4), (240, 0.2)):
        plain = error(k, design="independent", recentred=False, replacement=True)
        for design in ("latin", "lattice"):
            assert error(k, design=design) < most * plain
            assert error(k, design=design, recentred=False) < 0.95 * plain


def test_pictures_and_layers_take_every_design():
    problem = images(3, rt.spaces.Layer("0"))
    sample = rt.references.Sample(normal(4, 2, 6, 6, seed=48))
    for design in DESIGNS:
        method = rt.ExpectedGradients(sample, n_samples=5, design=design, space=problem.space)
        found = method(problem.model, problem.inputs, problem.labels)
        assert found.attributions.shape == (3, 3, 6, 6)
        assert bool(torch.isfinite(found.standard_error).all())
    one = replace(images(), inputs=problem.inputs[:1], labels=problem.labels[:1])
    single = rt.references.Sample(normal(1, 2, 6, 6, seed=48))
    for k in (1, 2, 5):
        assert bool(torch.isfinite(_bits(one, single, k, recentred=True)).all())
