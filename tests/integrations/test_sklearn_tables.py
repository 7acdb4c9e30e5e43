"""Tables of every kind: numbers, text, categories, truth values, missing entries; frames and arrays."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.model_selection import cross_val_score

from integrations.small import QUICK, mixed, numbers
from rightly.core.errors import DataError
from rightly.data.columns import MAX_LEVELS
from rightly.integrations.sklearn import PriorClassifier, PriorRegressor
from rightly.integrations.sklearn.learning import split
from rightly.integrations.sklearn.tables import CellError


@pytest.fixture(scope="module")
def fitted() -> PriorClassifier:
    return PriorClassifier(**QUICK).fit(*mixed())


def test_a_mixed_table_is_learnt_and_explained_by_original_column(fitted):
    X, y = mixed()
    assert fitted.score(X, y) > 0.8
    assert fitted.n_features_in_ == 6
    assert fitted.feature_names_in_.tolist() == list(X.columns)
    shares = dict(zip(X.columns, fitted.feature_importances_, strict=True))
    assert shares["constant"] == 0
    assert min(shares["age"], shares["town"], shares["smoker"]) > max(shares["grade"], shares["visits"])
    assert fitted.explain(X).shape == (160, 6)
    assert len(fitted.encoder_.feature_names) > 6


def test_the_attributions_of_a_category_are_summed_before_their_size(fitted):
    X, _ = mixed()
    sizes = np.abs(fitted.explain(X, n_samples=50)).mean(0)
    np.testing.assert_allclose(fitted.feature_importances_, sizes / sizes.sum(), rtol=1e-12)


def test_cross_validation_of_a_mixed_table():
    assert cross_val_score(PriorClassifier(**QUICK), *mixed(), cv=3, error_score="raise").mean() > 0.7


def test_levels_and_missing_entries_that_were_not_seen_in_training(fitted):
    X, _ = mixed()
    X["town"] = "Basel"
    X["visits"] = pd.array([None] * len(X), dtype="Int64")
    assert np.isfinite(fitted.predict_proba(X)).all()


def test_frames_and_arrays_of_the_same_numbers_agree():
    X, y = numbers()
    X[3, 1] = np.nan
    array = PriorClassifier(**QUICK).fit(X, y)
    frame = PriorClassifier(**QUICK).fit(pd.DataFrame(X, columns=list("abcd")), y)
    objects = PriorClassifier(**QUICK).fit(X.astype(object), y)
    assert (array.predict_proba(X) == objects.predict_proba(X)).all()
    assert (array.predict_proba(X) == frame.predict_proba(pd.DataFrame(X, columns=list("abcd")))).all()
    with pytest.warns(UserWarning, match="valid feature names"):
        frame.predict(X)
    assert not hasattr(array, "feature_names_in_")


@pytest.mark.parametrize("dtype", [object, str])
def test_arrays_with_text(dtype):
    X, y = mixed()
    array = X[["town", "grade"]].fillna("none").to_numpy().astype(dtype)
    fitted = PriorClassifier(**QUICK).fit(array, y)
    assert {column.kind for column in fitted.encoder_.columns} == {"category"}
    assert fitted.predict(array.tolist()).tolist() == fitted.predict(array).tolist()


def test_an_array_of_truth_values_is_one_of_numbers():
    X, y = numbers()
    fitted = PriorClassifier(**QUICK).fit(X > 0, y)
    assert {column.kind for column in fitted.encoder_.columns} == {"number"}


def test_very_many_levels_are_pooled_and_rare_ones_found_again():
    draws = np.random.default_rng(0)
    names = np.array([f"level {index:03}" for index in range(MAX_LEVELS + 30)])
    X = pd.DataFrame({"name": np.concatenate([names, draws.choice(names[:10], 200)])})
    y = X["name"].isin(names[:5]).to_numpy().astype(int)
    fitted = PriorClassifier(**QUICK).fit(X, y)
    assert len(fitted.encoder_.feature_names) == MAX_LEVELS
    assert fitted.encoder_.columns[0].levels[-1] == "other"
    rare = fitted.predict_proba(pd.DataFrame({"name": ["level 079", "never seen"]}))
    assert (rare[0] == rare[1]).all()


def test_the_frame_itself_stays_as_it_was():
    X, y = mixed()
    before = X.copy(deep=True)
    PriorClassifier(**{**QUICK, "epochs": 1}).fit(X, y).explain(X)
    pd.testing.assert_frame_equal(X, before)


def test_any_index_will_do():
    X, y = mixed()
    moved = X.set_axis(np.zeros(len(X), dtype=int), axis=0)
    a, b = (PriorClassifier(**{**QUICK, "epochs": 2}).fit(frame, y).predict_proba(X) for frame in (X, moved))
    assert (a == b).all()


def test_columns_without_names_and_a_column_that_is_all_missing():
    X, y = numbers()
    frame = pd.DataFrame(X)
    frame[2] = np.nan
    frame[3] = None
    fitted = PriorClassifier(**QUICK).fit(frame, y)
    assert not hasattr(fitted, "feature_names_in_")
    assert np.isfinite(fitted.predict_proba(frame)).all()
    assert fitted.feature_importances_[2:].tolist() == [0, 0]


def column(values: object, name: str = "bad") -> pd.DataFrame:
    return pd.DataFrame({"good": np.arange(20.0), name: values})


BAD = {
    "dates": (column(pd.date_range("2020-01-01", periods=20)), DataError, "dates or times"),
    "dates as text": (column([f"2020-01-{day:02}" for day in range(1, 21)]), DataError, "dates or times"),
    "infinite": (column([np.inf] * 20), DataError, "contains infinity"),
    "infinite array": (np.full((20, 2), np.inf), ValueError, "infinity"),
    "dicts": (column([{"a": 1}] * 20), CellError, "argument must be a string or a number"),
    "lists": (column([[1]] * 20), CellError, "got: a list"),
    "one name twice": (column(1.0, "x").set_axis(["x", "x"], axis=1), DataError, "share a name"),
    "one row": (column(1.0).iloc[:1], DataError, r"1 sample\(s\)"),
    "no column": (pd.DataFrame(index=range(20)), DataError, r"0 feature\(s\)"),
    "one dimension": (np.arange(20.0), ValueError, "Reshape your data"),
    "text in one dimension": (np.array(["a"] * 20), ValueError, "could not convert"),
    "complex": (np.ones((20, 2)) * 1j, ValueError, "Complex data not supported"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("cls", [PriorClassifier, PriorRegressor])
def test_tables_that_cannot_be_read(cls, case):
    X, error, words = BAD[case]
    with pytest.raises(error, match=words):
        cls(**QUICK).fit(X, np.arange(len(X)) % 2)


def test_tables_that_do_not_fit_the_training_table(fitted):
    X, _ = mixed()
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.predict(X[X.columns[::-1]])
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(X.drop(columns="age"))
    with pytest.raises(DataError, match="must hold numbers"):
        fitted.predict(X.assign(age="old"))
    with pytest.raises(DataError, match=r"0 sample\(s\)"):
        fitted.predict(X.iloc[:0])


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.2, 0.5, 0.9])
def test_every_class_keeps_a_row_to_train_on(fraction):
    labels = torch.tensor([0] * 50 + [1] * 9 + [2] * 2 + [3])
    kept, held = split(labels, fraction, True, seed=0)
    assert sorted([*kept, *held]) == list(range(62))
    assert set(labels[kept].tolist()) == {0, 1, 2, 3}
    assert len(held) == pytest.approx(62 * fraction, abs=3)
    assert (len(held) > 0) == (fraction > 0)


def test_the_smallest_tables_hold_out_one_row_if_they_can():
    assert len(split(torch.tensor([0, 0, 1]), 0.2, True, seed=0)[1]) == 1
    assert len(split(torch.tensor([0, 1]), 0.2, True, seed=0)[1]) == 0
    assert len(split(torch.tensor([0.1, 0.2]), 0.2, False, seed=0)[1]) == 1
