"""Last-layer retraining: scikit-learn's logistic regression on balanced rows, averaged, and nothing else changed."""

import copy

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

import rightly as rt
from rightly.core.errors import ArgumentError, ShapeError
from rightly.training import last_layer
from rightly.training.last_layer import _balanced, logistic, retrain_last_layer
from training.training_problems import bits, normal, same


def problem(n=240, classes=3):
    """Inputs of unlike scales, one of them constant; classes that they tell; two groups of unlike sizes."""
    x = normal(n, 5) * torch.tensor([1.0, 10, 0.1, 1, 0]) + torch.tensor([0.0, 3, 0, 0, 2])
    labels = (x[:, 0] + 0.1 * x[:, 1] + 0.5 * normal(n, seed=1)).argsort().argsort() * classes // n
    groups = (torch.rand(n, generator=torch.Generator().manual_seed(2)) < 0.3).long()
    return x, labels, groups


def model(classes=3, dropout=0.0):
    return rt.models.mlp(5, [8], classes, dropout=dropout, seed=0)


def features_of(trained, x):
    with torch.no_grad():
        return trained[:-1].eval()(x).double()


def by_scikit(features, labels, penalty, strength):
    """(C, D) and (C,); of two classes the difference of the logits."""
    solver = {"l1": "saga", "l2": "lbfgs"}[penalty]
    ratio = {"l1": 1.0, "l2": 0.0}[penalty]
    fitted = LogisticRegression(
        C=1 / (strength * len(labels)), l1_ratio=ratio, solver=solver, tol=1e-10, max_iter=100_000, random_state=0
    ).fit(features.numpy(), labels.numpy())
    return fitted.coef_, fitted.intercept_


def scaled(features):
    spread = features.std(0, correction=0)
    return torch.where(spread > 0, (features - features.mean(0)) / spread.clamp(min=1e-12), 0.0), spread


@pytest.mark.parametrize("penalty", ["l1", "l2"])
@pytest.mark.parametrize("strength", [0.003, 0.03])
@pytest.mark.parametrize("outputs", [1, 3])
def test_the_regression_is_scikit_learn_s(penalty, strength, outputs):
    x, labels, _ = problem(classes=max(outputs, 2))
    x, _ = scaled(x.double())
    weight, bias = logistic(x, labels, outputs, penalty, strength, 1e-6)
    expected, offset = by_scikit(x, labels, penalty, strength)
    # the loss of three classes does not change with what is added to all biases
    biases = (
        (bias, torch.tensor(offset)) if outputs == 1 else (bias - bias.mean(), torch.tensor(offset - offset.mean()))
    )
    np.testing.assert_allclose(weight.numpy(), expected, atol=2e-4)
    np.testing.assert_allclose(*biases, atol=2e-4)
    if penalty == "l1":
        assert (weight == 0).sum() == (abs(expected) < 1e-6).sum() > 0


@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_it_is_a_minimum(penalty):
    x, labels, _ = problem()
    x, _ = scaled(x.double())
    weight, bias = logistic(x, labels, 3, penalty, 0.02, 1e-6)

    def value(w, b):
        size = w.abs().sum() if penalty == "l1" else 0.5 * w.square().sum()
        return float(torch.nn.functional.cross_entropy(x @ w.T + b, labels) + 0.02 * size)

    best = value(weight, bias)
    for seed in range(20):
        step = 10.0 ** (-seed % 4 - 1)
        assert value(weight + step * normal(3, 5, seed=seed).double(), bias + step * normal(3, seed=seed)) >= best


