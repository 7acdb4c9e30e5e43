"""Path lengths of decision trees, their surrogate, and training with it."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.tree import DecisionTreeClassifier
from torch import nn

import rightly as rt
from contracts.derivatives import check_term
from contracts.problems import draws, normal
from rightly.core.errors import ArgumentError, NotConnectedError, ShapeError
from rightly.objectives import Batch, path_length, path_lengths
from rightly.objectives.tree import flattened

X = normal(60, 2, seed=1)
LABELS = (X[:, 0] * X[:, 1] > 0).long()


def _net(seed=3, classes=2):
    return rt.models.mlp(2, [4], classes, seed=seed).double()


def _surrogate(model, **arguments):
    return rt.TreeSurrogate(model, X, **{"refit": 2, "neighbours": 6, "memory": 20, **arguments})


def _steps(objective, count=5):
    optimizer = torch.optim.Adam([p for p in objective.parameters() if p.requires_grad], lr=0.02)
    for _ in range(count):
        optimizer.zero_grad()
        objective(X, LABELS).total.backward()
        optimizer.step()


# --- true path lengths


def test_the_published_mistake_is_not_made():
    """Five features, the label x0 xor x1: 17 nodes, 4.48 on a path, while the numbers of the leaves average 10.98."""
    rows = np.random.RandomState(0).randn(500, 5)
    tree = DecisionTreeClassifier(min_samples_leaf=25, random_state=0).fit(rows, (rows[:, 0] > 0) ^ (rows[:, 1] > 0))
    assert tree.tree_.node_count == 17
    assert path_length(tree, rows) == pytest.approx(4.476)
    assert tree.apply(rows).mean() == pytest.approx(10.976)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5])
def test_parity_needs_every_bit(bits):
    """A full tree: every path asks each bit once, and ends in a leaf."""
    cube = torch.tensor(list(itertools.product((0.0, 1.0), repeat=bits)))
    found = path_lengths(lambda x: (x.sum(1, keepdim=True) % 2) - 0.5, cube)
    assert found.tolist() == [bits + 1]


def test_a_chain_has_the_mean_of_its_depths():
    """Thresholds at 1, 2, 3 between classes 0 to 3, in proportions of which the tree cuts off the largest first."""
    x = torch.repeat_interleave(torch.arange(4.0), torch.tensor([80, 12, 6, 2]))[:, None]
    found = path_lengths(lambda x: F.one_hot(x[:, 0].long(), 4).float(), x)
    assert float(found[0]) == pytest.approx((80 * 2 + 12 * 3 + 6 * 4 + 2 * 4) / 100)


def test_a_constant_model_is_a_leaf():
    assert path_lengths(lambda x: torch.ones(len(x), 1), X).tolist() == [1]


def test_one_output_and_two_say_the_same():
    score = lambda x: (x[:, :1] * x[:, 1:]) - 0.1  # noqa: E731
    two = path_lengths(lambda x: torch.cat([torch.zeros_like(score(x)), score(x)], 1), X)
    assert torch.equal(path_lengths(score, X), two)
    assert two > 3


def test_larger_leaves_make_shorter_paths():
    model = _net(3)
    fine, coarse = (float(path_lengths(model, X, least=least)[0]) for least in (1, 20))
    assert coarse < fine


def test_each_region_has_its_own_tree():
    """To the left nothing is to be told, to the right one question."""
    x = torch.tensor([[-2.0, 0.0], [-1.0, 5.0], [1.0, -1.0], [1.0, 1.0], [2.0, 2.0]])
    regions = (x[:, 0] > 0).long()
    model = lambda x: torch.where(x[:, :1] > 0, x[:, 1:], -1.0)  # noqa: E731
    assert path_lengths(model, x, regions).tolist() == [1, 2]
    whole = float(path_lengths(model, x)[0])
    assert whole == pytest.approx((1 * 2 + 4 * 3) / 5) or whole == pytest.approx((3 * 2 + 2 * 3) / 5) or whole > 2


def test_the_model_is_left_alone():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(), nn.Linear(3, 2)).double()
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    first, second = path_lengths(model, X), path_lengths(model, X)
    assert torch.equal(first, second)
    assert model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


# --- the surrogate


def test_the_surrogate_knows_what_it_was_told():
    """Each refit notes the weights themselves, and neighbours: all with their true lengths."""
    model = _net(4)
    surrogate = _surrogate(model).double()
    surrogate.learn(model)
    assert surrogate.counts.tolist() == [1, 7]
    assert torch.equal(surrogate.known[0], flattened(model).detach())
    for place in range(7):
        other = copy.deepcopy(model)
        nn.utils.vector_to_parameters(surrogate.known[place], other.parameters())
        assert surrogate.lengths[place] == path_lengths(other, X)[0]


def test_the_fit_is_that_of_the_best_ridge_left_out():
    """Written out: for every strength each pair is left out in turn, and foretold by the others."""
    model = _net(4)
    surrogate = _surrogate(model).double()
    surrogate.learn(model)
    known, lengths = surrogate.known[:7], surrogate.lengths[:7, 0]
    units = known / surrogate.scale
    kernel = torch.exp(-(torch.cdist(units, units) ** 2) / (2 * known.shape[1]))
    level = lengths.mean()
    found = {}
    for exponent in range(-6, 7):
        ridge = 10.0 ** (exponent / 2)
        errors = []
        for out in range(7):
            rest = [i for i in range(7) if i != out]
            inner = kernel[rest][:, rest] + ridge * torch.eye(6, dtype=torch.float64)
            foretold = level + kernel[out, rest] @ torch.linalg.solve(inner, lengths[rest] - level)
            errors.append(float((foretold - lengths[out]) ** 2))
        found[ridge] = sum(errors)
    best = min(found, key=found.get)
    weights = torch.linalg.solve(kernel + best * torch.eye(7, dtype=torch.float64), lengths - level)
    expected = level + kernel @ weights
    assert torch.allclose(surrogate(known)[:, 0], expected, rtol=1e-8)
    assert len({round(value, 12) for value in found.values()}) > 5


def test_the_oldest_pairs_are_forgotten():
    model = _net(4)
    surrogate = _surrogate(model, memory=10, refit=1).double()
    for _ in range(3):
        surrogate.learn(model)
    assert surrogate.counts.tolist() == [3, 21]
    assert torch.equal(surrogate.known[4], flattened(model).detach())  # pair 14, the third time's first


def test_far_away_the_surrogate_says_the_mean():
    """No pay for running away from what is known."""
    model = _net(4)
    surrogate = _surrogate(model).double()
    surrogate.learn(model)
    far = flattened(model).detach()[None] + 100 * surrogate.scale
    assert torch.allclose(surrogate(far), surrogate.lengths[:7].mean(0, keepdim=True))


@pytest.mark.parametrize("over", ["mean", "max"])
def test_the_term_has_the_true_gradient(over):
    model = _net()
    surrogate = _surrogate(model, regions=(X[:, 0] > 0).long())
    objective = rt.Objective(model, F.cross_entropy, [rt.TreeTerm(surrogate, over, 0.1)])
    _steps(objective, 3)
    assert objective(X, LABELS, part="prior").total > 0
    check_term(objective.eval(), X, LABELS)


def test_regions_are_averaged_or_the_worst_one_counts():
    model = _net()
    surrogate = _surrogate(model, regions=(X[:, 0] > 0).long()).double()
    surrogate.learn(model)
    lengths = surrogate.eval()(flattened(model)[None])[0]
    assert (lengths[0] - lengths[1]).abs() > 0.01
    for over, expected in (("mean", lengths.mean()), ("max", lengths.max())):
        assert torch.equal(rt.TreeTerm(surrogate, over).of(model, Batch(X)), expected)


def test_the_term_learns_in_training_only():
    model = _net()
    surrogate = _surrogate(model)
    objective = rt.Objective(model, F.cross_entropy, [rt.TreeTerm(surrogate)])
    with torch.no_grad():
        objective(X, LABELS)
    objective.eval()(X, LABELS)
    assert surrogate.counts.tolist() == [0, 0]
    objective.train()(X, LABELS)
    assert surrogate.counts.tolist() == [1, 7]
    assert rt.check(objective, X, LABELS).ok
    assert surrogate.counts.tolist() == [1, 7]


def test_no_optimizer_gets_the_surrogate():
    objective = rt.Objective(_net(), F.cross_entropy, [rt.TreeTerm(_surrogate(_net()))])
    assert {name.split(".")[0] for name, _ in objective.named_parameters()} == {"model"}


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    ends = []
    for seed in (0, 0, 1):
        model = _net()
        objective = rt.Objective(model, F.cross_entropy, [rt.TreeTerm(_surrogate(model, seed=seed), weight=0.5)])
        _steps(objective)
        ends.append(flattened(model).detach())
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_a_resumed_training_goes_on_with_the_same_bits(tmp_path):
    """Stopped between two refits, in the middle of what the surrogate knows."""

    def fit(epochs, folder, resume=False):
        model = _net()
        objective = rt.Objective(model, F.cross_entropy, [rt.TreeTerm(_surrogate(model, refit=3), weight=0.2)])
        rt.fit(
            objective, (X, LABELS), epochs=epochs, batch_size=30, lr=0.02, checkpoint=tmp_path / folder, resume=resume
        )
        return objective.state_dict()

    whole = fit(4, "whole")
    fit(2, "parts")
    again = fit(4, "parts", resume=True)
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert any("known" in name for name in whole)


def test_trials_do_not_share_what_they_learn():
    model = _net()
    surrogate = _surrogate(model)
    trials = rt.fit_many(
        lambda seed: _net(seed),
        F.cross_entropy,
        [rt.TreeTerm(surrogate)],
        (X, LABELS),
        seeds=range(2),
        epochs=1,
        batch_size=30,
    )
    assert len(trials) == 2
    assert surrogate.counts.tolist() == [0, 0]


def test_paths_can_be_trained_shorter():
    """A slanting boundary takes a tree many steps, an upright one a single one, and is nearly as good."""
    x = 2 * torch.rand(150, 2, generator=draws(0)) - 1
    y = (x[:, 1] + 0.3 * x[:, 0] > 0).float()[:, None]
    lengths, right, estimates = {}, {}, {}
    for weight in (0.0, 0.2):
        model = rt.models.mlp(2, [6], 1, seed=0)
        surrogate = rt.TreeSurrogate(model, x)
        term = rt.TreeTerm(surrogate, weight=weight, schedule=rt.Schedule(start=150))
        rt.fit(
            rt.Objective(model, F.binary_cross_entropy_with_logits, [term]), (x, y), epochs=250, batch_size=75, lr=0.03
        )
        lengths[weight] = float(path_lengths(model, x)[0])
        right[weight] = float(((model(x) > 0) == (y > 0)).float().mean())
        estimates[weight] = float(surrogate(flattened(model).detach()[None]))
    assert lengths[0.2] < lengths[0.0] - 0.7
    assert right[0.2] > 0.95
    assert abs(estimates[0.2] - lengths[0.2]) < 0.5


# --- what cannot be asked


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: path_lengths(_net(), X[:, 0]), ShapeError, "examples"),
        (lambda: path_lengths(lambda x: x[:, 0], X), ShapeError, "imitate classes"),
        (lambda: path_lengths(_net(), X, least=0), ArgumentError, "least"),
        (lambda: path_lengths(_net(), X, torch.zeros(3, dtype=torch.long)), ShapeError, "regions"),
        (lambda: path_lengths(_net(), X, torch.zeros(60)), ShapeError, "regions"),
        (lambda: path_lengths(_net(), X, 2 * (X[:, 0] > 0).long()), ArgumentError, "empty regions"),
        (lambda: _surrogate(_net(), refit=0), ArgumentError, "refit"),
        (lambda: _surrogate(_net(), spread=0.0), ArgumentError, "spread"),
        (lambda: _surrogate(_net(), memory=1), ArgumentError, "memory"),
        (lambda: _surrogate(_net().requires_grad_(False)), NotConnectedError, "nothing to train"),
        (lambda: rt.TreeTerm(_net()), ArgumentError, "surrogate"),
        (lambda: rt.TreeTerm(_surrogate(_net()), "sum"), ArgumentError, "summary of regions"),
        (lambda: rt.TreeTerm(_surrogate(_net()), weight=-1), ArgumentError, "weight"),
        (
            lambda: rt.Objective(_net(classes=3), F.cross_entropy, [rt.TreeTerm(_surrogate(_net()))])(X, LABELS),
            ShapeError,
            "other weights",
        ),
    ],
)
def test_what_cannot_be_asked(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16, torch.float32])
def test_a_model_of_another_precision_than_the_inputs(precision):
    model, inputs = _net().to(precision), X.double()
    assert path_lengths(model, inputs) == path_lengths(model, inputs.to(precision).double())
    term = rt.TreeTerm(_surrogate(model))
    total = rt.Objective(model, F.cross_entropy, [term])(X.to(precision), LABELS).total
    total.backward()
    assert total.isfinite()


def test_the_kernel_is_that_of_the_differences():
    model = _net()
    surrogate = _surrogate(model).double()
    first, second = normal(3, len(flattened(model)), seed=1), normal(5, len(flattened(model)), seed=2)
    second[0] = first[0]
    surrogate.scale.uniform_(0.5, 2, generator=draws(4))
    apart = (first[:, None] - second) / surrogate.scale
    assert torch.allclose(surrogate._kernel(first, second), torch.exp(-apart.square().mean(2) / 2), rtol=1e-12)


def test_the_kernel_holds_no_difference_of_every_pair():
    surrogate = _surrogate(_net())
    size = surrogate.known.shape[1]
    sizes = []

    class Watching(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            sizes.append(result.numel() if isinstance(result, torch.Tensor) else 0)
            return result

    with Watching():
        surrogate._kernel(torch.ones(30, size), torch.zeros(40, size))
    assert max(sizes) <= max(40 * size, 30 * 40)


def test_answers_that_are_no_numbers_have_no_tree():
    with pytest.raises(ArgumentError, match="no numbers"):
        path_lengths(lambda x: x * float("nan"), X)
