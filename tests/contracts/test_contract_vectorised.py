"""Contract 2: vectorised equals one at a time, chunked equals whole, and any batch size works."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import rightly as rt
from contracts import oracles
from contracts.agreement import check_chunks, check_close, check_oracle, check_prior_rows, check_rows, evaluating
from contracts.problems import (
    annotation_for,
    attribution_of,
    components,
    draws,
    fitting,
    images,
    kinked_model,
    normal,
    prior_of,
    sequences,
    space_of,
    tokens,
    vectors,
)

#: (space, layers in front of it): the oracle cuts the sequential model there
SPACES = {"input": (rt.spaces.Input(), 0), "layer": (rt.spaces.Layer("0"), 1)}
BATCHES = [1, 2, 5]
#: design -> path positions (B, K) from uniform draws (B, K)
DESIGNS = {"independent": lambda draws: draws.tolist(), "latin": oracles.strata}


def _case(kind: str, space: str, batch: int):
    where, split = SPACES[space]
    problem = {"vectors": vectors, "images": images}[kind](batch, where)
    return problem, lambda: oracles.singles(problem.model, problem.inputs, problem.labels, split)


SETUPS = [
    pytest.param(kind, space, batch, id=f"{kind}-{space}-{batch}")
    for kind in ("vectors", "images")
    for space in SPACES
    for batch in BATCHES
]


@pytest.mark.parametrize(("kind", "space", "batch"), SETUPS)
class TestOracles:
    def test_gradient(self, kind, space, batch):
        problem, singles = _case(kind, space, batch)
        check_oracle(rt.Gradient(space=problem.space), problem, lambda: map(oracles.gradient, singles()))

    def test_input_x_gradient(self, kind, space, batch):
        problem, singles = _case(kind, space, batch)
        check_oracle(rt.InputXGradient(space=problem.space), problem, lambda: map(oracles.input_x_gradient, singles()))

    def test_integrated_gradients(self, kind, space, batch):
        problem, singles = _case(kind, space, batch)
        baseline = 0.3 * torch.ones(problem.shape, dtype=torch.float64)
        method = rt.IntegratedGradients(rt.references.Constant(0.3), n_steps=5, space=problem.space)
        check_oracle(method, problem, lambda: [oracles.integrated_gradients(s, baseline, 5) for s in singles()])

    @pytest.mark.parametrize("design", DESIGNS)
    def test_expected_gradients(self, kind, space, batch, design):
        """In the batch, the k-th reference of example b is example b + k + 1: its coordinates, with their graph."""
        problem, singles = _case(kind, space, batch)
        method = rt.ExpectedGradients(rt.references.InBatch(), n_samples=3, design=design, space=problem.space)
        alphas = DESIGNS[design](torch.rand(batch, 3, generator=draws(5)).double())

        def oracle():
            rows = singles()
            others = [[(b + k) % batch for k in range(1, batch)] or [0] for b in range(batch)]
            for b, row in enumerate(rows):
                drawn = [rows[others[b][k % len(others[b])]].coordinates for k in range(3)]
                yield oracles.expected_gradients(row, drawn, alphas[b])

        if batch == 1:
            found = method(problem.model, problem.inputs, problem.labels, generator=draws(5))
            assert not found.attributions.any()  # its own reference
        else:
            check_oracle(method, problem, oracle)

    @pytest.mark.parametrize("design", DESIGNS)
    def test_expected_gradients_of_one_reference(self, kind, space, batch, design):
        problem, singles = _case(kind, space, batch)
        method = rt.ExpectedGradients(rt.references.Constant(-0.2), n_samples=4, design=design, space=problem.space)
        alphas = DESIGNS[design](torch.rand(batch, 4, generator=draws(5)).double())
        baseline = -0.2 * torch.ones(problem.shape, dtype=torch.float64)
        check_oracle(
            method,
            problem,
            lambda: [oracles.expected_gradients(s, [baseline] * 4, alphas[b]) for b, s in enumerate(singles())],
        )

    def test_recentred_expected_gradients(self, kind, space, batch):
        """Three of the other examples; their mean is known, and in a layer's space it carries its graph."""
        batch += 3
        problem, singles = _case(kind, space, batch)
        method = rt.ExpectedGradients(rt.references.InBatch(), n_samples=3, recentred=True, space=problem.space)
        alphas = oracles.strata(torch.rand(batch, 3, generator=draws(5)).double())

        def oracle():
            rows = singles()
            for b, row in enumerate(rows):
                others = [rows[(b + k) % batch].coordinates for k in range(1, batch)]
                yield oracles.recentred_gradients(row, others[:3], alphas[b], others)

        check_oracle(method, problem, oracle)

    def test_expected_hessians(self, kind, space, batch):
        """The position is where the distribution of a product of two uniform ones reaches what was drawn."""
        batch = min(batch, 2) if kind == "images" else batch
        problem, singles = _case(kind, space, batch)
        method = rt.ExpectedHessians(rt.references.InBatch(), n_samples=3, space=problem.space)
        shares = oracles.strata(torch.rand(batch, 3, generator=draws(5)).double())

        def oracle():
            rows = singles()
            for b, row in enumerate(rows):
                others = [rows[(b + k) % batch].coordinates for k in range(1, batch)] or [row.coordinates]
                terms = [
                    oracles.interactions(row, others[k % len(others)], oracles.product_quantile(shares[b][k]), 1.0)
                    for k in range(3)
                ]
                yield sum(terms) / 3

        if batch == 1:
            found = method(problem.model, problem.inputs, problem.labels, generator=draws(5))
            assert not found.attributions.any()  # its own reference
        else:
            check_oracle(method, problem, oracle)

    def test_hessian(self, kind, space, batch):
        problem, singles = _case(kind, space, min(batch, 2) if kind == "images" else batch)
        shape = (*problem.shape, *problem.shape)
        method = rt.Hessian(space=problem.space)
        check_oracle(method, problem, lambda: [oracles.hessian(s, s.coordinates).reshape(shape) for s in singles()])

    def test_hessian_products(self, kind, space, batch):
        problem, singles = _case(kind, space, min(batch, 2) if kind == "images" else batch)
        ways = torch.randn(len(problem.labels), 3, *problem.shape, generator=draws(5)).double()
        method = rt.HessianProducts(n_samples=3, space=problem.space)
        check_oracle(method, problem, lambda: [oracles.hessian_products(s, ways[b]) for b, s in enumerate(singles())])

    def test_gradient_differences(self, kind, space, batch):
        problem, singles = _case(kind, space, batch)
        ways = torch.randn(batch, 3, *problem.shape, generator=draws(5)).double()
        method = rt.GradientDifferences(n_samples=3, step=0.2, space=problem.space)
        check_oracle(
            method, problem, lambda: [oracles.gradient_differences(s, ways[b], 0.2) for b, s in enumerate(singles())]
        )

    def test_smooth_grad(self, kind, space, batch):
        problem, singles = _case(kind, space, batch)
        noise = torch.randn(batch, 3, *problem.shape, generator=draws(5)).double()
        method = rt.SmoothGrad(n_samples=3, sigma=0.2, space=problem.space)
        check_oracle(method, problem, lambda: [oracles.smooth_grad(s, noise[b], 0.2) for b, s in enumerate(singles())])

    def test_occlusion(self, kind, space, batch):
        problem, singles = _case(kind, space, batch)
        windows = {"vectors": [(4,), (3,)], "images": [(3, 2), (2, 2)]}[kind]
        baseline = 0.1 * torch.ones(problem.shape, dtype=torch.float64)
        settings = {"window": windows[0], "stride": windows[1]}
        method = rt.Occlusion(rt.references.Constant(0.1), space=problem.space, **settings)
        check_oracle(method, problem, lambda: [oracles.occlusion(s, baseline, *settings.values()) for s in singles()])

    def test_occlusion_of_single_features(self, kind, space, batch):
        batch = 1 if kind == "images" else batch  # the oracle takes a pass a pixel
        problem, singles = _case(kind, space, batch)
        baseline = 0.1 * torch.ones(problem.shape, dtype=torch.float64)
        method = rt.Occlusion(rt.references.Constant(0.1), space=problem.space)
        check_oracle(method, problem, lambda: [oracles.occlusion(s, baseline, None, None) for s in singles()])


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("space", SPACES)
def test_integrated_hessians(space, batch):
    """n nodes stand for a product of n x n as far as the function is a polynomial: here it is nearly one."""
    problem, singles = _case("vectors", space, batch)
    baseline = 0.3 * torch.ones(problem.shape, dtype=torch.float64)
    method = rt.IntegratedHessians(rt.references.Constant(0.3), n_steps=8, space=problem.space)
    check_oracle(method, problem, lambda: [oracles.integrated_hessians(s, baseline, 8) for s in singles()], 1e-6)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("layer", ["0", "4"])
