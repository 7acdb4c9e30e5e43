"""The two mortality tables: who counts as dead, what was known, and that nothing later leaks in."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from rightly.core.errors import ArgumentError, DataError
from rightly.data import TableEncoder, load_frame, nhanes_encoder, nhanes_mortality, nhefs_mortality, split_indices
from rightly.data.nhefs import DROPPED, LEVELS, known_in_1971

pd = pytest.importorskip("pandas", reason="tables need pandas")


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve from ranks, ties shared."""
    ranks = pd.Series(scores).rank().to_numpy()
    dead = labels == 1
    return float((ranks[dead].sum() - dead.sum() * (dead.sum() + 1) / 2) / (dead.sum() * (~dead).sum()))


def logistic_auc(table, train: np.ndarray, test: np.ndarray, encoder: TableEncoder, strength: float) -> float:
    linear = pytest.importorskip("sklearn.linear_model", reason="the check needs scikit-learn")
    encoder.fit(table.features.iloc[train], table.columns)
    model = linear.LogisticRegression(C=strength, max_iter=3000)
    model.fit(encoder.transform(table.features.iloc[train]), table.labels[train])
    return auc(model.decision_function(encoder.transform(table.features.iloc[test])), table.labels[test])


# --- NHEFS ------------------------------------------------------------------------------------------------------


def test_nhefs_has_its_people_and_deaths():
    table = nhefs_mortality()
    assert table.features.shape == (1629, 45)
    assert (table.label, table.classes, table.task) == ("died", ("no", "yes"), "classification")
    assert int(table.labels.sum()) == 318
    assert table.labels.tolist() == load_frame("nhefs")["death"].tolist()
    assert not any("identifier" in note and "drop it" in note for note in table.notes)


def test_each_of_the_67_columns_is_a_feature_or_has_a_reason():
    entire = load_frame("nhefs")
    table = nhefs_mortality()
    features = {column.name for column in table.columns}
    assert features | set(DROPPED) == set(entire.columns)
    assert not features & set(DROPPED)
    for name, reason in DROPPED.items():
        assert name == "death" or any(name in note and reason in note for note in table.notes)


def test_nothing_of_1982_or_of_death_is_a_feature():
    names = [column.name for column in nhefs_mortality().columns]
    assert not [name for name in names if "82" in name]
    assert not {"qsmk", "censored", "sbp", "dbp", "yrdth", "modth", "dadth", "seqn", "id"} & set(names)


def test_derived_columns_are_functions_of_what_was_kept():
    entire = load_frame("nhefs")
    assert ((entire["age"] > 50) == (entire["older"] == 1)).all()
    assert (entire.groupby("school")["education"].nunique() == 1).all()
    assert (entire.groupby("alcoholfreq")["alcoholpy"].nunique() == 1).all()
    assert (entire.groupby("birthplace")[["price71", "tax71"]].nunique() <= 1).all(axis=None)
    assert (entire["censored"].eq(1) == entire["wt82"].isna()).all()


def test_codes_become_named_levels_and_code_two_is_missing():
    entire = load_frame("nhefs")
    known = known_in_1971(entire)
    for name in ("hbp", "diabetes", "pica", "hbpmed", "boweltrouble"):
        assert (known[name].isna() == (entire[name] == 2)).all()
        assert (known[name].isna() == (entire["seqn"] > 20745)).all()
    assert known["sex"].eq("female").sum() == (entire["sex"] == 1).sum() > 0
    for name, levels in LEVELS.items():
        assert set(known[name].dropna().unique()) <= set(levels.values())


def test_no_single_column_gives_the_deaths_away():
    """Age is the strongest (AUC 0.825); a column that was measured at the end would beat it."""
    table = nhefs_mortality()
    encoder = TableEncoder().fit(table.features, table.columns)
    encoded = encoder.transform(table.features)
    strength = {name: abs(auc(encoded[:, i], table.labels) - 0.5) for i, name in enumerate(encoder.feature_names)}
    assert max(strength, key=strength.__getitem__) == "age"
    assert 0.31 < strength["age"] < 0.34


def test_a_logistic_regression_finds_the_deaths_about_as_well_as_published():
    table = nhefs_mortality()
    folds = np.random.default_rng(0).permutation(len(table.labels)) % 5
    found = [
        logistic_auc(table, np.flatnonzero(folds != fold), np.flatnonzero(folds == fold), TableEncoder(), 0.1)
        for fold in range(5)
    ]
    assert 0.80 < np.mean(found) < 0.85


# --- NHANES I ---------------------------------------------------------------------------------------------------


def people() -> pd.DataFrame:
    """Eight people around the ten-year horizon, ten times over."""
    time = [3.0, 10.0, 10.0, 12.0, 12.0, 9.99, 15.0, 1.0]
    died = [1, 1, 0, 1, 0, 0, 0, 1]
    frame = pd.DataFrame({"Age": np.arange(80.0), "Race": [1.0, 2.0] * 40, "Sex": [1.0, 2.0] * 40})
    return frame.assign(time_years=time * 10, died=died * 10)


def test_who_counts_as_dead_at_the_horizon():
    table = nhanes_mortality(people())
    assert table.label == "died within 10 years"
    assert table.labels.reshape(10, 7).tolist() == [[1, 1, 0, 0, 0, 0, 1]] * 10
    assert table.notes == ("10 people were lost from sight alive before 10 years and left out",)
    assert [column.name for column in table.columns] == ["Age", "Race", "Sex"]
    assert table.columns[1].levels == ("black", "white")
    assert nhanes_mortality(people(), horizon=13).labels.sum() == 40


def test_bad_arguments_are_told():
    with pytest.raises(DataError, match="died, Sex"):
        nhanes_mortality(people().drop(columns=["died", "Sex"]))
    with pytest.raises(ArgumentError, match="positive"):
        nhanes_mortality(people(), horizon=0)


@pytest.fixture(scope="module")
def nhanes():
    folder = os.environ.get("RIGHTLY_DATA")
    if not folder or not (Path(folder) / "nhanes1_shap_subset.csv.gz").is_file():
        pytest.skip("RIGHTLY_DATA names no folder with nhanes1_shap_subset.csv.gz")
    return nhanes_mortality(load_frame("nhanes1_shap_subset"))


def test_nhanes_has_its_people_and_deaths(nhanes):
    assert nhanes.features.shape == (9535, 18)
    assert int(nhanes.labels.sum()) == 1503


def test_nhanes_becomes_106_features(nhanes):
    train, _, test = split_indices(len(nhanes.labels), fractions=(0.7, 0.1, 0.2), seed=0, labels=nhanes.labels)
    encoder = nhanes_encoder().fit(nhanes.features.iloc[train], nhanes.columns)
    assert len(encoder.feature_names) == 106
    assert len(set(encoder.groups.tolist())) == 18
    assert np.isfinite(encoder.transform(nhanes.features.iloc[test])).all()


def test_nhanes_can_be_learnt(nhanes):
    """Over ten splits: mean 0.839, standard deviation 0.011 (0.862 for the 15-year horizon)."""
    train, _, test = split_indices(len(nhanes.labels), fractions=(0.7, 0.1, 0.2), seed=0, labels=nhanes.labels)
    assert 0.80 < logistic_auc(nhanes, train, test, nhanes_encoder(), 0.1) < 0.88
