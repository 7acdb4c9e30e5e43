"""The console table: the numbers of the record, aligned, in characters that any terminal shows."""

from __future__ import annotations

import pytest

from report.examples import bare_record, full_record, interval
from rightly.core.errors import DataError
from rightly.report import results_table


def test_the_table_holds_the_results() -> None:
    lines = results_table(full_record()).splitlines()
    assert lines[0] == "NHANES, 3 seeds, 200 test rows"
    assert set(lines[1]) == {"─"}
    assert lines[2].split("  ")[0] == "measure"
    auc = next(line for line in lines if line.startswith("AUC"))
    assert all(part in auc for part in ("0.800", "0.820", "+0.020", "0.004", "higher (better)"))
    ends = lines[lines.index(auc) + 1]
    assert all(part in ends for part in ("0.790 to 0.810", "0.810 to 0.830", "+0.010 to +0.030"))
    loss = next(at for at, line in enumerate(lines) if line.startswith("Log loss"))
    assert lines[loss].endswith("no difference")
    assert lines[loss + 1].endswith("shown")
    assert "no difference shown" in results_table(full_record(), 60)
    assert "The sparsity prior less Plain (no prior)" in lines[-1]


def test_columns_are_aligned_and_within_the_width() -> None:
    lines = results_table(full_record(), 100).splitlines()
    table = lines[2:-2]
    assert max(map(len, lines[1:-1])) <= 100
    start = table[0].index("Plain")
    assert {line[start - 2 : start] for line in table if not line.startswith("─") and len(line) > start} == {"  "}


def test_a_narrow_console_gets_one_block_per_measure() -> None:
    wide, narrow = results_table(full_record(), 200), results_table(full_record(), 60)
    assert "── AUC" in narrow
    assert "── AUC" not in wide
    assert "The sparsity prior  0.820 (0.810 to 0.830)" in narrow


def test_a_bare_record_without_comparison() -> None:
    text = results_table(bare_record())
    assert "difference" not in text
    assert "0.800" in text
    assert text.splitlines()[0] == "fit, 3 seeds"


def test_runs_that_lack_a_measure_have_a_dash() -> None:
    record = full_record()
    record["runs"]["sparsity"]["metrics"]["test"]["own"] = interval(0.5)
    line = next(line for line in results_table(record, 300).splitlines() if line.startswith("Own"))
    assert line.split() == ["Own", "-", "0.500", "-", "-"]


def test_names_cannot_move_the_cursor_or_break_lines() -> None:
    record = full_record()
    record["runs"]["sparsity"]["title"] = "\x1b[2J\x07evil\nname\r\u202e"
    record["runs"]["plain"]["metrics"]["test"]["x\x1b[1m\ny"] = interval(1e-9, 1e-10)
    text = results_table(record)
    assert all(char.isprintable() or char == "\n" for char in text)
    assert "1.0e-9" in text
    assert "−" not in text


@pytest.mark.parametrize("title", ["名前" * 5, "x" * 400, "é" * 3])
def test_wide_and_long_names_keep_the_table_readable(title: str) -> None:
    record = full_record()
    record["runs"]["sparsity"]["title"] = title
    assert len(results_table(record, 120).splitlines()) > 5


def test_a_bad_record_is_refused() -> None:
    with pytest.raises(DataError):
        results_table({"schema": 1})
