"""Concept activation vectors, how much a model follows them, and training along them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from contracts.agreement import check_close
from contracts.problems import image_model, normal
from rightly.attributions import concept_sensitivity, concept_vector
from rightly.attributions.concepts import activations
from rightly.core.errors import ArgumentError, ShapeError
from rightly.evaluation import concept_test

FIRST = rt.spaces.Layer("0")


def _identity(size=4, classes=2):
    """A first layer that passes its input on, so that directions are those of the input."""
    model = nn.Sequential(nn.Identity(), nn.Linear(size, classes)).double()
    with torch.no_grad():
        model[1].weight.copy_(normal(classes, size, seed=2))
    return model


def _sets(count=200, along=(1.0, 0.0, 0.0, 0.0), shift=3.0):
    """Correlated distractors: the second number follows the third."""
    x = normal(2 * count, 4, seed=1)
    x[:, 1] += 2 * x[:, 2]
    return x[:count] + shift * torch.tensor(along, dtype=torch.float64), x[count:]


def test_the_pattern_is_the_difference_of_means_of_the_examples_that_are_not_held_out():
    concept, others = _sets(4)
    found = [
        concept_vector(_identity(), concept, others, space=FIRST, held_out=0.5, seed=s).direction for s in range(30)
    ]
    pairs = [(a, b) for a in range(4) for b in range(a)]
    possible = [
        (mean := concept[list(p)].mean(0) - others[list(q)].mean(0)) / mean.norm() for p in pairs for q in pairs
    ]
    for one in found:
        assert min(float((one - other).abs().max()) for other in possible) < 1e-12
    assert len({tuple(one.tolist()) for one in found}) > 5


def test_the_pattern_finds_the_direction_and_the_classifier_turns_away():
    """The concept adds to two numbers, of which the second is also noise shared with the third: weights cancel it."""
    concept, others = _sets(4000, along=(1.0, 1.0, 0.0, 0.0))
    true = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64) / 2**0.5
    pattern, weights = (
        concept_vector(_identity(), concept, others, space=FIRST, fit=fit) for fit in ("pattern", "classifier")
    )
    assert pattern.direction @ true > 0.99
    assert weights.direction @ true < 0.85
    assert weights.direction[2] < -0.3
    assert weights.separation >= pattern.separation > 0.9


def test_separation_tells_whether_there_is_a_concept():
    concept, others = _sets(2000)
    assert concept_vector(_identity(), concept, others, space=FIRST).separation > 0.95
    nothing = concept_vector(_identity(), others[:1000], others[1000:], space=FIRST).separation
    assert 0.42 < nothing < 0.58


def test_sensitivity_is_the_slope_along_the_direction():
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, labels, way, step = normal(6, 4, seed=3), torch.tensor([0, 1, 2, 0, 1, 2]), normal(5, seed=4), 1e-6
    found = concept_sensitivity(model, x, way, labels, space=FIRST)
    with torch.no_grad():
        code = model[0](x)
        moved = [model[1:](code + sign * step * way)[torch.arange(6), labels] for sign in (1, -1)]
    check_close(found, (moved[0] - moved[1]) / (2 * step), tolerance=1e-8)
    assert not found.requires_grad


def test_a_direction_of_channels_is_more_of_it_everywhere():
    model, x = image_model(), normal(3, 2, 6, 6, seed=5)
    labels = torch.tensor([0, 1, 2])
    found = concept_vector(model, x, normal(4, 2, 6, 6, seed=6), space=FIRST, channels=True)
    assert found.direction.shape == (3,)
    whole = found.direction[:, None, None].expand(3, 6, 6)
    slopes = [concept_sensitivity(model, x, way, labels, space=FIRST) for way in (found.direction, whole)]
    check_close(*slopes)
    prior = rt.priors.ConceptDirection(found.direction)
    phi = rt.Gradient(space=FIRST)(model, x, labels).attributions
    check_close(prior(phi), slopes[0] ** 2)


def test_the_test_finds_what_a_model_follows_and_nothing_else():
    """Two classes by the first number, with a bend so that random directions are not all or nothing."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Identity(), nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2)).double()
    x = normal(400, 4, seed=7)
    rt.fit(rt.Objective(model, F.cross_entropy), (x, (x[:, 0] > 0).long()), epochs=20, batch_size=100, lr=0.02)
    inputs = x[x[:, 0] > 0]
    pool = normal(200, 4, seed=8)
    used, unused = (pool[:40] + 2 * torch.eye(4, dtype=torch.float64)[i] for i in (0, 2))
    arguments = {"space": FIRST, "target": 1, "repeats": 30}
    found = concept_test(model, inputs, used, pool, **arguments)
    assert found.score.mean > 0.95
    assert found.separation > 0.85
    assert found.p == 1 / 31
    assert found.slope > 0
    assert found.comparison.p < 0.01
    assert found.comparison.difference > 0.2
    assert concept_test(model, inputs, unused, pool, **arguments).p > 0.1


