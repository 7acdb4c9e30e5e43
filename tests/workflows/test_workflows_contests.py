"""Arms against each other: what is a gain, what is none, and how many tests there are."""

import numpy as np
import pytest
from scipy.stats import false_discovery_control, ttest_rel

from rightly.workflows.contests import Contest, best_option, contest_table, corrected, judged, mean_table, resplit_note

DRAWS = np.random.default_rng(0)
BASE = DRAWS.normal(size=10)
FOUND = {
    name: [{"seed": s, "r2": float(BASE[s] + shift + 0.1 * DRAWS.normal()), "other": s} for s in range(10)]
    for name, shift in (("plain", 0.0), ("better", 0.5), ("same", 0.0), ("worse", -0.5))
}
CONTESTS = [
    Contest("better is better", "plain", "better", "p < 0.01"),
    Contest("same is better", "plain", "same", "p < 0.01"),
    Contest("worse is better", "plain", "worse", "p < 0.01"),
    Contest("better is no better", "plain", "better", "p = 0.5", gain=False),
    Contest("same is no better", "plain", "same", "p = 0.5", gain=False),
    Contest("worse is no better", "plain", "worse", "p = 0.5", gain=False),
]


def test_claims_are_judged_in_their_direction():
    assert [claim.holds for claim in judged(FOUND, CONTESTS, "r2", "R2")] == [True, None, False, False, None, True]
    assert "corrected p" in judged(FOUND, CONTESTS, "r2", "R2")[0].ours


def test_p_values_are_corrected_for_all_contests():
    plain = [ttest_rel(*([row["r2"] for row in FOUND[name]] for name in (c.arm, c.against))).pvalue for c in CONTESTS]
    assert [test.p for test in corrected(FOUND, CONTESTS, "r2")] == pytest.approx(false_discovery_control(plain))


def test_tables_say_what_was_measured():
    titles = {name: name.upper() for name in FOUND}
    table = mean_table(FOUND, "r2", "R2.", titles, dict.fromkeys(FOUND, "-"), {"other": "other"})
    assert all(len(row) == len(table["columns"]) for row in table["rows"])
    assert [row[0] for row in table["rows"]] == ["PLAIN", "BETTER", "SAME", "WORSE"]
    assert table["rows"][0][2] == pytest.approx(np.mean([row["r2"] for row in FOUND["plain"]]))
    assert table["rows"][0][3] < table["rows"][0][2] < table["rows"][0][4]
    assert table["rows"][0][5] == 4.5
    tests = contest_table(FOUND, CONTESTS, "r2", "R2", titles)
    assert all(len(row) == len(tests["columns"]) for row in tests["rows"])
    assert tests["rows"][0][0] == "BETTER less PLAIN"
    assert tests["rows"][0][1] > 0.3


def test_the_best_option_on_average():
    rows = [{"option": o, "validation": v} for o, v in (([1, 2], 3), (None, 2), ([1, 2], 1), (None, 2.5), (0.5, 2.25))]
    assert best_option(rows) is None
    assert best_option(rows[:1] + rows[1:2]) == (1, 2)
    assert best_option([{"option": o, "validation": 1.0} for o in (0.3, 0.1)]) == 0.3


def test_the_note_tells_what_a_correction_for_shared_rows_leaves():
    note = resplit_note(FOUND, CONTESTS, "r2", 0.2)
    assert "4 of 6 differences are shown where the tests above show 4" in note
    # the same means, ends further apart
    plain, wide = (corrected(FOUND, CONTESTS, "r2", share)[0] for share in (None, 0.2))
    assert plain.difference == wide.difference
    assert wide.low < plain.low < plain.high < wide.high
    assert (
        f"better against plain {wide.difference:+.3f} ({wide.low:+.3f} to {wide.high:+.3f}), p = {wide.p:.2g}" in note
    )
    # a test part far larger than what is trained on: nothing is left
    assert "0 of 6 differences are shown where the tests above show 4" in resplit_note(FOUND, CONTESTS, "r2", 0.999)
    one = {name: rows[:1] for name, rows in FOUND.items()}
    assert resplit_note(one, CONTESTS, "r2", 0.2).endswith("0 of 6 differences are shown where the tests above show 0.")
