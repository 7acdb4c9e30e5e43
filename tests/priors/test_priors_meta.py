"""A prior that learns what to expect, and an objective that owns what is learned."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from contracts.problems import normal
from rightly.core.errors import ArgumentError, CheckpointError, ShapeError
from rightly.training import checkpoint

META = normal(6, 2, seed=1).float()
X = normal(80, 6, seed=2).float()
Y = (X[:, 0] + X[:, 1] ** 2 > 0.5).long()


def _prior(**arguments):
    return rt.priors.MetaFeatures(META, **arguments)


def _objective(weight=0.5, prior=None, seed=0):
    term = rt.Term(rt.ExpectedGradients(), prior or _prior(), weight)
    return rt.Objective(rt.models.mlp(6, [8], 2, seed=seed), F.cross_entropy, [term], seed=seed)


def _bits(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def _same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# --- the prior


def test_it_begins_with_expecting_nothing_and_asks_no_random_state():
    state = torch.get_rng_state()
    prior = _prior()
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(prior.expected(), torch.zeros(6))
    phi = normal(3, 6, seed=3)
    assert torch.allclose(prior(phi), phi.abs().sum(1))


def test_the_distance_is_signed_or_of_sizes():
    predictor = nn.Linear(2, 1)
    phi, expected = normal(3, 2, 3, seed=3).float(), predictor(META).flatten()
    signed, sizes = _prior(predictor=predictor), _prior(predictor=predictor, absolute=True)
    assert torch.allclose(signed(phi), (phi.flatten(1) - expected).abs().sum(1))
    assert torch.allclose(sizes(phi), (phi.flatten(1).abs() - expected).abs().sum(1))


def test_it_learns_the_function_behind_fixed_attributions():
    """Of absolute distances the predictor is the median: what all examples agree on is found exactly."""
    truth = META @ torch.tensor([1.0, -2.0]) + 0.5
    prior = _prior()
    optimizer = torch.optim.Adam(prior.module.parameters(), lr=0.05)
    for step in range(600):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 - step / 600)
        optimizer.zero_grad()
        prior(truth.expand(4, 6)).mean().backward()
        optimizer.step()
    assert torch.allclose(prior.module.weight, torch.tensor([[1.0, -2.0]]), atol=0.02)
    others = normal(5, 2, seed=9).float()
    assert torch.allclose(prior.expected(others), others @ torch.tensor([1.0, -2.0]) + 0.5, atol=0.1)
    assert not prior.expected(others).requires_grad


def test_the_predictor_can_be_explained_like_any_model():
    prior = _prior(predictor=nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)))
    found = rt.attribute(prior.module, META, "expected_gradients", reference=rt.references.Sample(META), n_samples=6)
    assert found.attributions.shape == (6, 2)


def test_over_regions_learns_too():
    inner = rt.priors.MetaFeatures(META[:2])
    regions = torch.tensor([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]])
    whole = _objective(prior=rt.priors.OverRegions(inner, regions))
    assert list(whole.learned) == [inner.module]


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: rt.priors.MetaFeatures([[1.0]]), ArgumentError),
        (lambda: rt.priors.MetaFeatures(torch.ones(3, 2, dtype=torch.long)), ArgumentError),
        (lambda: rt.priors.MetaFeatures(torch.ones(3)), ArgumentError),
        (lambda: rt.priors.MetaFeatures(torch.full((3, 1), torch.nan)), ArgumentError),
        (lambda: rt.priors.MetaFeatures(META, predictor=torch.sum), ArgumentError),
        (lambda: _prior()(torch.ones(2, 5)), ShapeError),
        (lambda: _prior(predictor=nn.Linear(2, 3))(torch.ones(2, 6)), ShapeError),
    ],
)
def test_what_does_not_fit_is_told(make, error):
    with pytest.raises(error):
        make()


# --- the objective


def test_the_objective_owns_what_is_learned():
    whole = _objective()
    own = whole.terms[0].prior.module
    assert {id(p) for p in own.parameters()} < {id(p) for p in whole.parameters()}
    assert {"learned.0.weight", "learned.0.bias"} <= set(whole.state_dict())
    assert whole.double().terms[0].prior.module.weight.dtype == torch.float64
    copied = copy.deepcopy(whole)
    assert copied.terms[0].prior.module is copied.learned[0]
    assert copied.learned[0] is not whole.learned[0]
    assert "learned" not in str(list(rt.Objective(nn.Linear(6, 2), F.cross_entropy).state_dict()))


def test_it_is_as_precise_as_the_model_and_float32_at_least():
    for dtype, expected in ((torch.float64, torch.float64), (torch.bfloat16, torch.float32)):
        term = rt.Term(rt.Gradient(), _prior())
        whole = rt.Objective(nn.Linear(6, 2, dtype=dtype), F.cross_entropy, [term])
        assert whole.learned[0].weight.dtype == expected


def test_fit_trains_both_and_the_check_sees_both():
    whole = _objective()
    report = rt.check(whole, X, Y)
    assert report.ok
    assert report.terms[0].reached == (4, 6)  # weights, and what is learned: frozen masks know no bias
    before = _bits(whole)
    rt.fit(whole, (X, Y), epochs=3, batch_size=20)
    after = _bits(whole)
    assert all(not torch.equal(before[name], after[name]) for name in before)


def test_a_term_that_rests_trains_plainly():
    plain = rt.Objective(rt.models.mlp(6, [8], 2, seed=0), F.cross_entropy, [])
    resting = _objective(0.0)
    for whole in (plain, resting):
        rt.fit(whole, (X, Y), epochs=3, batch_size=20)
    assert _same(_bits(plain.model), _bits(resting.model))
    assert not resting.learned[0].weight.any()


def test_a_stopped_training_resumes_to_the_bit(tmp_path):
    class Stop(Exception):
        pass

    def stop(epoch, entry):
        if epoch == 1:
            raise Stop

    settings = {"train": (X[:60], Y[:60]), "validation": (X[60:], Y[60:]), "epochs": 5, "batch_size": 20}
    expected = _objective()
    rt.fit(expected, **settings)
    with pytest.raises(Stop):
        rt.fit(_objective(), **settings, checkpoint=tmp_path, callback=stop)
    tensors, _ = checkpoint.read(tmp_path / "checkpoint.safetensors")
    assert any("learned.0.weight" in name for name in tensors)
    resumed = _objective()
    rt.fit(resumed, **settings, checkpoint=tmp_path, resume=True)
    assert _same(_bits(resumed), _bits(expected))
    other = _objective(prior=_prior(predictor=nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))))
    with pytest.raises(CheckpointError, match="another run"):
        rt.fit(other, **settings, checkpoint=tmp_path, resume=True)


def test_the_best_epoch_is_that_of_both():
    numbers = iter([3.0, 1.0, 2.0, 2.0])
    best, whole = [], _objective()

    def look(epoch, entry):
        best.append(_bits(whole.trained()))

    settings = {"validation": (X, Y), "monitor": lambda outputs, labels: next(numbers), "epochs": 4}
    rt.fit(whole, (X, Y), **settings, callback=look)
    assert _same(_bits(whole.trained()), best[1])
    assert not _same(best[1], best[3])


def test_an_update_by_turns_trains_both():
    whole = _objective()
    rt.fit(whole, (X, Y), epochs=2, batch_size=20, schedule="alternate", prior_optimizer="adam")
    assert whole.learned[0].weight.any()


def test_a_compiled_step_trains_both():
    found = []
    for compiled in (False, True):
        whole = _objective()
        if compiled:
            whole.compile(backend="eager")
        optimizer = torch.optim.SGD(whole.parameters(), lr=0.1)
        for _ in range(4):
            optimizer.zero_grad()
            whole(X, Y).total.backward()
            optimizer.step()
        found.append(_bits(whole))
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-6) for name in found[0])
    assert found[0]["learned.0.weight"].any()


def test_many_trainings_share_nothing_that_is_learned():
    """Each as if it were alone, and the prior that was passed stays as it was."""
    prior = _prior()
    term = rt.Term(rt.ExpectedGradients(), prior, 0.5)
    trials = rt.fit_many(
        lambda seed: rt.models.mlp(6, [8], 2, seed=seed), F.cross_entropy, [term], (X, Y), seeds=(1, 2, 0), epochs=3
    )
    assert not prior.module.weight.any()
    assert [trial.together for trial in trials] == [1, 1, 1]
    assert "learns" in trials[0].reason
    alone = _objective()
    rt.fit(alone, (X, Y), epochs=3)
    assert _same(_bits(trials[-1].model), _bits(alone.model))
