"""The table encoder: what it learns, only from the rows it is given, and how it fails."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rightly.core.errors import ArgumentError, CheckpointError, DataError
from rightly.data import Column, TableEncoder, table_from_frame

pd = pytest.importorskip("pandas", reason="tables need pandas")

NUMBER, CATEGORY = Column("x", "number", 0), Column("c", "category", 0, ("a", "b"))


def mixed(rows: int = 80, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": generator.normal(50, 10, rows),
            "dose": generator.choice([1.0, 2.0, np.nan], rows),
            "sex": generator.choice(["f", "m"], rows),
            "place": generator.choice(["north", "south", None], rows),
            "smoker": generator.choice([True, False], rows),
        }
    )
    return frame.assign(died=np.arange(rows) % 2)


def test_numbers_are_standardised_and_missing_ones_take_the_mean():
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0, np.nan]})
    encoder = TableEncoder().fit(frame, [NUMBER])
    encoded = encoder.transform(frame)
    assert encoder.feature_names == ("x", "x (missing)")
    assert encoded.dtype == np.float32
    np.testing.assert_allclose(encoded[:, 0], np.array([-1, 0, 1, 0]) / np.sqrt(2 / 3), rtol=1e-6)
    assert encoded[:, 1].tolist() == [0, 0, 0, 1]


def test_categories_are_one_hot_with_a_feature_for_missing():
    frame = pd.DataFrame({"c": ["b", "a", None]})
    encoder = TableEncoder().fit(frame, [CATEGORY])
    assert encoder.feature_names == ("c=a", "c=b", "c (missing)")
    assert encoder.transform(frame).tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]


def test_without_missing_training_entries_there_is_no_feature_for_them():
    encoder = TableEncoder().fit(pd.DataFrame({"x": [1.0, 2.0], "c": ["a", "b"]}), [NUMBER, CATEGORY])
    assert encoder.feature_names == ("x", "c=a", "c=b")
    later = encoder.transform(pd.DataFrame({"x": [np.nan], "c": [None]}))
    assert later.tolist() == [[0, 0, 0]]


def test_unseen_levels_give_zeros_and_pooled_ones_the_pool():
    encoder = TableEncoder().fit(pd.DataFrame({"c": ["a", "b"]}), [CATEGORY])
    assert encoder.transform(pd.DataFrame({"c": ["z"]})).tolist() == [[0, 0]]
    pooled = Column("c", "category", 0, ("a", "other"), pooled=True)
    encoder = TableEncoder().fit(pd.DataFrame({"c": ["a", "other"]}), [pooled])
    assert encoder.transform(pd.DataFrame({"c": ["z", "a", None]})).tolist() == [[0, 1], [1, 0], [0, 0]]


def test_names_groups_and_columns_agree():
    table = table_from_frame(mixed(), "died")
    encoder = TableEncoder().fit(table.features, table.columns)
    assert encoder.columns == table.columns
    assert len(encoder.feature_names) == len(encoder.groups) == encoder.transform(table.features).shape[1]
    assert encoder.groups.dtype == np.int64
    for name, group in zip(encoder.feature_names, encoder.groups, strict=True):
        assert name.startswith(table.columns[group].name)
    assert sorted(set(encoder.groups.tolist())) == list(range(len(table.columns)))


def test_only_the_fitted_rows_are_learnt_from():
    """Other rows, however strange, change nothing: no mean, level, flag or bin comes from them."""
    table = table_from_frame(mixed(), "died")
    train = np.arange(50)
    strange = table.features.copy()
    strange.loc[50:, "age"] = np.nan
    strange.loc[51, "age"] = 1e9
    strange["sex"] = strange["sex"].astype(object)
    strange.loc[50:, "sex"] = "unheard of"
    encoders = [
        TableEncoder(quantile_bins=4).fit(features.iloc[train], table.columns) for features in (table.features, strange)
    ]
    assert encoders[0].to_json() == encoders[1].to_json()
    first, second = (each.transform(table.features.iloc[train]) for each in encoders)
    assert (first == second).all()
    assert not any("unheard" in name or name == "age (missing)" for name in encoders[1].feature_names)


def test_levels_that_only_other_rows_have_get_no_feature():
    encoder = TableEncoder().fit(pd.DataFrame({"c": ["a", "a"]}), [CATEGORY])
    assert encoder.feature_names == ("c=a",)


def test_raw_entries_are_read_as_the_table_reads_them():
    """A frame that comes later has text for numbers, truth values and whole numbers in other types."""
    frame = mixed()
    table = table_from_frame(frame, "died")
    encoder = TableEncoder().fit(table.features, table.columns)
    raw = frame.assign(
        dose=frame["dose"].map({1.0: "1.0", 2.0: "2"}).fillna("?"), smoker=frame["smoker"].astype(object)
    )
    assert (encoder.transform(raw) == encoder.transform(table.features)).all()


def test_a_row_is_encoded_alone_as_among_others_and_always_alike():
    table = table_from_frame(mixed(), "died")
    encoder = TableEncoder(quantile_bins=3).fit(table.features, table.columns)
    whole = encoder.transform(table.features)
    assert (encoder.transform(table.features) == whole).all()
    assert (encoder.transform(table.features.iloc[[7]]) == whole[[7]]).all()
    assert encoder.transform(table.features.iloc[:0]).shape == (0, whole.shape[1])
    reversed_columns = table.features[table.features.columns[::-1]].assign(extra=1)
    assert (encoder.transform(reversed_columns) == whole).all()


@pytest.mark.parametrize("bins", [0, 5])
def test_json_round_trip_is_exact(bins):
    table = table_from_frame(mixed(), "died")
    encoder = TableEncoder(quantile_bins=bins).fit(table.features, table.columns)
    again = TableEncoder.from_json(json.loads(json.dumps(encoder.to_json())))
    assert (again.columns, again.feature_names) == (encoder.columns, encoder.feature_names)
    assert again.to_json() == encoder.to_json()
    assert again.transform(table.features).tobytes() == encoder.transform(table.features).tobytes()


@pytest.mark.parametrize(
    "values",
    [
        [7.0, 7.0, 7.0],
        [0.1, 0.1, 0.1],
        [0.0, 0.0, 0.0],
        [np.nan, np.nan, np.nan],
        [1e300, -1e300, 1e300],
        [1e-300, 2e-300, 3e-300],
        [1e16, 1e16 + 2, 1e16 + 4],
        [np.inf, 1.0, 2.0],
    ],
    ids=str,
)
def test_extreme_numbers_stay_finite(values):
    encoder = TableEncoder(quantile_bins=2).fit(pd.DataFrame({"x": values}), [NUMBER])
    later = pd.DataFrame({"x": [*values, 1e308, -1e308, 0.0]})
    encoded = encoder.transform(later)
    assert np.isfinite(encoded).all()
    assert np.abs(encoded[:3]).max() < 2


def test_quantile_bins_are_equally_full_and_leave_missing_out():
    frame = pd.DataFrame({"x": [*range(100), np.nan]})
    encoder = TableEncoder(quantile_bins=5).fit(frame, [NUMBER])
    encoded = encoder.transform(frame)
    assert encoder.feature_names[1:3] == ("x (bin 1 of 5)", "x (bin 2 of 5)")
    assert encoded[:, 1:6].sum(axis=0).tolist() == [20] * 5
    assert encoded[-1].tolist() == [0, 0, 0, 0, 0, 0, 1]
    assert (np.diff(encoded[:100, 1:6].argmax(axis=1)) >= 0).all()
    assert encoder.groups.tolist() == [0] * 7


BAD = {
    "lacks columns": (pd.DataFrame({"y": [1.0]}), ["lacks 2 of the 2", "'x', 'c'", "add these columns"]),
    "text for a number": (pd.DataFrame({"x": ["1", "tall"], "c": ["a", "b"]}), ["'x' must hold numbers", "'tall'"]),
    "numbers for words": (pd.DataFrame({"x": [1.0], "c": [3.5]}), ["'c' must hold the levels", "'a'", "3.5"]),
}


@pytest.mark.parametrize("case", BAD)
def test_columns_of_another_kind_are_told(case):
    frame, said = BAD[case]
    encoder = TableEncoder().fit(pd.DataFrame({"x": [1.0, 2.0], "c": ["a", "b"]}), [NUMBER, CATEGORY])
    with pytest.raises(DataError) as caught:
        encoder.transform(frame)
    assert caught.value.mend
    for part in said:
        assert part in str(caught.value)


def test_fit_needs_rows_and_columns():
    with pytest.raises(DataError, match="0 rows"):
        TableEncoder().fit(pd.DataFrame({"x": [1.0]}).iloc[:0], [NUMBER])
    with pytest.raises(DataError, match="0 columns"):
        TableEncoder().fit(pd.DataFrame({"x": [1.0]}), [])


def test_misuse_is_told():
    with pytest.raises(ArgumentError, match="not been fitted"):
        TableEncoder().transform(pd.DataFrame({"x": [1.0]}))
    with pytest.raises(ArgumentError, match="not been fitted"):
        TableEncoder().to_json()
    with pytest.raises(ArgumentError, match="DataFrame"):
        TableEncoder().fit(np.zeros((3, 1)), [NUMBER])
    with pytest.raises(ArgumentError, match="quantile_bins"):
        TableEncoder(quantile_bins=1)


@pytest.mark.parametrize("saved", [{}, {"schema": 2}, {"schema": 1, "quantile_bins": 0, "columns": [{}]}, None, []])
def test_a_damaged_encoder_is_not_loaded(saved):
    with pytest.raises(CheckpointError, match="not a saved table encoder"):
        TableEncoder.from_json(saved)
