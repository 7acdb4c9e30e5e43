"""Penalties on weights: right by hand, right in their gradient, and welcome wherever a term is."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from contracts.derivatives import check_term
from contracts.problems import draws, images, vectors
from rightly.core.errors import ArgumentError
from rightly.objectives.weights import weight_count
from training.training_problems import classification

PENALTIES = ("l1", "l2", "sparse_group_lasso")


def small():
    """Weights [[1, -2], [0, 2], [2, 1]] (3 units from 2 inputs) and [[3, 0, -4]], biases that must not count."""
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -2], [0, 2], [2, 1]]))
        model[2].weight.copy_(torch.tensor([[3.0, 0, -4]]))
        for layer in (model[0], model[2]):
            layer.bias.fill_(100.0)
    return model


BY_HAND = {
    ("l1", "all"): 8 + 7,
    ("l1", "first"): 8,
    ("l2", "all"): 14 + 25,
    ("l2", "first"): 14,
    # the first input's weights are 1, 0, 2, the second's -2, 2, 1: groups of three
    ("sparse_group_lasso", "first"): 8 + math.sqrt(3) * (math.sqrt(5) + 3),
    # each of the three units has one weight
    ("sparse_group_lasso", "all"): 8 + math.sqrt(3) * (math.sqrt(5) + 3) + 7 + 7,
}


@pytest.mark.parametrize(("penalty", "layers"), BY_HAND)
def test_by_hand(penalty, layers):
    assert float(rt.WeightTerm(penalty, layers).of(small()).detach()) == pytest.approx(BY_HAND[penalty, layers])


def test_counts_are_those_of_the_weights():
    assert (weight_count(small()), weight_count(small(), "first")) == (9, 6)


def oracle(weights, units):
    """One group at a time; ``units[u]`` are the positions of the weights that leave unit u."""
    flat = weights.detach().flatten()
    groups = [flat[positions] for positions in units]
    assert sorted(int(p) for group in units for p in group) == list(range(len(flat)))
    return sum(float(g.abs().sum()) + math.sqrt(len(g)) * math.sqrt(float((g**2).sum())) for g in groups)


def lasso_of(layer):
    return float(rt.WeightTerm("sparse_group_lasso").of(layer).detach())


@pytest.mark.parametrize("groups", [1, 2])
def test_groups_of_a_convolution_are_its_input_channels(groups):
    layer = nn.Conv2d(4, 6, (2, 3), groups=groups).double()
    shape = layer.weight.shape  # (6, 4 / groups, 2, 3)
    places = torch.arange(layer.weight.numel()).reshape(shape)
    each_in, each_out = 4 // groups, 6 // groups
    units = [
        places[group * each_out : (group + 1) * each_out, channel].flatten()
        for group in range(groups)
        for channel in range(each_in)
    ]
    assert lasso_of(layer) == pytest.approx(oracle(layer.weight, units))


@pytest.mark.parametrize("layer", [nn.ConvTranspose1d(3, 4, 2), nn.Embedding(3, 5)], ids=["transposed", "embedding"])
def test_groups_of_layers_that_count_inputs_first(layer):
    places = torch.arange(layer.weight.numel()).reshape(layer.weight.shape)
    assert lasso_of(layer.double()) == pytest.approx(oracle(layer.weight, [places[u].flatten() for u in range(3)]))


def test_what_is_no_weight_is_left_alone():
    """Biases, scales of normalisation, frozen weights; a shared weight counts once."""
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm((4, 1)), nn.BatchNorm1d(4), nn.Linear(4, 3), nn.Linear(3, 4))
    model[4].weight = model[0].weight
    model[3].weight.requires_grad_(False)
    assert float(rt.WeightTerm().of(model).detach()) == pytest.approx(float(model[0].weight.detach().abs().sum()))
    rt.WeightTerm().of(model).backward()
    assert [name for name, p in model.named_parameters() if p.grad is not None] == ["0.weight"]


@pytest.mark.parametrize("layers", ["all", "first"])
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("problem", [vectors, images], ids=["vectors", "images"])
def test_gradient_is_that_of_finite_differences(problem, penalty, layers):
    given = problem()
    objective = rt.Objective(given.model, F.cross_entropy, [rt.WeightTerm(penalty, layers, 0.7)])
    check_term(objective, given.inputs, given.labels)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_group_of_zeros_has_a_finite_gradient(penalty):
    model = nn.Linear(2, 3)
    with torch.no_grad():
        model.weight[:, 0] = 0
    rt.WeightTerm(penalty).of(model).backward()
    assert model.weight.grad.isfinite().all()
    assert (model.weight.grad[:, 0] == 0).all()


def test_half_precision_neither_overflows_nor_stays_half():
    model = nn.Linear(300, 300).half()
    with torch.no_grad():
        model.weight.fill_(100.0)
    assert float(rt.WeightTerm("l2").of(model).detach()) == pytest.approx(9e8)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_the_objective_adds_weight_times_penalty(penalty):
    given = vectors()
    term = rt.WeightTerm(penalty, weight=0.25, schedule=rt.Schedule(every=2))
    beside = rt.Term(rt.Gradient(output="log_prob_sum"), rt.priors.L2(), 0.5)
    objective = rt.Objective(given.model.eval(), F.cross_entropy, [beside, term]).train(False)
    report = objective(given.inputs, given.labels)
    found = report.terms[f"{penalty}_weights"]
    assert float(found.penalty) == pytest.approx(float(term.of(given.model).detach()))
    assert found.weight == 0.5  # at every second step, twice as strongly
    parts = report.task + report.terms["l2"].contribution + found.contribution
    assert torch.allclose(report.total, parts, rtol=1e-12)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_it_does_not_depend_on_the_batch(penalty):
    given = vectors()
    objective = rt.Objective(given.model, F.cross_entropy, [rt.WeightTerm(penalty)])
    values = [float(objective(given.inputs[:n], given.labels[:n], part="prior").total.detach()) for n in (1, 2, 4)]
    assert values[0] == values[1] == values[2] > 0


def bits(terms, **settings):
    model = rt.models.mlp(6, (8, 5), 2, seed=3)
    x, y = classification()
    rt.fit(rt.Objective(model, F.cross_entropy, terms), (x, y), (x[:31], y[:31]), epochs=3, lr=0.01, **settings)
    return model.state_dict()


def test_weight_zero_is_plain_training_to_the_bit():
    plain, resting = bits([]), bits([rt.WeightTerm("sparse_group_lasso", weight=0)])
    assert all(torch.equal(plain[name], resting[name]) for name in plain)
    trained = bits([rt.WeightTerm("sparse_group_lasso", weight=0.1)])
    assert not all(torch.equal(plain[name], trained[name]) for name in plain)


def test_closed_form_of_ridge_and_lasso():
    """Least squares on orthonormal inputs: ridge shrinks by 1 + 2 w, lasso thresholds at w."""
    x = torch.linalg.qr(torch.randn(40, 4, generator=draws(0), dtype=torch.float64))[0] * math.sqrt(40)
    least = torch.tensor([2.0, -1.0, 0.3, -0.05], dtype=torch.float64)
    y = (x @ least)[:, None]

    def solution(penalty, weight):
        model = nn.Linear(4, 1, bias=False).double()
        term = rt.WeightTerm(penalty, weight=weight)
        objective = rt.Objective(model, lambda out, truth: 0.5 * F.mse_loss(out, truth), [term])
        rt.fit(objective, (x, y), epochs=400, batch_size=40, optimizer="sgd", lr=0.05)
        return model.weight.detach()[0]

    assert torch.allclose(solution("l2", 0.25), least / 1.5, atol=1e-6)
    expected = least.sign() * (least.abs() - 0.1).clamp_min(0)
    assert torch.allclose(solution("l1", 0.1), expected, atol=6e-3)  # a step of sgd jumps over zero


@pytest.mark.parametrize("open_weight", ["balance", "auto"])
def test_an_open_weight_is_settled(open_weight):
    model = rt.models.mlp(6, (8, 5), 2, seed=3)
    x, y = classification()
    objective = rt.Objective(model, F.cross_entropy, [rt.WeightTerm(weight=open_weight)])
    run = rt.fit(objective, (x, y), (x[:31], y[:31]), epochs=4, lr=0.01)
    assert run.weights["l1_weights"] == run.choices["l1_weights"].weight > 0


def test_the_grid_of_a_sweep():
    x, y = classification()
    terms = {"l1": [rt.WeightTerm()], "l1 and gradients": [rt.WeightTerm(), rt.Term(rt.Gradient(), rt.priors.L2())]}
    trials = rt.fit_many(
        lambda seed: rt.models.mlp(6, (8, 5), 2, seed=seed),
        F.cross_entropy,
        terms,
        (x, y),
        grid={"l1_weights": [0, 0.1]},
        seeds=range(2),
        epochs=2,
        at_once=4,
    )
    assert [(t.setting["prior"], t.setting["l1_weights"]) for t in trials[::2]] == [
        (prior, weight) for prior in terms for weight in (0, 0.1)
    ]
    assert {trial.together for trial in trials} == {2}  # a term that rests is trained apart from one that acts


def test_the_preflight_prints_a_line():
    given = vectors()
    terms = [rt.WeightTerm("sparse_group_lasso", "first", 0.1), rt.Term(rt.Gradient(), rt.priors.L1())]
    report = rt.check(rt.Objective(given.model, F.cross_entropy, terms), given.inputs, given.labels)
    assert report.ok
    assert report.terms[0].reached == (1, len(list(given.model.parameters())))
    assert report.terms[0].engines == ()
    assert "sparse_group_lasso_f yes" in str(report)


def test_the_compiled_step_agrees():
    given = vectors()
    eager, compiled = (
        rt.Objective(vectors().model.eval(), F.cross_entropy, [rt.WeightTerm("sparse_group_lasso", weight=0.3)])
        for _ in range(2)
    )
    compiled.compile(backend="eager")
    for _ in range(4):
        totals = [objective(given.inputs, given.labels).total for objective in (eager, compiled)]
        assert torch.allclose(*totals, rtol=1e-12)
        for objective, total in zip((eager, compiled), totals, strict=True):
            objective.zero_grad()
            total.backward()
        for a, b in zip(eager.parameters(), compiled.parameters(), strict=True):
            assert torch.allclose(a.grad, b.grad, rtol=1e-9, atol=1e-12)


def test_the_how_to_trains_every_regulariser_of_the_papers():
    page = Path(__file__).parents[2] / "docs" / "how-to" / "regularisers.md"
    names = {}
    exec(page.read_text(encoding="utf-8").split("```python")[1].split("```")[0], names)
    trials, baselines = names["trials"], names["baselines"]
    assert len(trials) == 2 * len(baselines) == 32
    assert {trial.status for trial in trials} == {"trained"}
    plain = [trial.model.state_dict()["1.weight"] for trial in trials[:2]]
    for trial in trials[2:]:
        assert not torch.equal(trial.model.state_dict()["1.weight"], plain[trial.seed]), trial.setting


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"penalty": "l3"}, "l1, l2, sparse_group_lasso"),
        ({"layers": "last"}, "all, first"),
        ({"weight": -1}, "finite number"),
        ({"weight": "some"}, "balance"),
    ],
)
def test_bad_arguments_are_refused(arguments, match):
    with pytest.raises(ArgumentError, match=match):
        rt.WeightTerm(**arguments)


def test_a_model_without_weights_is_refused():
    frozen = nn.Linear(2, 2).requires_grad_(False)
    for model in (nn.ReLU(), frozen):
        with pytest.raises(ArgumentError, match="finds no weights"):
            rt.WeightTerm().of(model)


def test_two_terms_of_one_name_are_refused():
    with pytest.raises(ArgumentError, match="one name"):
        rt.Objective(small(), F.mse_loss, [rt.WeightTerm(), rt.WeightTerm(weight=2)])
    with pytest.raises(ArgumentError, match="list"):
        rt.Objective(small(), F.mse_loss, rt.WeightTerm())
