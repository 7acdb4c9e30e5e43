"""Saved estimators: the same to the bit, nothing pickled, damage and strangers refused."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.exceptions import NotFittedError

from integrations.small import QUICK, mixed, numbers
from rightly import references
from rightly.attributions import ExpectedGradients
from rightly.core.errors import ArgumentError, CheckpointError
from rightly.integrations.sklearn import PriorClassifier, PriorRegressor
from rightly.integrations.sklearn.saving import FILE
from rightly.priors import GraphSmoothness, Sign


@pytest.mark.parametrize("table", [numbers, mixed])
@pytest.mark.parametrize("weight", ["auto", 0.1])
def test_a_classifier_comes_back_to_the_bit(tmp_path, table, weight):
    X, y = table(80)
    fitted = PriorClassifier(**{**QUICK, "epochs": 3, "weight": weight}).fit(X, y)
    file = fitted.save(tmp_path / "model")
    assert [path.name for path in file.parent.iterdir()] == [FILE]
    again = PriorClassifier.load(tmp_path / "model")
    assert (again.predict_proba(X) == fitted.predict_proba(X)).all()
    assert (again.predict(X) == fitted.predict(X)).all()
    assert (again.explain(X) == fitted.explain(X)).all()
    same_attributes(again, fitted)


def same_attributes(again: object, fitted: object) -> None:
    assert set(vars(again)) == set(vars(fitted))
    for name, value in vars(fitted).items():
        if isinstance(value, np.ndarray):
            assert (getattr(again, name) == value).all()
            assert getattr(again, name).dtype == value.dtype
        elif name not in ("network_", "encoder_"):
            assert getattr(again, name) == value


@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_a_regressor_comes_back_to_the_bit(tmp_path, scale):
    X, _ = numbers(80)
    fitted = PriorRegressor(**QUICK).fit(X, scale * X[:, 0])
    fitted.save(tmp_path)
    again = PriorRegressor.load(tmp_path)
    assert (again.predict(X) == fitted.predict(X)).all()
    assert (again.explain(X) == fitted.explain(X)).all()
    assert again.fit(X, scale * X[:, 0]).predict(X).tolist() == fitted.predict(X).tolist()


@pytest.mark.parametrize(
    "classes", [["no", "yes"], [False, True], [-3, 8], [1.0, 2.0], np.array(["a", "b"], dtype=object)], ids=str
)
def test_classes_keep_their_type(tmp_path, classes):
    X, y = numbers(60)
    fitted = PriorClassifier(**{**QUICK, "epochs": 1}).fit(X, np.asarray(classes)[y])
    fitted.save(tmp_path)
    again = PriorClassifier.load(tmp_path)
    assert again.classes_.dtype == fitted.classes_.dtype
    assert again.classes_.tolist() == fitted.classes_.tolist()


def test_components_are_described_by_name_and_tensors_come_along(tmp_path):
    X, y = numbers(60)
    attribution = ExpectedGradients(references.Sample(torch.zeros(3, 4)), n_samples=2)
    signs = torch.tensor([1.0, -1.0, 0.0, 0.0])
    fitted = PriorClassifier(**{**QUICK, "prior": Sign(signs), "attribution": attribution}).fit(X, y)
    fitted.save(tmp_path)
    again = PriorClassifier.load(tmp_path)
    assert torch.equal(again.prior.signs, signs)
    assert again.attribution.n_samples == 2
    assert torch.equal(again.attribution.reference.data, torch.zeros(3, 4))
    assert (again.fit(X, y).predict_proba(X) == fitted.predict_proba(X)).all()


def test_saving_again_replaces_and_changed_arguments_do_not_confuse(tmp_path):
    X, y = numbers(60)
    fitted = PriorClassifier(**{**QUICK, "epochs": 1}).fit(X, y)
    fitted.save(tmp_path)
    fitted.fit(X, 1 - y).set_params(hidden=(3, 3, 3)).save(tmp_path)
    again = PriorClassifier.load(tmp_path)
    assert (again.predict_proba(X) == fitted.predict_proba(X)).all()
    assert again.hidden == (3, 3, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network": lambda n_in, n_out: torch.nn.Linear(n_in, n_out)}, r"expected: network=None with hidden"),
        ({"prior": GraphSmoothness(torch.ones(4, 4))}, "the argument prior cannot be saved"),
        ({"random_state": np.random.RandomState(0)}, "the argument random_state cannot be saved"),
        (
            {"attribution": ExpectedGradients(output=lambda outputs, labels: outputs[:, 0])},
            "the argument attribution.output cannot be saved",
        ),
    ],
    ids=["network", "prior", "random_state", "output"],
)
def test_what_cannot_be_described_is_named_and_nothing_is_written(tmp_path, change, words):
    fitted = PriorClassifier(**{**QUICK, "epochs": 1, **change}).fit(*numbers(40))
    with pytest.raises(ArgumentError, match=words):
        fitted.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_network_that_was_fitted_is_what_counts(tmp_path):
    fitted = PriorClassifier(**{**QUICK, "epochs": 1, "network": torch.nn.Linear}).fit(*numbers(40))
    with pytest.raises(ArgumentError, match="network"):
        fitted.set_params(network=None).save(tmp_path)
    fitted.fit(*numbers(40)).set_params(network=torch.nn.Linear)
    with pytest.raises(ArgumentError, match="the argument network cannot be saved"):
        fitted.save(tmp_path)


def test_an_estimator_that_is_not_fitted_is_not_saved(tmp_path):
    with pytest.raises(NotFittedError):
        PriorClassifier().save(tmp_path)
    with pytest.raises(NotFittedError):
        PriorClassifier().explain(numbers()[0])


def test_what_is_not_a_saved_estimator_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no saved estimator"):
        PriorClassifier.load(tmp_path)
    X, y = numbers(40)
    PriorRegressor(**{**QUICK, "epochs": 1}).fit(X, y).save(tmp_path)
    with pytest.raises(CheckpointError, match="another kind"):
        PriorClassifier.load(tmp_path)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot be read"):
        PriorRegressor.load(tmp_path)


@pytest.mark.parametrize("part", ["arguments", "encoder", "fitted", "choice", "classes", "names"])
def test_a_file_with_a_part_missing_or_strange_is_refused(tmp_path, part):
    X, y = numbers(40)
    file = PriorClassifier(**{**QUICK, "epochs": 1}).fit(X, y).save(tmp_path)
    with safe_open(file, framework="pt") as handle:
        tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
        facts = json.loads(handle.metadata()["facts"])
    for broken in ({k: v for k, v in facts.items() if k != part}, {**facts, part: math.pi}):
        save_file(tensors, file, {"facts": json.dumps(broken)})
        with pytest.raises(CheckpointError):
            PriorClassifier.load(tmp_path)
