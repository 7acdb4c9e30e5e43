"""Every check that scikit-learn has for estimators, none excused."""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys
import unittest
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.utils.estimator_checks import check_dict_unchanged, check_fit_idempotent, parametrize_with_checks

from rightly.core.errors import MissingExtraError
from rightly.integrations.sklearn import PriorClassifier, PriorRegressor

#: the checks fit some 300 times, so the trainings are short; a weight that is chosen takes ten of them
SHORT = {"hidden": (16,), "epochs": 12, "lr": 0.03, "batch_size": 32, "n_samples": 1}
SHORTER = {"hidden": (8,), "epochs": 4, "lr": 0.1, "batch_size": 64, "n_samples": 1}
GIVEN = [PriorClassifier(weight=0.1, **SHORT), PriorRegressor(weight=0.1, **SHORT)]
CHOSEN = [PriorClassifier(weight="auto", **SHORTER), PriorRegressor(weight="auto", **SHORTER)]
#: needs SCIPY_ARRAY_API=1 before SciPy is imported, hence a process of its own below
ELSEWHERE = "check_array_api_input"


def name_of(check: object) -> str:
    return getattr(getattr(check, "func", check), "__name__", str(check))


def passes(estimator: object, check: Callable[[object], None]) -> None:
    try:
        check(estimator)
    except unittest.SkipTest as reason:
        if name_of(check) != ELSEWHERE:
            pytest.fail(f"the check was skipped: {reason}")


@parametrize_with_checks(GIVEN)
def test_scikit_learn_check(estimator, check):
    passes(estimator, check)


@pytest.mark.slow  # all together
@parametrize_with_checks(CHOSEN)
def test_scikit_learn_check_with_a_chosen_weight(estimator, check):
    passes(estimator, check)


def test_the_array_api_check_in_a_process_of_its_own():
    code = (
        "from sklearn.utils.estimator_checks import check_array_api_input as check\n"
        "from rightly.integrations.sklearn import PriorClassifier, PriorRegressor\n"
        f"short = {SHORT!r}\n"
        "for estimator in (PriorClassifier(weight=0.1, **short), PriorRegressor(weight=0.1, **short)):\n"
        "    check(type(estimator).__name__, estimator, 'numpy', expect_only_array_outputs=False)\n"
        "    print('passed')\n"
    )
    env = {**os.environ, "SCIPY_ARRAY_API": "1"}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=240)
    assert answer.stdout.split() == ["passed", "passed"], answer.stderr


@pytest.mark.parametrize("test", [test_scikit_learn_check, test_scikit_learn_check_with_a_chosen_weight])
def test_no_check_is_missing(test):
    cases = [case for mark in test.pytestmark if mark.name == "parametrize" for case in mark.args[1]]
    assert len(cases) >= 100  # of scikit-learn 1.9: 54 for the classifier, 51 for the regressor
    assert not any(mark.name in ("xfail", "skip") for case in cases for mark in getattr(case, "marks", ()))


class RemembersPredictions(PriorClassifier):
    def predict(self, X):
        self.last = super().predict(X)
        return self.last


class DrawsAnotherSeed(PriorClassifier):
    def fit(self, X, y, *, annotation=None):
        return super().fit(X, y, annotation=annotation).set_seed(np.random.default_rng().integers(2**31))

    def set_seed(self, seed):
        self.network_.inner[1].weight.data.add_(seed % 97 / 97)
        return self


@pytest.mark.parametrize(
    ("planted", "check"),
    [(RemembersPredictions, check_dict_unchanged), (DrawsAnotherSeed, check_fit_idempotent)],
)
def test_a_planted_defect_is_found(planted, check):
    estimator = planted(weight=0.1, **SHORT)
    with pytest.raises(AssertionError):
        passes(estimator, functools.partial(check, planted.__name__))


def test_a_skipped_check_does_not_pass():
    def skipping(estimator):
        raise unittest.SkipTest("no reason")

    with pytest.raises(pytest.fail.Exception, match="no reason"):
        passes(GIVEN[0], skipping)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("rightly.integrations.sklearn")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtraError, match=r"rightly\[sklearn\]"):
        importlib.import_module("rightly.integrations.sklearn")