def test_a_random_set_passes_as_seldom_as_it_should():
    """The published test takes a fixed random set for a concept far more often; ours about as often as p says."""
    model, inputs, pool = _identity(), normal(50, 4, seed=7), normal(300, 4, seed=8)
    ours, published = 0, 0
    for seed in range(40):
        order = torch.randperm(300, generator=torch.Generator().manual_seed(seed))
        found = concept_test(
            model, inputs, pool[order[:30]], pool[order[30:]], space=FIRST, target=1, repeats=19, seed=seed
        )
        ours += found.p <= 0.1
        published += found.comparison.p is not None and found.comparison.p <= 0.1
    assert ours <= 9
    assert published > 20


def test_a_concept_prior_through_a_fitted_vector_takes_the_concept_out():
    """RR-ClArC: a model that follows a planted shift stops following it, and keeps its task."""
    x = normal(600, 4, seed=9)
    y = (x[:, 0] + 0.3 * normal(600, seed=10) > 0).long()
    shown = x.clone()
    shown[:, 3] = 2.0 * (2 * y - 1)  # the concept tells the label
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2)).double()
    model[0].requires_grad_(False)  # so that the vector stays that of the layer
    rt.fit(rt.Objective(model, F.cross_entropy), (shown, y), epochs=10, batch_size=100, lr=0.02)
    with_it, without = shown.clone(), shown.clone()
    with_it[:, 3], without[:, 3] = 2.0, -2.0
    vector = concept_vector(model, with_it, without, space=FIRST)
    assert vector.separation > 0.95
    before = concept_sensitivity(model, shown, vector.direction, space=FIRST, target=1, output="log_odds").abs().mean()
    prior = rt.Term(rt.Gradient(space=FIRST, output="log_odds"), rt.priors.ConceptDirection(vector.direction), 10.0)
    rt.fit(rt.Objective(model, F.cross_entropy, [prior]), (shown, y), epochs=30, batch_size=100, lr=0.02)
    after = concept_sensitivity(model, shown, vector.direction, space=FIRST, target=1, output="log_odds").abs().mean()
    assert after < before / 5
    with torch.no_grad():
        clean = [(model(part).argmax(1) == y).double().mean() for part in (with_it, without)]
    assert min(clean) > 0.75


def test_nothing_of_the_model_changes():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(), nn.Linear(3, 2)).double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    concept, others = _sets(20)
    first, second = (concept_vector(model, concept, others, space=rt.spaces.Layer("2")).direction for _ in range(2))
    assert torch.equal(first, second)
    assert model.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not activations(model, concept, FIRST).requires_grad


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"fit": "svm"}, ArgumentError, "unknown fit"),
        ({"held_out": 1.0}, ArgumentError, "held out"),
        ({"concept": normal(1, 4, seed=1)}, ShapeError, "too few examples of concept"),
        ({"others": normal(1, 4, seed=1)}, ShapeError, "too few examples of others"),
        ({"channels": True}, ShapeError, "no places"),
        ({"concept": torch.ones(4, 4).double(), "others": torch.ones(4, 4).double()}, ArgumentError, "do not differ"),
    ],
)
def test_what_cannot_be_asked(arguments, error, message):
    concept, others = _sets(10)
    with pytest.raises(error, match=message):
        concept_vector(_identity(), **{"concept": concept, "others": others, "space": FIRST, **arguments})


def test_a_direction_that_does_not_fit_says_so():
    with pytest.raises(ShapeError, match="does not fit the space"):
        concept_sensitivity(_identity(), normal(2, 4, seed=1), normal(3, seed=2), space=FIRST, target=0)
    with pytest.raises(ShapeError, match="too few other examples"):
        concept_test(_identity(), *(normal(5, 4, seed=s) for s in (1, 2, 3)), space=FIRST, target=0)
