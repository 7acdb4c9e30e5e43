"""Annotations of original columns: what they do, how they travel, and which do not fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.model_selection import GridSearchCV, cross_validate

from integrations.small import QUICK, mixed, numbers, shortcut
from rightly.core.annotation import Annotation
from rightly.core.errors import AnnotationError
from rightly.integrations.sklearn import PriorClassifier, PriorRegressor
from rightly.integrations.sklearn.terms import OfColumns, read_annotation
from rightly.priors import L1, Energy, Irrelevant, MatchTargets, Sign, Sparsity

RIGHT = {**QUICK, "prior": "irrelevant", "weight": 10.0}


def marked(columns: int, *positions: int) -> np.ndarray:
    marks = np.zeros((1, columns), dtype=bool)
    marks[:, list(positions)] = True
    return marks


def test_an_annotated_column_loses_its_importance_and_another_does_not():
    X, y = shortcut()
    plain = PriorClassifier(**{**QUICK, "prior": None}).fit(X, y).feature_importances_
    told = PriorClassifier(**RIGHT).fit(X, y, annotation=marked(3, 0)).feature_importances_
    control = PriorClassifier(**RIGHT).fit(X, y, annotation=marked(3, 2)).feature_importances_
    assert plain[0] > 0.5
    assert told[0] < 0.1
    assert told[1] > 0.5
    assert control[0] > 0.8 * plain[0]


def test_a_regression_takes_annotations_too():
    X, _ = numbers()
    y = 3 * X[:, 0] + X[:, 1]
    right = {**RIGHT, "weight": 3.0, "validation_fraction": 0}
    plain, told, control = (
        np.abs(PriorRegressor(**{**right, **change}).fit(X, y, annotation=marks).explain(X)).mean(0)
        for change, marks in (({"prior": None}, None), ({}, marked(4, 0)), ({}, marked(4, 3)))
    )
    assert told[0] < 0.3 * plain[0]
    assert control[0] > 0.8 * plain[0]


def test_a_category_is_marked_with_all_its_levels():
    X, y = mixed()
    town = list(X.columns).index("town")
    plain = PriorClassifier(**{**QUICK, "prior": None}).fit(X, y)
    for attribution in ("expected_gradients", "gradient"):
        told = PriorClassifier(**RIGHT, attribution=attribution).fit(X, y, annotation=marked(6, town))
        assert told.feature_importances_[town] < 0.3 * plain.feature_importances_[town]


def test_rows_without_annotation_are_left_alone():
    X, y = shortcut()
    unknown = np.full(X.shape, np.nan)
    nothing = PriorClassifier(**RIGHT).fit(X, y, annotation=unknown)
    plain = PriorClassifier(**{**QUICK, "prior": None}).fit(X, y)
    np.testing.assert_allclose(nothing.predict_proba(X), plain.predict_proba(X), atol=1e-6)
    half = unknown.copy()
    half[::2] = [1, 0, 0]
    some = PriorClassifier(**RIGHT).fit(X, y, annotation=half)
    assert some.feature_importances_[0] < 0.5 * plain.feature_importances_[0]


def test_an_annotation_object_says_the_same_as_an_array():
    X, y = shortcut()
    rows = np.repeat(marked(3, 0), len(X), 0)
    fits = [
        PriorClassifier(**RIGHT).fit(X, y, annotation=annotation)
        for annotation in (rows, marked(3, 0), pd.DataFrame(rows), Annotation(irrelevant=torch.tensor(rows)))
    ]
    first = fits[0].predict_proba(X)
    assert all((fit.predict_proba(X) == first).all() for fit in fits)


def test_marks_are_inverted_for_a_prior_of_what_is_relevant():
    X, y = shortcut()
    energy = {**QUICK, "prior": Energy(positive=False), "weight": 3.0}
    told = PriorClassifier(**energy).fit(X, y, annotation=marked(3, 0))
    same = PriorClassifier(**energy).fit(X, y, annotation=Annotation(relevant=torch.tensor(~marked(3, 0))))
    assert (told.predict_proba(X) == same.predict_proba(X)).all()
    assert told.feature_importances_[0] < 0.3


def test_targets_are_of_original_columns():
    X, y = mixed()
    targets = np.zeros((1, 6))
    told = PriorClassifier(**{**QUICK, "prior": MatchTargets(), "weight": 10.0}).fit(X, y, annotation=targets)
    assert np.abs(told.explain(X)).mean() < 0.05


def test_priors_see_original_columns():
    signs = torch.tensor([0.0, 0, 0, 0, 0, 1])  # six columns, encoded by more
    X, y = mixed()
    assert PriorClassifier(**{**QUICK, "prior": Sign(signs)}).fit(X, y).weight_ == QUICK["weight"]
    prior = OfColumns(L1(), torch.tensor([0, 0, 1]), 2)
    assert prior(torch.tensor([[1.0, -1.0, -2.0]])).tolist() == [2.0]
    batch = OfColumns(Sparsity(), torch.tensor([0, 0, 1]), 2)
    attributions = torch.tensor([[1.0, 2.0, -2.0]])
    assert batch(attributions) == Sparsity()(torch.tensor([[3.0, -2.0]]))


@pytest.mark.parametrize("annotation", ["rows", "one row"])
def test_routing_through_a_grid_search_takes_the_rows_along(annotation):
    X, y = shortcut(120)
    marks = np.repeat(marked(3, 0), len(X), 0) if annotation == "rows" else marked(3, 0)
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = PriorClassifier(**RIGHT).set_fit_request(annotation=True)
        search = GridSearchCV(estimator, {"weight": [0.0, 10.0]}, cv=2, refit=lambda results: 1, error_score="raise")
        search.fit(X, y, annotation=marks)
        folds = cross_validate(estimator, X, y, params={"annotation": marks}, cv=2, return_estimator=True)
    assert search.best_params_ == {"weight": 10.0}
    assert search.best_estimator_.feature_importances_[0] < 0.15
    assert all(fold.feature_importances_[0] < 0.15 for fold in folds["estimator"])


def test_the_right_rows_are_taken():
    """Rows are annotated only where the class is 1: a mix-up of rows would be seen in the annotation of a part."""
    y = np.array([0, 1, 1, 0, 1])
    array = np.where(y[:, None] == 1, [[1.0, 0.0]], np.nan)
    read = read_annotation(array, Irrelevant(), 5, torch.tensor([0, 0, 1]), 2)
    taken = read.take(torch.tensor([4, 3])).irrelevant
    assert taken[0].tolist() == [1, 1, 0]
    assert taken[1].isnan().all()


BAD = {
    "absent": ("irrelevant", None, "needs an annotation"),
    "not read": ("sparsity", marked(3, 0), "would not read the annotation"),
    "no prior": (None, marked(3, 0), "would not read the annotation"),
    "columns": ("irrelevant", marked(2, 0), "does not fit the table"),
    "rows": ("irrelevant", np.zeros((7, 3)), "does not fit the table"),
    "one dimension": ("irrelevant", np.zeros(3), "two dimensions"),
    "numbers": ("irrelevant", np.full((1, 3), 0.5), "yes or no"),
    "text": ("irrelevant", np.full((1, 3), "x"), "no array of numbers"),
    "infinite": ("match_targets", np.full((1, 3), np.inf), "infinite"),
    "another field": ("irrelevant", Annotation(relevant=torch.ones(1, 3)), "needs annotation.irrelevant"),
}


@pytest.mark.parametrize("case", BAD)
def test_annotations_that_do_not_fit(case):
    prior, annotation, words = BAD[case]
    X, y = shortcut(40)
    with pytest.raises(AnnotationError, match=words):
        PriorClassifier(**{**QUICK, "prior": prior}).fit(X, y, annotation=annotation)