@pytest.mark.parametrize("penalty", ["l1", "l2"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_all_of_it_against_scikit_learn(penalty, outputs):
    """Features standardised, regressions on balanced subsets, averaged, and put into the units of the features."""
    x, labels, groups = problem(classes=max(outputs, 2))
    trained = model(outputs, dropout=0.5)
    settings = {"strengths": [0.01], "subsets": 3, "tolerance": 1e-6, "seed": 4}
    found = retrain_last_layer(trained, (x, labels, groups), penalty=penalty, **settings)
    features = features_of(trained, x)
    standard, spread = scaled(features)
    fits = [by_scikit(standard[i], labels[i], penalty, 0.01) for i in _balanced(groups, 3, 4)]
    weight, bias = (np.mean(parts, axis=0) for parts in zip(*fits, strict=True))
    expected = standard.numpy() @ weight.T + bias
    with torch.no_grad():
        outputs_found = found.model.eval()(x).double().numpy()
    if outputs == 3:
        expected, outputs_found = (o - o.mean(1, keepdims=True) for o in (expected, outputs_found))
    np.testing.assert_allclose(outputs_found, expected, atol=2e-3)
    assert found.strength == 0.01
    assert not found.validated
    assert (spread > 0).any()


def test_subsets_are_balanced_and_differ():
    groups = torch.tensor([0] * 10 + [1] * 4 + [2] * 6)
    subsets = list(_balanced(groups, 5, 0))
    assert len({tuple(sorted(rows.tolist())) for rows in subsets}) > 1
    for rows in subsets:
        assert torch.bincount(groups[rows]).tolist() == [4, 4, 4]
        assert len(set(rows.tolist())) == 12


def shortcut(n, seed, *, follows):
    """A class told weakly by one input, and by another, strongly, in a share of the rows."""
    draws = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (n,), generator=draws)
    agrees = torch.rand(n, generator=draws) < follows
    core = (2.0 * labels - 1) + 0.8 * normal(n, seed=seed + 1)
    decoy = 3 * (2.0 * torch.where(agrees, labels, 1 - labels) - 1)
    return torch.stack([core, decoy], 1), labels, [labels, agrees.long()]


def test_it_leaves_a_shortcut_that_training_took():
    x, labels, _ = shortcut(800, 0, follows=0.98)
    trained = rt.models.mlp(2, [16], 2, seed=0)
    rt.fit(rt.Objective(trained, nn.functional.cross_entropy), (x, labels), epochs=20, lr=0.01)
    test = shortcut(2000, 10, follows=0.5)

    def worst(network):
        with torch.no_grad():
            return rt.evaluation.group_accuracy(network(test[0]), *test[1:]).worst.mean

    held, validation = shortcut(600, 20, follows=0.8), shortcut(400, 30, follows=0.8)
    found = retrain_last_layer(trained, held, validation, subsets=3)
    assert worst(found.model) > worst(trained) + 0.2
    assert set(found.validated) == {0.001, 0.003, 0.01, 0.03, 0.1}
    assert found.validated[found.strength][0] == max(pair[0] for pair in found.validated.values())
    average = retrain_last_layer(trained, held, validation, choose="average", subsets=3)
    assert average.validated[average.strength][1] == max(pair[1] for pair in average.validated.values())


@pytest.mark.parametrize(("choose", "expected"), [("worst", 0.01), ("average", 0.1)])
def test_the_rule_chooses_the_strength(monkeypatch, choose, expected):
    # the strongest is judged first: (worst group, average)
    judged = iter([(0.5, 0.9), (0.8, 0.7), (0.6, 0.8)])
    monkeypatch.setattr(last_layer, "_judged", lambda *_: next(judged))
    rows, strengths = problem(), [0.001, 0.1, 0.01]
    assert retrain_last_layer(model(), rows, rows, strengths=strengths, choose=choose, subsets=1).strength == expected


def test_only_the_copy_s_last_layer_changes():
    x, labels, groups = problem()
    trained = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    before, state = bits(trained), torch.get_rng_state()
    found = retrain_last_layer(trained, (x, labels, groups), strengths=[0.01], subsets=2)
    assert same(bits(trained), before)
    assert trained.training
    assert torch.equal(torch.get_rng_state(), state)
    changed = {name for name, value in bits(found.model).items() if not torch.equal(value, before[name])}
    assert changed == {"4.weight", "4.bias"}
    again = retrain_last_layer(trained, (x, labels, groups), strengths=[0.01], subsets=2)
    assert same(bits(found.model), bits(again.model))
    other = retrain_last_layer(trained, (x, labels, groups), strengths=[0.01], subsets=2, seed=1)
    assert not same(bits(found.model), bits(other.model))


class Reordered(nn.Module):
    """The layer that is defined last is not the last."""

    def __init__(self):
        super().__init__()
        self.head, self.body = nn.Linear(8, 3), nn.Linear(5, 8)

    def forward(self, x):
        return self.head(self.body(x).relu())


def test_the_last_layer_is_the_one_that_makes_the_outputs():
    x, labels, groups = problem()
    trained = Reordered()
    found = retrain_last_layer(trained, (x, labels, groups), strengths=[0.01], subsets=1)
    assert torch.equal(found.model.body.weight, trained.body.weight)
    assert not torch.equal(found.model.head.weight, trained.head.weight)


X, LABELS, GROUPS = problem()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": nn.Sequential(model(), nn.Softmax(1))}, ArgumentError, "end in a linear layer"),
        ({"model": nn.Flatten()}, ArgumentError, "no linear layer"),
        ({"model": nn.Linear(5, 3, bias=False)}, ArgumentError, "biases"),
        ({"held_out": (X, LABELS)}, ArgumentError, "with groups"),
        ({"held_out": (X, LABELS.float(), GROUPS)}, ShapeError, "class numbers"),
        ({"held_out": (X, LABELS + 1, GROUPS)}, ArgumentError, "0 to 2"),
        ({"held_out": (X, LABELS, GROUPS[:9])}, ShapeError, "240 rows"),
        ({"penalty": "l3"}, ArgumentError, "unknown penalty"),
        ({"choose": "best"}, ArgumentError, "unknown choose"),
        ({"strengths": [-1.0]}, ArgumentError, "strength"),
        ({"strengths": []}, ArgumentError, "validation"),
        ({"strengths": [0.1, 1.0]}, ArgumentError, "validation"),
        ({"subsets": 0}, ArgumentError, "subsets"),
        ({"tolerance": 0.0}, ArgumentError, "tolerance"),
    ],
)
def test_bad_arguments_are_refused(change, error, message):
    given = {"model": model(), "held_out": (X, LABELS, GROUPS), "strengths": [0.1], "subsets": 1} | change
    before = copy.deepcopy(given["model"].state_dict())
    with pytest.raises(error, match=message):
        retrain_last_layer(given.pop("model"), given.pop("held_out"), **given)
    assert same(before, (change.get("model") or model()).state_dict())


