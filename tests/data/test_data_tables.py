"""Tables: every format, and what is guessed about columns and labels."""

from __future__ import annotations

import datetime
import decimal
from pathlib import Path

import numpy as np
import pytest

from rightly.data import Column, read_frame, read_table, table_from_frame

pd = pytest.importorskip("pandas", reason="tables need pandas")

ROWS = 60


def plain(rows: int = ROWS) -> pd.DataFrame:
    """Two numbers and a label of two classes."""
    generator = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": generator.integers(20, 80, rows),
            "dose": generator.normal(size=rows).round(3),
            "died": np.arange(rows) % 2,
        }
    )


def saved(folder: Path, frame: pd.DataFrame, name: str = "table.csv") -> Path:
    path = folder / name
    if name.endswith(".parquet"):
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if ".tsv" in name else ",")
    return path


def text(folder: Path, content: str | bytes, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# --- what is read -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.tsv", "t.tsv.gz", "T.CSV", "t.parquet"])
def test_every_format_gives_the_same_table(tmp_path, name):
    table = read_table(saved(tmp_path, plain(), name), "died")
    assert table.features.equals(plain()[["age", "dose"]].astype(float))
    assert table.columns == (Column("age", "number", 0), Column("dose", "number", 0))
    assert (table.task, table.classes, table.label) == ("classification", ("0", "1"), "died")
    assert table.labels.dtype == np.int64
    assert table.labels.tolist() == (np.arange(ROWS) % 2).tolist()
    assert table.source == str(tmp_path / name)
    assert table.notes == ("task guessed from 'died': classification",)


def test_a_frame_is_left_as_it_was():
    frame = plain()
    frame.loc[3, "dose"] = np.inf
    copy = frame.copy()
    table_from_frame(frame, "died")
    pd.testing.assert_frame_equal(frame, copy)


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_and_decimal_commas_are_understood(tmp_path, delimiter):
    rows = "".join(f"{i},5{delimiter}{'ab'[i % 2]}{delimiter}{i % 2}\n" for i in range(ROWS))
    table = read_table(text(tmp_path, delimiter.join(["x", "c", "y"]) + "\n" + rows), "y")
    if delimiter == ";":
        assert table.features["x"].tolist() == [i + 0.5 for i in range(ROWS)]
        assert any("decimal comma" in note for note in table.notes)
    assert table.features["c"].tolist() == list("ab" * (ROWS // 2))
    assert any("separates its columns" in note for note in table.notes)


def test_byte_order_mark_spaces_and_blank_lines_are_no_part_of_the_names(tmp_path):
    rows = "".join(f"{i}, {i % 2}\n" for i in range(ROWS))
    table = read_table(text(tmp_path, "\ufeff\n age , y\n" + rows), "y")
    assert table.features.columns.tolist() == ["age"]
    assert len(table.labels) == ROWS


def test_parquet_row_names_become_a_column(tmp_path):
    frame = plain().set_index("age")
    frame.to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet", "died").features.columns.tolist() == ["age", "dose"]


def test_read_frame_judges_no_column(tmp_path):
    frame = plain().assign(id=range(ROWS), same=1)
    assert read_frame(saved(tmp_path, frame)).frame.columns.tolist() == ["age", "dose", "died", "id", "same"]


# --- kinds of columns -------------------------------------------------------------------------------------------


def column(values, name="c"):
    """The column that ``values``, repeated, become (None if dropped), its table, and the notes about it."""
    repeated = [values[i % len(values)] for i in range(ROWS)]
    table = table_from_frame(plain().assign(**{name: pd.Series(repeated)}), "died")
    found = [each for each in table.columns if each.name == name]
    return (found[0] if found else None), table, [note for note in table.notes if f"'{name}'" in note]


@pytest.mark.parametrize("marker", ["?", "NA", "-", ".", "N/A", "null", "", "missing", "unknown", "None"])
def test_numbers_written_as_text_beside_missing_markers_are_numbers(tmp_path, marker):
    values = ["1.5", "2", " 7 ", marker]
    frame = plain().assign(c=[values[i % 4] for i in range(ROWS)])
    table = read_table(saved(tmp_path, frame), "died")
    assert table.columns[-1] == Column("c", "number", ROWS // 4)
    assert table.features["c"].tolist()[:3] == [1.5, 2, 7]
    assert np.isnan(table.features["c"][3])


def test_a_marker_read_as_missing_is_told():
    _, _, notes = column(["1.5", "2", "?", "unknown"])
    assert notes == ["'c': 30 entries ('?', 'unknown') were read as missing numbers"]


def test_two_numbers_stay_a_number_but_truth_values_are_a_category():
    assert column([0, 1])[0].kind == "number"
    assert column([True, False])[0] == Column("c", "category", 0, ("False", "True"))
    assert column([True, None, False])[0] == Column("c", "category", ROWS // 3, ("False", "True"))


def test_text_is_a_category_with_sorted_levels_and_missing_entries():
    found, table, _ = column(["no", "yes ", None, ""])
    assert found == Column("c", "category", ROWS // 2, ("no", "yes"))
    assert table.features["c"].tolist()[:2] == ["no", "yes"]
    assert table.features["c"].isna().sum() == ROWS // 2


def test_none_is_a_level_where_levels_are_words(tmp_path):
    frame = plain().assign(drink=["None", "beer", "wine"] * (ROWS // 3))
    assert read_table(saved(tmp_path, frame), "died").columns[-1].levels == ("None", "beer", "wine")


def test_categoricals_keep_their_levels_as_text():
    frame = plain().assign(c=pd.Categorical([1.0, 2.0, 3.5] * (ROWS // 3)))
    assert table_from_frame(frame, "died").columns[-1].levels == ("1", "2", "3.5")


def test_nullable_and_decimal_numbers_are_numbers():
    frame = plain().assign(
        a=pd.array([1, None, 3] * (ROWS // 3), dtype="Int64"),
        b=[decimal.Decimal("1.5"), decimal.Decimal(2), None] * (ROWS // 3),
    )
    assert table_from_frame(frame, "died").columns[-2:] == (Column("a", "number", 20), Column("b", "number", 20))


def test_infinite_numbers_count_as_missing():
    found, _, notes = column([1.0, np.inf, -np.inf, 2.0])
    assert found == Column("c", "number", ROWS // 2)
    assert notes == ["'c': 30 infinite entries were read as missing"]


DATES = {
    "iso": ["2020-01-31", "2021-12-01"],
    "with time": ["2020-01-31 10:15:00", "2020-01-31T23:59:59.5Z"],
    "european": ["31.01.2020", "1.2.99"],
    "american": ["1/31/2020", "12/1/2020 3:15 PM"],
    "named": ["3 March 2020", "4-Apr-21"],
    "named first": ["March 3, 2020", "Apr 4 2021"],
    "time": ["10:15", "23:59:01"],
    "objects": [datetime.date(2020, 1, 31), datetime.date(2021, 1, 31)],
    "stamps": [pd.Timestamp("2020-01-31"), pd.Timestamp("2021-01-31")],
}


@pytest.mark.parametrize("values", DATES.values(), ids=DATES)
def test_dates_are_dropped(values):
    found, _, notes = column(values)
    assert found is None
    assert "dates or times" in notes[0]


@pytest.mark.parametrize("values", [["1-2", "3-4"], ["10-20-30-40", "a"], ["may", "june"], ["12:30 o'clock", "late"]])
def test_what_only_resembles_a_date_is_kept(values):
    assert column(values)[0].kind == "category"


@pytest.mark.parametrize("name", ["id", "ID", "seqn", "patient_id", "PatientId", "index", "Unnamed: 0", "row id"])
def test_whole_numbers_called_id_are_dropped_when_they_never_repeat(name):
    found, _, notes = column(list(range(ROWS)), name)
    assert found is None
    assert "only names the row" in notes[0]


@pytest.mark.parametrize("name", ["Poverty index", "public key"])
def test_measurements_called_index_are_kept_without_a_word(name):
    found, _, notes = column([1, 2, 3], name)
    assert found.kind == "number"
    assert notes == []


def test_a_blank_header_of_row_numbers_is_dropped(tmp_path):
    plain().to_csv(tmp_path / "t.csv")
    table = read_table(tmp_path / "t.csv", "died")
    assert table.features.columns.tolist() == ["age", "dose"]
    assert "'Unnamed: 0' was dropped" in table.notes[-1]


@pytest.mark.parametrize("name", ["width", "video", "idle", "liquid", "covid"])
def test_names_that_only_contain_id_are_kept(name):
    assert column(list(range(ROWS)), name)[0].kind == "number"


def test_an_identifier_that_repeats_is_kept_with_a_warning():
    found, _, notes = column([1, 2, 3], "patient_id")
    assert found.kind == "number"
    assert "drop it if it is one" in notes[0]


def test_text_that_never_repeats_is_dropped():
    found, _, notes = column([f"person {i}" for i in range(ROWS)])
    assert found is None
    assert "only names the row" in notes[0]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([3], "it is 3.0 in every row"),
        (["x"], "it is x in every row"),
        ([None], "every entry is missing"),
        ([np.nan], "every entry is missing"),
        (["", " "], "every entry is missing"),
        ([[1], [2]], "its entries are neither numbers nor text"),
        ([b"a", b"b"], "its entries are neither numbers nor text"),
        ([1j, 2j], "its entries are neither numbers nor text"),
    ],
)
def test_columns_that_say_nothing_are_dropped(values, why):
    found, _, notes = column(values)
    assert found is None
    assert notes == [f"'c' was dropped: {why}"]


def test_one_value_beside_missing_entries_is_kept():
    assert column(["x", None])[0] == Column("c", "category", ROWS // 2, ("x",))


def test_of_many_levels_the_most_frequent_are_kept_whatever_the_order_of_rows():
    rows = 600
    values = [f"level {i % 100 if i % 2 else i % 20:03d}" for i in range(rows)]
    frame = plain(rows).assign(c=values)
    table = table_from_frame(frame, "died")
    found = table.columns[-1]
    assert len(found.levels) == 50
    assert found.pooled
    assert "other" in found.levels
    assert {f"level {i:03d}" for i in range(0, 20, 2)} <= set(found.levels)
    assert "'c' has 60 levels: the 49 most frequent were kept" in table.notes[-1]
    shuffled = table_from_frame(frame.sample(frac=1, random_state=0), "died")
    assert shuffled.columns[-1].levels == found.levels


def test_fifty_levels_are_all_kept():
    frame = plain(200).assign(c=[f"level {i % 50}" for i in range(200)])
    assert len(table_from_frame(frame, "died").columns[-1].levels) == 50
    assert not table_from_frame(frame, "died").columns[-1].pooled


def test_named_columns_are_dropped():
    assert table_from_frame(plain(), "died", drop=["dose"]).features.columns.tolist() == ["age"]
    assert table_from_frame(plain(), "died", drop="dose").features.columns.tolist() == ["age"]


# --- labels and tasks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        ([0, 1], "classification", ("0", "1")),
        ([1.0, 2.0, 10.0], "classification", ("1", "2", "10")),
        (["b", "a"], "classification", ("a", "b")),
        ([True, False], "classification", ("False", "True")),
        (["1", "2", "?"], "classification", ("1", "2")),
        (list(range(10)), "classification", tuple(map(str, range(10)))),
        (list(range(11)), "regression", ()),
        ([0.5, 1.5], "regression", ()),
    ],
)
def test_the_task_is_guessed(values, task, classes):
    frame = plain(120).assign(y=[values[i % len(values)] for i in range(120)])
    table = table_from_frame(frame, "y")
    assert (table.task, table.classes) == (task, classes)
    assert f"task guessed from 'y': {task}" in table.notes
    assert table.labels.dtype == (np.int64 if task == "classification" else np.float32)


def test_a_task_that_is_given_is_taken():
    frame = plain().assign(y=[0.5, 1.5] * (ROWS // 2))
    assert table_from_frame(frame, "y", task="classification").classes == ("0.5", "1.5")
    assert table_from_frame(plain(), "died", task="regression").labels.dtype == np.float32
    truths = plain().assign(y=[True, False] * (ROWS // 2))
    assert table_from_frame(truths, "y", task="regression").labels[:2].tolist() == [1, 0]


def test_rows_without_a_label_are_dropped_with_their_features():
    frame = plain().assign(died=[0.0, 1.0, np.nan] * (ROWS // 3))
    frame["age"] = range(ROWS)
    table = table_from_frame(frame, "died")
    assert "20 rows without a label were dropped" in table.notes
    assert table.features["age"].tolist() == [i for i in range(ROWS) if i % 3 < 2]
    assert table.features.index.tolist() == list(range(40))


def test_the_same_file_gives_the_same_table(tmp_path):
    path = saved(tmp_path, plain().assign(c=["x", "y", None] * (ROWS // 3)))
    one, two = read_table(path, "died"), read_table(path, "died")
    pd.testing.assert_frame_equal(one.features, two.features)
    assert (one.columns, one.notes, one.labels.tolist()) == (two.columns, two.notes, two.labels.tolist())
