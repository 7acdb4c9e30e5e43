"""What the sparsity studies share: splits without leaks, the papers' penalties, a choice that validation makes."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits

import rightly as rt
from contracts.problems import draws
from rightly.workflows import sparsity_study
from rightly.workflows.sparsity_study import ARMS, Study, auc, network

QUICK = {"train": 60, "validation": 60, "epochs": 4, "batch_size": 60, "references": 5}


@pytest.fixture(scope="module")
def table():
    return rt.data.nhefs_mortality()


@pytest.mark.parametrize("seed", range(3))
def test_auc_is_that_of_scikit_learn(seed):
    scores = torch.randn(200, 1, generator=draws(seed)).mul(4).round()  # many ties
    labels = (torch.rand(200, 1, generator=draws(seed + 9)) < 0.2).float()
    assert auc(scores, labels) == pytest.approx(roc_auc_score(labels[:, 0], scores[:, 0]), abs=1e-12)


def test_a_split_is_standardised_by_its_training_rows_alone(table):
    study = Study(table, chance=30, **QUICK)
    parts = study.split(3)
    assert [len(parts[name][0]) for name in parts] == [60, 60, len(table.labels) - 120]
    assert [len(parts[name][1]) for name in parts] == [60, 60, len(table.labels) - 120]
    train = parts["train"][0]
    varied = train.std(0, correction=0) > 0
    assert torch.allclose(train.mean(0), torch.zeros(train.shape[1]), atol=1e-5)
    assert torch.allclose(train.std(0, correction=0)[varied], torch.ones(int(varied.sum())), atol=1e-4)
    assert not varied.all()  # rare features that no training row has
    assert parts["test"][0].abs().max() > 5  # not clipped
    positives = sum(float(labels.sum()) for _, labels in parts.values())
    assert positives == table.labels.sum()  # every row in one part


def test_splits_differ_and_have_the_same_features(table):
    study = Study(table, chance=5, **QUICK)
    first, second = study.split(0), study.split(1)
    assert first["train"][0].shape == second["train"][0].shape
    assert not torch.equal(first["train"][0], second["train"][0])
    again = Study(table, chance=5, **QUICK).split(0)
    assert all(torch.equal(first[name][0], again[name][0]) for name in first)
    assert len(Study(table, test=50, **QUICK).split(0)["test"][0]) == 50


def test_features_of_chance_say_nothing_and_are_rare(table):
    with_chance, without = (Study(table, chance=chance, **QUICK).split(0)["test"] for chance in (40, 0))
    own, others = (Study(table, chance=40, **QUICK).split(seed)["test"][0][:, -40:] for seed in (0, 1))
    present, elsewhere = ((part > part.min(0).values).float().mean(0) for part in (own, others))
    assert np.corrcoef(present, elsewhere)[0, 1] > 0.95  # the same shares in every split
    assert present.max() < 0.3
    assert present.median() < 0.08
    correlation = [abs(np.corrcoef(column, with_chance[1][:, 0])[0, 1]) for column in own.T if column.std() > 0]
    assert max(correlation) < 4.5 / np.sqrt(len(own))
    assert torch.allclose(with_chance[0][:, :-40], without[0], atol=1e-5)


#: the paper's penalties of attributions (N, F), or of weights
PENALTIES = {
    "l1_all": lambda phi, model: torch.cat([p.flatten() for p in model.parameters() if p.ndim > 1]).abs().mean(),
    "l1_first": lambda phi, model: next(iter(model.parameters())).abs().mean(),
    "l1_eg": lambda phi, model: phi.abs().mean(),
    "l1_grad": lambda phi, model: phi.abs().mean(),
    "l1_ross": lambda phi, model: phi.abs().mean(),
    "gini_eg": lambda phi, model: 1 - rt.functional.gini(phi.abs().mean(0)),
    "gini_grad": lambda phi, model: 1 - rt.functional.gini(phi.abs().mean(0)),
    "gini_ross": lambda phi, model: 1 - rt.functional.gini(phi.abs().mean(0)),
    "mixed_eg": lambda phi, model: phi.abs().mean() + 1 - rt.functional.gini(phi.abs().mean(0)),
}
OUTPUTS = {"grad": "logit", "ross": "log_prob_sum"}


@pytest.mark.parametrize("arm", PENALTIES)
def test_an_arm_is_the_papers_penalty_in_the_papers_lambda(arm):
    x, y = torch.randn(20, 7, generator=draws(0)), torch.ones(20, 1)
    model = network(7, 0)
    objective = rt.Objective(model, binary_cross_entropy_with_logits, ARMS[arm].terms(2.5, x, 20)).eval()
    found = float(objective(x, y, part="prior").total.detach())
    kind = OUTPUTS.get(arm.split("_")[1])
    method = rt.ExpectedGradients(rt.references.Sample(x), n_samples=20) if kind is None else rt.Gradient(output=kind)
    phi = method(model, x, y[:, 0]).attributions
    expected = 2.5 * float(PENALTIES[arm](phi, model).detach())
    # references and positions are drawn anew; a mean in place of a sum would be off by a factor of seven
    assert found == pytest.approx(expected, rel=0.2 if arm.endswith("_eg") else 1e-5)


def test_every_arm_acts(table):
    study = Study(table, **QUICK)
    found = {arm: study.block(arm, [0.0 if arm == "plain" else 0.5], [1, 2]) for arm in ARMS}
    assert all([row["seed"] for row in rows] == [1, 2] for rows in found.values())
    ginis = [round(rows[0]["gini"], 6) for rows in found.values()]
    assert len(set(ginis)) == len(ARMS)


def test_validation_chooses_and_what_is_told_is_of_that_network(table):
    study = Study(table, **QUICK)
    strengths = [0.01, 1.0, 100.0]
    for row in study.block("gini_eg", strengths, [0, 1, 2]):
        best = int(np.argmax(row["validations"]))
        assert (row["weight"], row["validation"]) == (strengths[best], row["validations"][best])
        assert row["ginis"][best] == pytest.approx(row["gini"])  # five references in both
        # the same training by itself
        parts = study.split(row["seed"])
        model = network(parts["train"][0].shape[1], row["seed"])
        terms = ARMS["gini_eg"].terms(row["weight"], parts["train"][0], 1)
        objective = rt.Objective(model, binary_cross_entropy_with_logits, terms, seed=row["seed"])
        run = rt.fit(
            objective,
            parts["train"],
            parts["validation"],
            epochs=4,
            batch_size=60,
            monitor=lambda outputs, labels: 1 - auc(outputs, labels),
            seed=row["seed"],
        )
        assert run.best_epoch == row["epoch"]
        with torch.no_grad():
            assert auc(model(parts["test"][0]), parts["test"][1]) == pytest.approx(row["test"], abs=1e-3)


def test_of_equals_the_smallest_strength(table, monkeypatch):
    monkeypatch.setattr(sparsity_study, "_not_auc", lambda outputs, labels: 0.25)
    (row,) = Study(table, **QUICK).block("l2_all", [1.0, 0.1, 10.0], [0])
    assert row["weight"] == 0.1
    assert row["validations"] == [0.75] * 3


def test_the_corner_weighs_sparsity_too(table):
    accurate, sparse = (sparsity_study._Trained(0, 1.0, None, validation, 0, {}) for validation in (0.9, 0.8))
    for corner in (False, True):
        study = Study(table, corner=corner, **QUICK)
        assert (study._loss(sparse, 0.7) < study._loss(accurate, 0.3)) == corner
        assert study._loss(accurate, 0.7) < study._loss(sparse, 0.7) < study._loss(sparse, None)
    (row,) = study.block("gini_eg", [0.001, 3.0], [0])
    distances = [np.hypot(1 - v, 1 - g) for v, g in zip(row["validations"], row["ginis"], strict=True)]
    assert row["weight"] == [0.001, 3.0][int(np.argmin(distances))]


def test_the_best_of_many_networks_on_one_split(table):
    study = Study(table, **QUICK)
    every = study._trained(ARMS["plain"], 0.0, range(4), 7)
    assert len({one.validation for one in every}) > 1
    inputs, labels = study.split(7)["validation"]
    assert [auc(one.model(inputs), labels) for one in every] == pytest.approx([one.validation for one in every])
    inputs, labels = study.split(7)["test"]
    best = sorted(every, key=lambda one: -one.validation)[:2]
    expected = np.mean([auc(one.model(inputs).detach(), labels) for one in best])
    assert study.best_of("plain", 0.0, 7, 4, 2)["test"] == pytest.approx(expected)
