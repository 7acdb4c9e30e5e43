"""Results and titles in sentences."""

import pytest

import rightly as rt
from rightly.workflows.reproduce import compared
from rightly.workflows.wording import in_sentence, mean_told, p_told

ROWS = [{"seed": seed, "first": first, "second": second} for seed, first, second in ((0, 0.1, 0.4), (1, 0.3, 0.5))]


def test_a_mean_stands_with_its_interval():
    found = rt.evaluation.interval([0.1, 0.3])
    assert mean_told(ROWS, "first") == f"0.20 ({found.low:.2f} to {found.high:.2f})"
    assert mean_told(ROWS, "first", scale=100, places=1) == f"20.0 ({100 * found.low:.1f} to {100 * found.high:.1f})"


def test_two_results_of_the_same_trials_are_compared():
    assert compared(ROWS, "first", "second") == rt.evaluation.compare([0.1, 0.3], [0.4, 0.5])
    resplit = rt.evaluation.compare([0.1, 0.3], [0.4, 0.5], test_share=0.2)
    assert compared(ROWS, "first", "second", test_share=0.2) == resplit
    assert p_told(resplit) == f", corrected p = {resplit.p:.2g}"
    assert p_told(compared(ROWS[:1], "first", "second")) == ""


@pytest.mark.parametrize(
    ("title", "told"),
    [
        ("Right reasons", "right reasons"),
        ("Integrated gradients (IG)", "integrated gradients (IG)"),
        ("The rescale rule of DeepLIFT", "the rescale rule of DeepLIFT"),
        ("Plain, without patches", "plain, without patches"),
        ("A random place", "a random place"),
        *((name, name) for name in ("CDEP", "CDEP, L1", "CD, as published", "DB5, peak counts", "DeepLIFT", "L1")),
    ],
)
def test_titles_are_lowered_but_names_are_not(title, told):
    assert in_sentence(title) == told
