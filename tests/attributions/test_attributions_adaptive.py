"""Explaining up to a tolerance."""

import pytest
import torch

import rightly as rt
from contracts.agreement import check_close
from contracts.problems import draws, normal, vectors
from rightly.core.errors import ArgumentError

DATA = normal(30, 6, seed=50)
SAMPLE = rt.references.Sample(DATA)


def _explain(problem, tolerance=0.04, **arguments):
    arguments = {"reference": SAMPLE, "n_samples": 8, "target": problem.labels, **arguments}
    return rt.attribute(problem.model, problem.inputs, tolerance=tolerance, **arguments)


def test_each_example_stops_when_it_is_known_well_enough():
    problem = vectors(8)
    found = _explain(problem, max_samples=4096)
    error = found.standard_error.amax(1) / found.attributions.abs().amax(1)
    assert bool((error <= 0.04).all())
    assert found.n_samples.shape == (8,)
    assert not (found.n_samples % 8).any()
    assert int(found.n_samples.min()) >= 48
    assert len(found.n_samples.unique()) > 2
    finer = _explain(problem, 0.02, max_samples=4096)
    assert float(finer.n_samples.double().mean()) > 2 * float(found.n_samples.double().mean())


def test_the_error_that_is_left_is_as_large_as_it_says():
    problem = vectors(8)
    everyone = rt.IntegratedGradients(SAMPLE, n_samples=30, n_steps=30)
    exact = everyone(problem.model, problem.inputs, problem.labels).attributions
    runs = [_explain(problem, seed=seed, diagnostics=False) for seed in range(15)]
    z = torch.stack([(run.attributions - exact) / run.standard_error for run in runs]).abs()
    assert float((z < 1).double().mean()) == pytest.approx(0.66, abs=0.06)
    assert float((z < 2).double().mean()) > 0.88


def test_a_linear_model_needs_the_fewest_rounds_and_a_hard_one_the_most():
    weights = normal(6, seed=51)
    problem = vectors(4)
    linear = rt.attribute(lambda x: x @ weights, problem.inputs, reference=SAMPLE, n_samples=12, tolerance=1e-6)
    assert linear.n_samples.tolist() == [72] * 4
    check_close(linear.attributions, weights * (problem.inputs - DATA.mean(0)))
    hard = _explain(problem, 1e-9, max_samples=100)
    assert hard.n_samples.tolist() == [96] * 4  # whole rounds
    assert bool((hard.standard_error.amax(1) > 0).all())


def test_the_same_seed_gives_the_same_bits_and_chunks_change_nothing():
    problem = vectors(5)
    first, again, other = (_explain(problem, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.attributions, again.attributions)
    assert torch.equal(first.n_samples, again.n_samples)
    assert not torch.equal(first.attributions, other.attributions)
    before = torch.get_rng_state()
    for size in (3, 50):
        part = _explain(problem, seed=3, chunk_size=size)
        check_close(part.attributions, first.attributions)
        check_close(part.standard_error, first.standard_error, tolerance=1e-7)
        assert torch.equal(part.n_samples, first.n_samples)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_mean_and_the_spread_are_those_of_the_rounds():
    """Every round by hand."""
    problem = vectors(3)
    found = _explain(problem, 1e-9, max_samples=48)
    method = rt.ExpectedGradients(SAMPLE, n_samples=8, target=problem.labels, design="latin")
    from rightly.core import seeding

    rounds = torch.stack(
        [
            method(
                problem.model, problem.inputs, generator=seeding.generator("attribute", 0, "round", turn)
            ).attributions
            for turn in range(6)
        ]
    )
    check_close(found.attributions, rounds.mean(0))
    check_close(found.standard_error, rounds.std(0) / 6**0.5, tolerance=1e-9)


def test_what_belongs_to_an_example_stays_with_it():
    """Targets, labels and outputs of examples that stay open longer than others."""
    problem = vectors(8)
    outputs = problem.model.eval()(problem.inputs)
    found = _explain(problem)
    assert torch.equal(found.outputs, outputs)
    assert torch.equal(found.target, problem.labels)
    predicted = _explain(problem, target="predicted")
    check_close(predicted.attributions, _explain(problem, target=outputs.argmax(1)).attributions)
    labelled = _explain(problem, target=None, labels=problem.labels)
    assert torch.equal(labelled.attributions, found.attributions)
    lost = _explain(problem, target=None, labels=problem.labels, output="loss")
    exact = rt.IntegratedGradients(SAMPLE, n_samples=30, n_steps=30, output="loss")
    exact = exact(problem.model, problem.inputs, problem.labels).attributions
    assert bool(((lost.attributions - exact).abs() < 8 * lost.standard_error + 1e-12).all())
    assert found.completeness_gap.abs().max() < 1


def test_any_method_that_draws_can_be_repeated():
    problem = vectors(3)
    for method in (
        rt.SmoothGrad(n_samples=10, target=1),
        rt.ExpectedGradients(rt.references.Constant(0.0), n_samples=8, target=1, space=rt.spaces.Layer("0")),
    ):
        found = rt.attribute(problem.model, problem.inputs, method, tolerance=0.03)
        again = method(problem.model, problem.inputs, generator=draws(1))
        assert found.attributions.shape == again.attributions.shape
        assert int(found.n_samples.min()) >= 6 * method.n_samples
    by_name = rt.attribute(problem.model, problem.inputs, reference=SAMPLE, tolerance=0.1)
    assert int(by_name.n_samples.min()) >= 6 * 32
    assert rt.attribute(problem.model, problem.inputs, reference=SAMPLE).n_samples is None


def test_progress_counts_examples(monkeypatch):
    done = []
    from rightly.attributions.adaptive import attribute_until

    problem = vectors(8)
    attribute_until(
        problem.model,
        problem.inputs,
        problem.labels,
        rt.ExpectedGradients(SAMPLE, n_samples=8),
        tolerance=0.05,
        max_samples=None,
        seed=0,
        chunk_size=None,
        diagnostics=False,
        progress=lambda *counts: done.append(counts),
    )
    assert done == sorted(done)
    assert done[-1] == (8, 8)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"method": "gradient"}, "draws nothing"),
        ({"reference": rt.references.InBatch()}, "references of the others"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"tolerance": "1%"}, "tolerance"),
        ({"max_samples": 40}, "max_samples"),
        ({"max_samples": 0}, "max_samples"),
        ({"create_graph": True}, "keeps no graph"),
        ({"out": "folder"}, "stays in memory"),
        ({"tolerance": None, "max_samples": 100}, "the most draws"),
    ],
)
def test_what_cannot_be_is_said(arguments, match):
    problem = vectors(3)
    call = {"reference": SAMPLE, "n_samples": 8, "tolerance": 0.05, **arguments}
    if call.get("method") == "gradient":
        call = {"method": "gradient", "tolerance": 0.05}
    with pytest.raises(ArgumentError, match=match):
        rt.attribute(problem.model, problem.inputs, **call)