def test_grad_cam(layer, batch):
    problem = images(batch)
    problem = replace(problem, labels=(problem.labels + 2) % 3)  # a class that something speaks for
    split = int(layer) + 1
    check_oracle(
        rt.GradCam(rt.spaces.Layer(layer)),
        problem,
        lambda: [
            oracles.grad_cam(s, (6, 6)) for s in oracles.singles(problem.model, problem.inputs, problem.labels, split)
        ],
    )


def test_grad_cam_enlarges_small_maps():
    model, inputs, labels = kinked_model(), normal(2, 1, 6, 6, seed=8), torch.tensor([0, 1])
    found = rt.GradCam(rt.spaces.Layer("2"))(model, inputs, labels).attributions
    with evaluating(model):
        rows = oracles.singles(model, inputs, labels, 3)
        assert rows[0].coordinates.shape == (4, 3, 3)
        expected = torch.stack([oracles.grad_cam(row, (6, 6)) for row in rows])
    check_close(found, expected)


METHODS = [
    pytest.param(entry, space, id=f"{entry.name}-{space.name}")
    for space in components("space")
    for entry in components("attribution")
    if fitting(space, entry)
]
UNDRAWN = [p for p in METHODS if "sampled" not in p.values[0].traits]  # the oracles above fix the draws of the others


