"""Weights left open: balanced where it means something, and chosen by the one-standard-error rule."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import rightly as rt
from rightly.core import seeding
from rightly.core.errors import ArgumentError
from rightly.training import DivergedError
from rightly.training.batches import Batches
from rightly.training.selection import COARSE, FINE, choose_weight
from rightly.training.settings import Settings
from rightly.training.settle import settle
from training.training_problems import bits, classification, linear, mlp, normal, objective, regression, same, term

X, Y = classification()
VALID = (X[:30], Y[:30])


def plain_until_halved(trained: rt.Objective, data: tuple, epochs: int, seed: int, lr: float) -> None:
    """Plain training written by hand, as long as balancing trains: until the loss has halved, a quarter at most."""
    optimizer = torch.optim.Adam(trained.model.parameters(), lr=lr)
    losses: list[float] = []
    with torch.random.fork_rng():
        for epoch in range(max(1, epochs // 4)):
            torch.manual_seed(seeding.mix(seed, "balance", epoch))
            order = torch.randperm(len(data[0]), generator=seeding.generator(seed, "order", epoch))
            for index in order.split(30):
                optimizer.zero_grad()
                loss = F.cross_entropy(trained.model(data[0][index]), data[1][index])
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
                if len(losses) >= 10 and sum(losses[-10:]) / 10 <= losses[0] / 2:
                    return


@pytest.mark.parametrize("epochs", [1, 8, 200])
def test_balance_makes_the_term_as_large_as_the_task_at_the_measured_point(epochs):
    deterministic = rt.Term(rt.Gradient(output="log_prob_sum"), rt.priors.L2(), "balance")
    trained = rt.Objective(mlp(), F.cross_entropy, [deterministic], seed=3)
    start = bits(trained.model)
    weights = []

    def first(epoch, entry):
        weights.append(trained.weights["l2"])
        raise StopIteration

    with pytest.raises(StopIteration):
        rt.fit(trained, (X, Y), epochs=epochs, batch_size=30, lr=0.02, seed=7, callback=first)
    probe = rt.Objective(mlp(), F.cross_entropy)
    assert same(bits(probe.model), start)
    plain_until_halved(probe, (X, Y), epochs, 7, 0.02)
    model = probe.model.eval()
    tasks, penalties = [], []
    for index in torch.randperm(90, generator=seeding.generator(7, "order", 0)).split(30):
        x = X[index].requires_grad_()
        outputs = model(x)
        (gradient,) = torch.autograd.grad(outputs.log_softmax(1).sum(), x)
        tasks.append(F.cross_entropy(outputs, Y[index]).item())
        penalties.append(gradient.square().sum(1).mean().item())
    assert weights[0] * sum(penalties) == pytest.approx(sum(tasks), rel=1e-5)


@pytest.mark.parametrize(("prior", "power"), [(rt.priors.L1(), 1), (rt.priors.L2(), 2), (rt.priors.Sparsity(), 0)])
def test_larger_attributions_get_a_smaller_weight_by_the_right_power(prior, power):
    class Louder(rt.Gradient):
        def _weigh(self, gradient, x):
            return 8 * gradient

    weights = []
    for attribution in (rt.Gradient(), Louder()):
        trained = rt.Objective(mlp(), F.cross_entropy, [rt.Term(attribution, prior, "balance")])
        run = rt.fit(trained, (X, Y), epochs=4, batch_size=30)
        (weight,) = run.weights.values()
        weights.append(weight)
        (choice,) = run.choices.values()
        assert (choice.weight, choice.candidates) == (weight, ())
        assert "as large as the task loss" in choice.reason
    assert weights[0] == pytest.approx(8**power * weights[1], rel=1e-5)


def test_without_a_scale_the_weight_is_one_and_says_why():
    marked = (X, Y, rt.Annotation(irrelevant=torch.zeros(1, 6)))
    trained = rt.Objective(mlp(), F.cross_entropy, [rt.Term(rt.Gradient(), rt.priors.Irrelevant(), "balance")])
    run = rt.fit(trained, marked, epochs=1)
    assert run.weights == {"irrelevant": 1.0}
    assert "the penalty was zero" in run.choices["irrelevant"].reason
    negative = rt.Objective(mlp(), lambda o, y: F.cross_entropy(o, y) - 100, [term("balance")])
    assert rt.fit(negative, (X, Y), epochs=1).weights == {"sparsity": 1.0}


def test_balancing_does_not_move_the_training_by_a_bit():
    x, y = regression(dtype=torch.float32)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.2), nn.Linear(6, 1))
    start = bits(model)
    trained = [rt.Objective(model, F.mse_loss, [term(weight)], seed=1) for weight in ("balance", 0.0)]
    run = rt.fit(trained[0], (x, y), epochs=3)
    model.load_state_dict(start)
    trained[1].set_weight("sparsity", run.weights["sparsity"])
    given_run = rt.fit(trained[1], (x, y), epochs=3)
    assert run.history == given_run.history


# ---- the rule


def each(trial):
    """What takes several at once, from what takes one."""
    return lambda several: [trial(one) for one in several]


def oracle(curve: dict[float, list[float]]) -> float:
    """The one-standard-error rule in plain Python, for losses by weight."""
    means = {w: sum(v) / len(v) for w, v in curve.items() if all(map(math.isfinite, v))}
    best = min(means, key=lambda w: (means[w], w))
    values = curve[best]
    variance = sum((v - means[best]) ** 2 for v in values) / (len(values) - 1)
    limit = means[best] + math.sqrt(variance / len(values))
    return max(w for w in means if means[w] <= limit + 1e-12)


def rule(loss_of, scale: float):
    """Grids and picks in plain Python: (weights tried in order, the choice)."""
    tried = {w: loss_of(w) for w in [0.0] + [scale * factor for factor in COARSE]}
    middle = oracle(tried)
    if middle:
        tried |= {middle * factor: loss_of(middle * factor) for factor in FINE if middle * factor <= scale}
    return tried, oracle(tried)


@given(
    scale=st.sampled_from([1e-6, 0.37, 1.0, 5e4]),
    noise=st.floats(0.001, 2.0),
    peak=st.floats(-4, 3),
    slope=st.floats(-0.5, 2),
    broken=st.sets(st.integers(0, len(COARSE) - 1), max_size=5),
    seed=st.integers(0, 10),
)
def test_the_rule_is_the_slow_one(scale, noise, peak, slope, broken, seed):
    base = normal(40, seed=seed, dtype=torch.float64) * noise
    bad = [scale * COARSE[i] for i in broken]
    calls = []

    def trial(weight: float) -> torch.Tensor:
        calls.append(weight)
        if weight in bad:
            return torch.full((40,), torch.nan)
        level = math.log10(weight / scale) if weight else -6.0
        return base + 0.1 * (level - peak) ** 2 + slope * max(0.0, level)

    choice = choose_weight(each(trial), scale=scale)
    tried, expected = rule(lambda w: trial(w).tolist(), scale)
    tries = calls[: len(calls) // 2]
    assert tries == list(tried)
    assert choice.weight == expected
    finite = sorted(w for w in tried if w not in bad)
    assert [c.weight for c in choice.candidates] == finite
    assert [c.weight for c in choice.candidates if c.chosen] == [expected]
    for c in choice.candidates:
        values = torch.tensor(tried[c.weight], dtype=torch.float64)
        assert c.mean == pytest.approx(values.mean().item(), rel=1e-9, abs=1e-12)
        assert c.error == pytest.approx((values.var() / 40).sqrt().item(), rel=1e-9, abs=1e-12)
    assert f"the largest of {len(finite)} weights" in choice.reason
    assert (f"{len(bad)} more gave no finite loss" in choice.reason) == bool(bad)


def test_a_flat_curve_gives_the_largest_weight_and_a_steep_one_zero():
    values = normal(50, dtype=torch.float64)
    flat = choose_weight(each(lambda weight: values), scale=2.0)
    assert flat.weight == 2.0  # the balanced weight is the largest that is tried
    steep = choose_weight(each(lambda weight: values + (9.0 if weight else 0.0)), scale=2.0)
    assert steep.weight == 0.0
    assert len(steep.candidates) == 1 + len(COARSE)
    assert "at weight 0" in steep.reason


def test_one_example_has_no_error_and_ties_go_to_the_largest():
    choice = choose_weight(each(lambda weight: torch.tensor([1.0])), scale=1.0, coarse=(1.0, 2.0), fine=())
    assert choice.weight == 2.0
    assert {c.error for c in choice.candidates} == {0.0}


def test_no_finite_loss_at_all_is_an_error():
    with pytest.raises(ArgumentError, match="no weight gave a finite validation loss"):
        choose_weight(each(lambda weight: torch.full((3,), torch.nan)), scale=1.0)


# ---- the whole of it


def test_auto_tries_trainings_like_the_one_to_come_and_takes_the_rule_s_pick():
    settings = {"epochs": 3, "batch_size": 30, "lr": 0.02, "patience": 2, "seed": 5}
    trained = objective("auto")
    run = rt.fit(trained, (X, Y), VALID, **settings)
    choice = run.choices["sparsity"]
    assert run.weights == {"sparsity": choice.weight} == trained.weights
    scale = rt.fit(objective("balance"), (X, Y), VALID, **settings).weights["sparsity"]

    def losses(weight: float) -> list[float]:
        one = objective(weight)
        rt.fit(one, (X, Y), VALID, **settings)
        with torch.no_grad():
            return F.cross_entropy(one.model.eval()(VALID[0]), VALID[1], reduction="none").double().tolist()

    tried, expected = rule(losses, scale)
    assert choice.weight == expected
    assert [c.weight for c in choice.candidates] == sorted(tried)
    for candidate in choice.candidates:
        values = tried[candidate.weight]
        assert candidate.mean == pytest.approx(sum(values) / len(values), rel=1e-5)


def test_choosing_leaves_the_objective_as_it_was_until_the_training_starts():
    trained = objective("auto")
    start, seen = bits(trained.model), []

    class Looking(torch.optim.Adam):
        def __init__(self, parameters) -> None:
            super().__init__(parameters, lr=0.01)
            seen.append((bits(trained.model), trained.step, dict(trained.weights)))

    rt.fit(trained, (X, Y), VALID, epochs=2, optimizer=Looking)
    tried = 1 + len(COARSE)  # the training, the probe, the trials, and those of the finer grid
    assert len(seen) in (1 + 1 + tried, 1 + 1 + tried + 1, 1 + 1 + tried + len(FINE))
    for state, step, weights in seen:
        assert same(state, start)
        assert step == 0
        assert math.isnan(weights["sparsity"])


def test_trials_that_break_down_are_left_out():
    x, y = regression(dtype=torch.float32)
    # the constant makes the balanced weight large, too large for this learning rate
    prior = rt.Term(rt.Gradient(), rt.priors.L2(), "auto")
    trained = rt.Objective(linear(dtype=torch.float32), lambda o, labels: 1000 + F.mse_loss(o, labels), [prior])
    run = rt.fit(trained, (x, y), (x, y), epochs=8, optimizer="sgd", lr=0.05, batch_size=5)
    choice = run.choices["l2"]
    assert len(choice.candidates) <= len(COARSE) + len(FINE)
    assert "more gave no finite loss" in choice.reason
    assert all(math.isfinite(c.mean) for c in choice.candidates)
    assert math.isfinite(run.history[-1]["task"])


def test_a_training_that_always_breaks_down_is_an_error_and_changes_nothing():
    trained = objective("auto")
    start = bits(trained.model)
    with pytest.raises((ArgumentError, DivergedError)):
        rt.fit(trained, (X, Y), (X * torch.nan, Y), epochs=1)
    assert same(bits(trained.model), start)
    assert math.isnan(trained.weights["sparsity"])


def test_auto_needs_validation_and_says_so_before_any_training():
    calls = []

    def loss(outputs, labels):
        calls.append(1)
        return F.cross_entropy(outputs, labels)

    with pytest.raises(ArgumentError, match="chosen by validation") as caught:
        rt.fit(rt.Objective(mlp(), loss, [term("auto")]), (X, Y))
    assert caught.value.expected == "validation=..."
    assert calls == []


def test_several_open_weights_take_one_grid_each():
    made = []

    def optimizer(parameters):
        made.append(1)
        return torch.optim.Adam(parameters, lr=0.01)

    terms = [
        rt.Term(rt.Gradient(), rt.priors.L2(), "auto"),
        term("balance"),
        rt.Term(rt.Gradient(), rt.priors.L1(), "auto"),
        rt.Term(rt.InputXGradient(), rt.priors.L1(), 0.25, "given"),
    ]
    trained = rt.Objective(mlp(), F.cross_entropy, terms)
    run = rt.fit(trained, (X, Y), VALID, epochs=2, batch_size=30, optimizer=optimizer)
    assert list(run.choices) == ["l2", "sparsity", "l1"]
    assert run.weights == {**{name: c.weight for name, c in run.choices.items()}, "given": 0.25}
    assert [bool(c.candidates) for c in run.choices.values()] == [True, False, True]
    assert len(made) <= 2 + 2 * 9


def test_later_weights_rest_while_the_first_is_chosen_and_see_what_was_chosen():
    terms = [rt.Term(rt.Gradient(), prior, "auto") for prior in (rt.priors.L2(), rt.priors.L1())]
    trained = rt.Objective(mlp(), F.cross_entropy, terms)
    batches = Batches((X, Y), batch_size=30, shuffle=True, seed=0)
    settings = Settings(
        epochs=1,
        batch_size=30,
        optimizer="adam",
        lr=0.01,
        weight_decay=0.0,
        scheduler=None,
        schedule="joint",
        prior_optimizer=None,
        monitor=None,
        patience=None,
        restore_best=True,
        precision="float32",
        device=None,
        seed=0,
    )
    seen = []
    # untrained copies: every weight costs nothing, so the largest is chosen
    choices = settle(
        trained, batches, batches, settings, each(lambda copied: seen.append(dict(copied.weights)) is None)
    )
    assert choices["l2"].weight > 0
    assert {weights["l1"] for weights in seen[:6]} == {0.0}
    assert {weights["l2"] for weights in seen[6:]} == {choices["l2"].weight}
    assert [weights["l2"] for weights in seen[:6]] == [
        *sorted(weights["l2"] for weights in seen[:5]),
        pytest.approx(seen[4]["l2"] * FINE[0]),
    ]
    assert all(map(math.isnan, trained.weights.values()))


def test_trials_in_which_a_loader_gives_the_data():
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*VALID), 7, shuffle=True)
    found = []
    for noise in range(2):
        torch.manual_seed(noise)
        found.append(rt.fit(objective("auto"), loader, loader, epochs=2).choices["sparsity"])
    assert found[0] == found[1]