def _rows_of(count=200):
    draws = torch.Generator().manual_seed(3)
    inputs = torch.randn(count, 4, generator=draws)
    labels = (inputs[:, 0] > 0).long()
    return inputs, labels, (inputs[:, 1] > 0).long()


def test_a_shared_weight_stays_what_it_is_elsewhere():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)
            self.last.weight = self.first.weight

        def forward(self, x):
            return self.last(torch.tanh(self.first(x)))

    torch.manual_seed(0)
    model = Tied()
    rows = _rows_of()
    with pytest.raises(ArgumentError, match="all of one class"):
        rt.retrain_last_layer(model, (rows[0], torch.zeros(200, dtype=torch.long), rows[2]), strengths=(0.01,))
    rows = rows[0], torch.arange(200) % 4, rows[2]
    found = rt.retrain_last_layer(model, rows, rows, strengths=(0.01,))
    assert torch.equal(found.model.first.weight, model.first.weight)
    right = found.model(rows[0]).argmax(1) == rows[1]
    assert float(right.float().mean()) == pytest.approx(found.validated[0.01][1])


def test_a_layer_called_twice_counts_as_it_is_called_last():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(4, 2)

        def forward(self, x):
            self.last(torch.zeros_like(x))
            return self.last(x)

    rows = _rows_of()
    found = rt.retrain_last_layer(Twice(), rows, rows, strengths=(0.001,))
    assert found.validated[0.001][1] > 0.95


def test_a_parametrised_layer_is_refused():
    model = nn.Sequential(nn.Linear(4, 4), nn.utils.parametrizations.weight_norm(nn.Linear(4, 2)))
    with pytest.raises(ArgumentError, match="parametrised"):
        rt.retrain_last_layer(model, _rows_of(), strengths=(0.01,))