def _problem(entry, space, batch):
    picture = "images" in entry.traits
    shape = (2, 6, 6) if picture else (6,)
    there = space_of(space, shape)
    return images(batch, there) if picture else vectors(batch, there)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(("entry", "space"), METHODS)
def test_chunks_change_nothing(entry, space, batch):
    problem = _problem(entry, space, batch)
    check_chunks(attribution_of(entry, problem.shape, problem.space), problem)


@pytest.mark.parametrize("reference", components("reference"), ids=lambda e: e.name)
@pytest.mark.parametrize("method", [rt.ExpectedGradients, rt.IntegratedGradients, rt.Occlusion])
def test_chunks_change_nothing_with_any_reference(method, reference):
    problem = vectors(3)
    arguments = {"n_steps": 4} if method is rt.IntegratedGradients else {}
    chosen = method(reference.cls(**reference.example((6,))), n_samples=2, **arguments)
    check_chunks(chosen, problem, (1, 4))


@pytest.mark.parametrize("problem", [tokens(), sequences()], ids=lambda p: p.name)
def test_chunks_change_nothing_in_sequences(problem):
    check_chunks(rt.ExpectedGradients(n_samples=2, space=problem.space), problem)


@pytest.mark.parametrize(("entry", "space"), UNDRAWN)
def test_examples_do_not_see_each_other(entry, space):
    problem = _problem(entry, space, 5)
    check_rows(attribution_of(entry, problem.shape, problem.space), problem)


PRIORS = {
    "l1": lambda prior, phi, note: oracles.l1(phi),
    "l2": lambda prior, phi, note: oracles.l2(phi),
    "concept_direction": lambda prior, phi, note: oracles.concept_direction(phi, prior.direction),
    "group_contribution": lambda prior, phi, note: oracles.group_contribution(phi),
    "irrelevant": lambda prior, phi, note: oracles.irrelevant(phi, note.irrelevant[0]),
    "ranking": lambda prior, phi, note: oracles.ranking(phi, note.relevant[0]),
    "resized": lambda prior, phi, note: oracles.irrelevant(phi, note.irrelevant[0]),
    "independence": lambda prior, phi, note: oracles.independence(phi, note.targets[0], prior.eps),
    "match_targets": lambda prior, phi, note: oracles.match_targets(phi, note.targets[0]),
    "meta_features": lambda prior, phi, note: oracles.meta_features(
        phi, prior.meta.double(), prior.module.weight[0].double(), prior.module.bias.item()
    ),
    "energy": lambda prior, phi, note: oracles.energy(phi, note.relevant[0], prior.positive),
    "frequency_band": lambda prior, phi, note: sum(
        float(value) ** 2
        for row in phi.flatten(0, -2)
        for i, value in enumerate(row)
        if not prior.low <= (i + 1) // 2 / len(row) < prior.high
    ),
    "over_regions": lambda prior, phi, note: sum(abs(float(phi[region].sum())) for region in prior.regions),
    "sign": lambda prior, phi, note: oracles.sign(phi, prior.signs),
    "total_variation": lambda prior, phi, note: oracles.total_variation(
        phi, prior.dims, prior.standardize, prior.floor
    ),
}
BATCH_PRIORS = {
    "sparsity": lambda prior, phi: oracles.sparsity(phi),
    "graph_smoothness": lambda prior, phi: oracles.graph_smoothness(phi, _ring(phi[0].numel())),
}


def _ring(p: int) -> torch.Tensor:
    return (torch.eye(p).roll(1, 0) + torch.eye(p).roll(-1, 0)).clamp(max=1)


@pytest.mark.parametrize("entry", components("prior"), ids=lambda e: e.name)
@pytest.mark.parametrize("batch", BATCHES)
def test_priors_equal_their_definitions(entry, batch):
    phi = normal(batch, 2, 4, 5, seed=30)
    prior = prior_of(entry, (2, 4, 5))
    note = annotation_for(prior, phi)
    if prior.level == "example":
        check_prior_rows(prior, phi, note, torch.arange(batch))
        if oracle := PRIORS.get(entry.name):
            rows = [oracle(prior, phi[i], note.take(torch.tensor([i]))) for i in range(batch)]
            check_close(prior(phi, note), torch.tensor(rows, dtype=torch.float64))
    else:
        mixed = torch.randperm(batch, generator=draws(1))
        value = prior(phi, note)
        assert value.shape == ()
        check_close(prior(phi[mixed], note.take(mixed)), value)
        if oracle := BATCH_PRIORS.get(entry.name):
            check_close(value, torch.tensor(oracle(prior, phi), dtype=torch.float64))


def test_the_priors_of_the_papers_have_oracles():
    assert len({e.name for e in components("prior")} & ({*PRIORS} | {*BATCH_PRIORS})) >= 9
