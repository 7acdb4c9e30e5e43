"""Numbers and verdicts: what a reader is told, to the letter."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from report.examples import bare_record, full_record, interval
from rightly.report import numerals
from rightly.report.runs import compared, runs_of
from rightly.report.verdict import cautions, conclusion, difference_text, reading, shown
from rightly.report.words import EXPLANATIONS, METRICS, ordered, word_of


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.8312, "0.831"),
        (-0.0071, "−0.0071"),
        (12.345, "12.35"),
        (123.45, "123.5"),
        (1234.5, "1,234"),
        (0, "0"),
        (None, "–"),
        (2.5e-8, "2.5×10⁻⁸"),
        (-3e9, "−3.0×10⁹"),
        (0.00031, "0.00031"),
    ],
)
def test_numbers(value: float | None, expected: str) -> None:
    assert numerals.number(value) == expected


def test_a_rounded_zero_has_no_sign() -> None:
    assert numerals.number(-0.0001, 3) == "0.000"
    assert numerals.number(0.0, 3, signed=True) == "0.000"
    assert numerals.number(0.5, 1, signed=True) == "+0.5"


@given(value=st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_can_be_written_briefly(value: float) -> None:
    assert 0 < len(numerals.number(value)) <= 16
    assert 0 < len(numerals.setting(value)) <= 16


@pytest.mark.parametrize(
    ("value", "expected"),
    [(10.0, "10"), (0.0464, "0.0464"), (1e-4, "0.0001"), (0.1 + 0.2, "0.3"), (0.0, "0"), (3e-8, "3.0×10⁻⁸")],
)
def test_settings_are_written_as_one_would_type_them(value: float, expected: str) -> None:
    assert numerals.setting(value) == expected


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"mean": 0.842, "low": 0.836, "high": 0.848}, ("0.842", "0.836 to 0.848")),
        ({"mean": 0.0004, "low": -0.0012, "high": 0.002}, ("0.0004", "−0.0012 to 0.0020")),
        ({"mean": 0.842, "low": None, "high": None}, ("0.842", "")),
        ({"mean": 0.842}, ("0.842", "")),
        ({"mean": 0.842, "low": 0.842, "high": 0.842}, ("0.842", "")),
    ],
)
def test_intervals(entry: dict[str, Any], expected: tuple[str, str]) -> None:
    assert numerals.interval(entry) == expected


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (0.0, "<0.001"),
        (0.00099, "<0.001"),
        (0.031, "0.031"),
        (0.0496, "0.0496"),
        (0.05, "0.05"),
        (0.0504, "0.0504"),
        (0.19, "0.19"),
        (0.999, ">0.99"),
        (1.0, ">0.99"),
        (None, "–"),
    ],
)
def test_p_values(p: float | None, expected: str) -> None:
    assert numerals.p_value(p) == expected


@given(p=st.floats(0, 1))
def test_a_written_p_is_on_the_right_side_of_the_line(p: float) -> None:
    written = float(numerals.p_value(p).lstrip("<>"))
    if abs(p - 0.05) > 1e-4:
        assert (written < 0.05) == (p < 0.05)


@pytest.mark.parametrize(
    ("share", "expected"), [(0.1234, "12.3%"), (0.0, "0.0%"), (0.0001, "<0.1%"), (1.0, "100.0%"), (None, "–")]
)
def test_percent(share: float | None, expected: str) -> None:
    assert numerals.percent(share) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.04, "0.0 s"), (9.96, "10.0 s"), (42, "42 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations(seconds: float, expected: str) -> None:
    assert numerals.duration(seconds) == expected


def entry(
    difference: float = 0.02, low: float | None = 0.01, high: float | None = 0.03, p: float | None = 0.01
) -> dict[str, Any]:
    return {"difference": difference, "low": low, "high": high, "p": p}


@pytest.mark.parametrize(
    ("metric", "found", "expected"),
    [
        ("auc", entry(), "Higher (better)"),
        ("auc", entry(-0.02, -0.03, -0.01), "Lower (worse)"),
        ("log_loss", entry(), "Higher (worse)"),
        ("log_loss", entry() | {"higher_is_better": True}, "Higher (better)"),
        ("gini", entry(), "Higher"),
        ("own_measure", entry(-1, -2, -0.5), "Lower"),
        ("auc", entry(p=0.05), "No difference shown"),
        ("auc", entry(p=0.0499), "Higher (better)"),
        ("auc", entry(0.0, -0.1, 0.1, 0.0), "No difference shown"),
        ("auc", entry(p=None), "Higher (better)"),
        ("auc", entry(0.02, -0.01, 0.05, None), "No difference shown"),
        ("auc", entry(0.02, None, None, None), "Not tested"),
        ("auc", entry(0.02, 0.02, 0.02, None), "Not tested"),
    ],
)
def test_readings(metric: str, found: dict[str, Any], expected: str) -> None:
    assert reading(metric, found) == expected


def test_a_p_that_is_not_small_shows_nothing_even_if_the_interval_does() -> None:
    assert shown(entry(p=0.2)) is False


def test_a_corrected_p_is_the_one_that_counts() -> None:
    assert shown(entry(p=0.04) | {"p_adjusted": 0.2}) is False
    assert shown(entry(p=0.04) | {"p_adjusted": 0.04}) is True
    assert shown(entry(p=0.04) | {"p_adjusted": None}) is True
    assert "p = 0.20" in difference_text(entry(p=0.04) | {"p_adjusted": 0.2})
    record = full_record()
    before = [told for told in cautions(record) if "not corrected" in told]
    for found in record["comparison"].values():
        found["p_adjusted"] = found["p"]
    assert len(before) == 1
    assert not any("not corrected" in told for told in cautions(record))


def test_what_is_compared_with_what() -> None:
    record = full_record(names=("no-decoy", "plain", "right"))
    record["runs"]["no-decoy"]["prior"] = None
    assert [run.name for run in runs_of(record)] == ["plain", "right", "no-decoy"]
    assert [run.name for run in compared(record, "auc") or ()] == ["right", "plain"]
    record["comparison"]["auc"] |= {"run": "no-decoy", "against": "right"}
    assert [run.name for run in compared(record, "auc") or ()] == ["no-decoy", "right"]
    record["runs"] = {"right": record["runs"]["right"]}
    assert compared(record, "gini") is None


def test_a_single_seed_claims_nothing() -> None:
    record = bare_record()
    for name in ("plain", "sparsity"):
        record["runs"][name] = record["runs"]["plain"] | {"seeds": [0]}
        record["runs"][name]["metrics"] = {"test": {"auc": interval(0.8, 0.0, 1)}}
    record["comparison"] = {"auc": entry(0.02, 0.02, 0.02, None)}
    assert conclusion(record) == [
        "AUC: not tested, 0.800 for “Sparsity” against 0.800 for “Plain (no prior)”; difference +0.020 (no interval)."
    ]
    assert any("trained only once" in told for told in cautions(record))


def test_cautions_fit_the_record() -> None:
    def told(record: dict[str, Any], words: str) -> bool:
        return any(words in caution for caution in cautions(record))

    record = full_record()
    assert told(record, "They do not show causes")
    assert told(record, "does not prove that they are equal")
    assert told(record, "3 measures were compared")
    assert not told(record, "small (")
    record["data"]["split"]["test"] = 50
    assert told(record, "small (50 rows)")
    record["data"] |= {"kind": "images", "rows": 1000, "split": {"test": 300}, "class_counts": {"a": 970, "b": 30}}
    assert told(record, "Only about 9 test images belong to “b”")
    record["comparison"] = {"auc": record["comparison"]["auc"]}
    assert not told(record, "does not prove")
    assert not told(record, "were compared")
    record["runs"]["plain"]["seeds"] = [0, 1]
    assert told(record, "only 2 times")


def test_words_of_measures() -> None:
    assert ordered({"own", "gini", "auc", "log_loss"}) == ["auc", "log_loss", "gini", "own"]
    assert word_of("my_own_measure").label == "My own measure"
    assert word_of("auc", {"classes": [0, 1]}).meaning.startswith("The chance that the model ranks a random row of “1”")
    assert all(word.meaning.endswith(".") for word in [*METRICS.values(), *EXPLANATIONS.values()])
