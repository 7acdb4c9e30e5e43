"""What the estimators promise beyond scikit-learn's own checks."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from integrations.small import QUICK, mixed, numbers
from rightly import references
from rightly.attributions import Gradient, InputXGradient
from rightly.integrations.sklearn import PriorClassifier, PriorRegressor
from rightly.priors import L1, Sparsity


@pytest.fixture(scope="module")
def fitted() -> PriorClassifier:
    return PriorClassifier(**QUICK).fit(*numbers())


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(fitted):
    X, y = numbers()
    again = PriorClassifier(**QUICK).fit(X, y)
    assert (again.predict_proba(X) == fitted.predict_proba(X)).all()
    assert (again.explain(X) == fitted.explain(X)).all()
    assert (again.feature_importances_ == fitted.feature_importances_).all()
    other = PriorClassifier(**{**QUICK, "random_state": 1}).fit(X, y)
    assert not (other.predict_proba(X) == fitted.predict_proba(X)).all()


def test_a_random_state_object_is_drawn_from_and_none_takes_a_new_seed():
    X, y = numbers(40)
    state = np.random.RandomState(3)
    seeds = [PriorClassifier(**{**QUICK, "epochs": 1, "random_state": state}).fit(X, y).seed_ for _ in range(2)]
    first = PriorClassifier(**{**QUICK, "epochs": 1, "random_state": np.random.RandomState(3)}).fit(X, y).seed_
    assert seeds[0] == first != seeds[1]
    fresh = {PriorClassifier(**{**QUICK, "epochs": 1, "random_state": None}).fit(X, y).seed_ for _ in range(3)}
    assert len(fresh) == 3


def test_global_random_states_and_threads_stay_as_they_were(monkeypatch):
    X, y = numbers(40)
    before = np.random.get_state()[1].copy(), torch.get_rng_state(), torch.get_num_threads()  # noqa: NPY002
    estimator = PriorClassifier(**{**QUICK, "random_state": None, "network": stochastic}).fit(X, y)
    estimator.explain(X)
    assert (np.random.get_state()[1] == before[0]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])
    assert torch.get_num_threads() == before[2]
    with pytest.raises(ZeroDivisionError):
        PriorClassifier(**{**QUICK, "network": lambda n_in, n_out: 1 / 0}).fit(X, y)
    assert torch.get_num_threads() == before[2]


def stochastic(n_in: int, n_out: int) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(n_in, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, n_out))


def test_fit_runs_on_one_thread_and_puts_the_number_back():
    seen = []

    def spy(n_in, n_out):
        class Spy(torch.nn.Linear):
            def forward(self, inputs):
                seen.append(torch.get_num_threads())
                return super().forward(inputs)

        return Spy(n_in, n_out)

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        PriorClassifier(**{**QUICK, "epochs": 1, "network": spy}).fit(*numbers(40))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(seen[1:]) == {1}  # the first call only looks at the shape of the outputs


def test_importances_are_shares_and_find_what_decides(fitted):
    shares = fitted.feature_importances_
    assert shares.shape == (4,)
    assert shares.sum() == pytest.approx(1)
    assert (shares >= 0).all()
    assert shares[:2].min() > 2 * shares[2:].max()


def test_explanations_add_up_to_the_score(fitted):
    X, _ = numbers()
    phi = fitted.explain(X, np.ones(len(X), dtype=int), n_samples=400)
    score = fitted.decision_function(X) / 2  # half of the log-odds is the second class' centred logit
    background = learned_mean(fitted)
    assert phi.shape == X.shape
    assert np.abs(phi.sum(1) - (score - background)).mean() < 0.1 * np.abs(score - background).mean()


def learned_mean(fitted: PriorClassifier) -> float:
    with torch.no_grad():
        return float(fitted.network_(torch.tensor(fitted.background_, dtype=torch.float64))[:, 1].mean())


def test_explanations_are_of_the_predicted_class_or_the_one_asked_for(fitted):
    X, _ = numbers()
    predicted = fitted.predict(X)
    assert (fitted.explain(X) == fitted.explain(X, predicted)).all()
    np.testing.assert_allclose(fitted.explain(X), -fitted.explain(X, 1 - predicted), atol=1e-12)


def test_the_explanations_of_a_regression_are_in_units_of_y():
    X, _ = numbers()
    y = 3 * X[:, 0]
    one = PriorRegressor(**QUICK).fit(X, y)
    other = PriorRegressor(**QUICK).fit(X, 1000 * y + 1e5)
    assert one.score(X, y) > 0.8
    np.testing.assert_allclose(other.predict(X), 1000 * one.predict(X) + 1e5, rtol=1e-3)
    np.testing.assert_allclose(other.explain(X), 1000 * one.explain(X), rtol=1e-2, atol=5)
    phi, values = one.explain(X, n_samples=400), one.predict(X)
    assert np.corrcoef(phi.sum(1), values)[0, 1] > 0.99
    assert np.std(phi.sum(1)) == pytest.approx(np.std(values), rel=0.1)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_extreme_labels_are_standardised_without_overflow(scale):
    X, _ = numbers(60)
    regression = PriorRegressor(**QUICK).fit(X, X[:, 0] * scale)
    assert np.isfinite(regression.predict(X)).all()
    assert regression.y_scale_ / scale == pytest.approx(X[:, 0].std())


def test_a_constant_label_is_learnt():
    X, _ = numbers(40)
    assert PriorRegressor(**QUICK).fit(X, np.full(40, 7.0)).predict(X) == pytest.approx(7.0, abs=0.5)


def test_classes_may_be_text_and_more_than_two():
    X, y = load_iris(return_X_y=True, as_frame=True)
    names = np.array(["setosa", "versicolor", "virginica"])
    fitted = PriorClassifier(**QUICK).fit(X, names[y])
    assert fitted.classes_.tolist() == names.tolist()
    assert fitted.score(X, names[y]) > 0.9
    scores, chances = fitted.decision_function(X), fitted.predict_proba(X)
    assert scores.shape == chances.shape == (150, 3)
    np.testing.assert_allclose(scores.mean(1), 0, atol=1e-12)
    assert (names[scores.argmax(1)] == fitted.predict(X)).all()
    assert fitted.feature_names_in_.tolist() == list(X.columns)
    assert fitted.explain(X, names[y]).shape == (150, 4)


def test_with_two_classes_the_decision_is_the_log_odds(fitted):
    X, _ = numbers()
    chances = fitted.predict_proba(X)
    np.testing.assert_allclose(fitted.decision_function(X), np.log(chances[:, 1] / chances[:, 0]), rtol=1e-9)


def test_the_prior_acts_and_a_weight_of_zero_is_plain_training():
    X, y = numbers(160, 8)
    plain = PriorClassifier(**{**QUICK, "prior": None}).fit(X, y)
    nothing = PriorClassifier(**{**QUICK, "weight": 0}).fit(X, y)
    sparse = PriorClassifier(**{**QUICK, "weight": 0.5}).fit(X, y)
    assert (plain.predict_proba(X) == nothing.predict_proba(X)).all()
    assert plain.weight_ == nothing.weight_ == 0
    assert sparse.feature_importances_[2:].sum() < 0.6 * plain.feature_importances_[2:].sum()


@pytest.mark.parametrize("weight", ["auto", "balance"])
def test_a_chosen_weight_is_told_with_its_reason(weight):
    fitted = PriorClassifier(**{**QUICK, "weight": weight, "epochs": 4}).fit(*numbers(80))
    assert fitted.weight_ >= 0
    assert fitted.weight_choice_.weight == fitted.weight_
    assert fitted.weight_choice_.reason
    assert fitted.weight == weight
    tried = [candidate.weight for candidate in fitted.weight_choice_.candidates]
    assert (fitted.weight_ in tried and len(tried) >= 7) if weight == "auto" else tried == []


def test_a_given_weight_is_kept_and_the_history_tells_every_epoch(fitted):
    assert fitted.weight_ == QUICK["weight"]
    assert fitted.weight_choice_ is None
    assert len(fitted.history_) == fitted.n_iter_ <= QUICK["epochs"]
    assert set(fitted.history_[0]) >= {"epoch", "task", "terms", "validation"}
    assert "sparsity" in fitted.history_[0]["terms"]


def test_patience_stops_and_no_validation_trains_to_the_end():
    X, y = numbers()
    y = np.random.default_rng(0).permutation(y)  # nothing to learn: validation gets worse at once
    early = PriorClassifier(**{**QUICK, "epochs": 60, "patience": 3, "prior": None}).fit(X, y)
    assert early.n_iter_ < 60
    late = PriorClassifier(**{**QUICK, "epochs": 12, "patience": 1, "validation_fraction": 0}).fit(X, y)
    assert late.n_iter_ == 12
    assert late.history_[0]["validation"] is None


@pytest.mark.parametrize(
    "change",
    [
        {"prior": "l1"},
        {"prior": L1()},
        {"prior": "Sparsity", "reference": "sample"},
        {"reference": "in_batch"},
        {"reference": references.Constant(0.0), "attribution": "integrated_gradients"},
        {"attribution": "gradient"},
        {"attribution": Gradient(output="log_prob_sum"), "prior": "l2"},
        {"attribution": InputXGradient(), "prior": Sparsity()},
        {"batch_size": None, "hidden": [8, 4]},
        {"hidden": ()},
        {"weight": np.float64(0.1), "epochs": np.int64(3), "hidden": np.array([8])},
        {"network": stochastic},
        {"verbose": True},
        {"device": "cpu"},
    ],
    ids=lambda change: "-".join(change),
)
@pytest.mark.parametrize("cls", [PriorClassifier, PriorRegressor])
def test_arguments_that_can_be_used(cls, change):
    X, y = numbers(60)
    fitted = cls(**{**QUICK, "epochs": 3, **change}).fit(X, y)
    assert np.isfinite(fitted.predict(X)).all()
    assert np.isfinite(fitted.explain(X)).all()
    assert all(fitted.get_params()[name] is value for name, value in change.items())


def test_a_module_that_is_handed_out_again_is_not_trained_in_place():
    module = torch.nn.Linear(4, 2)
    before = module.weight.detach().clone()
    X, y = numbers(60)
    estimator = PriorClassifier(**{**QUICK, "network": lambda n_in, n_out: module})
    first = estimator.fit(X, y).predict_proba(X)
    assert torch.equal(module.weight, before)
    assert (estimator.fit(X, y).predict_proba(X) == first).all()


def test_a_regression_network_may_give_one_dimension():
    class Flat(torch.nn.Linear):
        def forward(self, inputs):
            return super().forward(inputs)[:, 0]

    X, y = numbers(60)
    fitted = PriorRegressor(**{**QUICK, "network": Flat}).fit(X, y)
    assert fitted.predict(X).shape == (60,)


def test_rows_are_predicted_alike_alone_and_together(fitted):
    X, _ = numbers()
    together = fitted.predict_proba(X)
    alone = np.concatenate([fitted.predict_proba(X[i : i + 1]) for i in range(len(X))])
    np.testing.assert_allclose(alone, together, rtol=1e-12)


def test_clone_and_pickle(fitted):
    X, _ = numbers()
    fresh = clone(fitted)
    assert not hasattr(fresh, "network_")
    assert fresh.get_params() == fitted.get_params()
    again = pickle.loads(pickle.dumps(fitted))
    assert (again.predict_proba(X) == fitted.predict_proba(X)).all()
    assert (again.explain(X) == fitted.explain(X)).all()


def test_grid_search_inside_a_pipeline_with_frames():
    X, y = mixed(120)
    numeric = X[["age", "visits"]].astype(float).fillna(50.0)
    pipeline = make_pipeline(StandardScaler().set_output(transform="pandas"), PriorClassifier(**QUICK))
    search = GridSearchCV(pipeline, {"priorclassifier__weight": np.array([0.0, 0.1])}, cv=2).fit(numeric, y)
    best = search.best_estimator_[-1]
    assert best.feature_names_in_.tolist() == ["age", "visits"]
    assert search.best_params_["priorclassifier__weight"] in (0.0, 0.1)
    assert search.predict(numeric).shape == (120,)


def test_cross_validation_learns():
    X, y = numbers(200)
    assert cross_val_score(PriorClassifier(**QUICK), X, y, cv=3).mean() > 0.85
    assert cross_val_score(PriorRegressor(**QUICK), X, X[:, 0] + X[:, 1], cv=3).mean() > 0.8
