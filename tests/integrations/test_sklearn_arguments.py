"""Arguments that cannot be used are named when ``fit`` is called, as a ``ValueError``, and nothing is fitted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from integrations.small import QUICK, numbers
from rightly.core.errors import RightlyError
from rightly.integrations.sklearn import PriorClassifier, PriorRegressor

BAD = [
    ({"prior": "no such prior"}, "there is no prior"),
    ({"prior": "sign"}, r"rt.priors.Sign\(signs=\.\.\.\)"),
    ({"prior": 3}, "unusable prior"),
    ({"weight": "heavy"}, "unusable weight"),
    ({"weight": -1}, "weight cannot be used"),
    ({"weight": None}, "weight cannot be used"),
    ({"weight": np.nan}, "weight cannot be used"),
    ({"weight": "auto", "validation_fraction": 0}, "chosen by validation"),
    ({"attribution": "no such method"}, "there is no attribution"),
    ({"attribution": 3}, "unusable attribution"),
    ({"attribution": "grad_cam"}, "needs"),
    ({"n_samples": 0}, "n_samples counts"),
    ({"reference": "no such reference"}, "there is no reference"),
    ({"reference": torch.zeros(4)}, "not a reference"),
    ({"network": torch.nn.Linear(4, 2)}, "a new network"),
    ({"network": lambda n_in, n_out: "net"}, "must make a module"),
    ({"network": lambda n_in, n_out: torch.nn.Linear(n_in, n_out + 5)}, "outputs do not fit"),
    ({"hidden": 64}, "hidden lists"),
    ({"hidden": "64"}, "hidden lists"),
    ({"hidden": (64, 0)}, "a size in hidden"),
    ({"epochs": 0}, "epochs counts"),
    ({"epochs": 2.5}, "epochs counts"),
    ({"batch_size": 0}, "batch_size counts"),
    ({"lr": 0}, "lr cannot be used"),
    ({"lr": "fast"}, "lr cannot be used"),
    ({"weight_decay": -1.0}, "weight_decay cannot be used"),
    ({"validation_fraction": 1.0}, "validation_fraction is a share"),
    ({"validation_fraction": -0.1}, "validation_fraction cannot be used"),
    ({"patience": 0}, "patience counts"),
    ({"random_state": -1}, "random_state counts"),
    ({"random_state": "zero"}, "unusable random_state"),
    ({"device": "toaster"}, "unknown device"),
]


@pytest.mark.parametrize(("change", "words"), BAD, ids=[f"{next(iter(c))}-{i}" for i, (c, _) in enumerate(BAD)])
@pytest.mark.parametrize("cls", [PriorClassifier, PriorRegressor])
def test_an_argument_that_cannot_be_used(cls, change, words):
    X, y = numbers(40)
    estimator = cls(**{**QUICK, **change})
    with pytest.raises(ValueError, match=words) as caught:
        estimator.fit(X, y)
    assert isinstance(caught.value, RightlyError)
    assert not hasattr(estimator, "network_")


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (None, "the target y is None"),
        (np.zeros(40), "1 class"),
        (np.linspace(0, 1, 40), "Unknown label type"),
        (np.zeros(39), "inconsistent numbers of samples"),
        (np.full(40, np.nan), "NaN"),
        (np.zeros((40, 2)), "1d array"),
    ],
)
def test_labels_that_cannot_be_classes(y, words):
    with pytest.raises(ValueError, match=words):
        PriorClassifier(**QUICK).fit(numbers(40)[0], y)


def test_labels_that_cannot_be_values():
    with pytest.raises(ValueError, match="y must hold numbers"):
        PriorRegressor(**QUICK).fit(numbers(40)[0], np.array(["a", "b"] * 20))


def test_classes_to_explain_have_to_be_known():
    X, y = numbers(40)
    fitted = PriorClassifier(**{**QUICK, "epochs": 1}).fit(X, y)
    with pytest.raises(ValueError, match="unknown classes"):
        fitted.explain(X, y + 5)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        fitted.explain(X, y[:-1])
    with pytest.raises(ValueError, match="n_samples counts"):
        fitted.explain(X, n_samples=0)
