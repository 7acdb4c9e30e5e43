"""Attack studies: weights are chosen as the thesis does, and claims about every strength need every strength."""

import pytest

from rightly.workflows.attack_report import Statement, claims
from rightly.workflows.attack_study import Found, choose


def tried(weight, validation, transferred, plain=0.98):
    return {"weight": weight, "validation": validation, "plain": plain, "transferred": transferred}


def test_the_thesis_rule():
    rows = [tried(1, 0.97, 0.3), tried(2, 0.96, 0.5), tried(3, 0.94, 0.9)]
    assert choose(rows, 0.97)["weight"] == 2  # 0.97 * 0.98 is 0.9506
    assert choose(rows, 0.90)["weight"] == 3
    assert choose(rows, 1.00)["weight"] == 1  # none keeps so much: the one that costs least


def judged(pairs, **further):
    """One statement about two strengths; ``pairs`` are (first, second) readings of three seeds."""
    rows = [{"less": less, "more": more} for less, more in pairs]
    statement = Statement("c", "p", lambda row: row["less"], lambda row: row["more"], **further)
    (claim,) = claims(Found([], {}, rows), [statement])
    return claim


ABOVE = [([0.1, 0.1], [0.5, 0.4]), ([0.12, 0.1], [0.53, 0.45]), ([0.1, 0.15], [0.5, 0.46])]


def test_every_strength_counts():
    assert judged(ABOVE).holds is True
    assert "51.0 / 43.7 % against 10.7 / 11.7 %, p = " in judged(ABOVE).ours
    # one strength says the opposite
    crossed = [([less[0], more[1]], [more[0], less[1]]) for less, more in ABOVE]
    assert judged(crossed).holds is False
    # one strength says nothing
    noisy = [([0.1, 0.1], [0.5, 0.4]), ([0.12, 0.4], [0.53, 0.1]), ([0.1, 0.1], [0.5, 0.2])]
    assert judged(noisy).holds is None
    assert judged([(more, less) for less, more in ABOVE]).holds is False


def test_margins():
    assert judged(ABOVE, margin=0.2).holds is True
    assert judged(ABOVE, margin=0.6).holds is False
    level = [([0.5, 0.5], [0.495, 0.49]), ([0.5, 0.5], [0.499, 0.497]), ([0.5, 0.5], [0.49, 0.496])]
    assert judged(level, margin=-0.1).holds is True
    assert judged(level).holds is not True


def test_many_statements_are_corrected():
    rows = [{"less": less, "more": more} for less, more in ABOVE]
    weak = [{"less": [0.1], "more": [0.1 + gain]} for gain in (0.02, 0.1, 0.05)]
    real = Statement("c", "p", lambda row: row["less"][:1], lambda row: row["more"][:1])
    noise = [Statement("n", "p", lambda row: [row["less"][0]], lambda row: [row["less"][1]]) for _ in range(30)]
    alone = claims(Found([], {}, weak), [real])[0].ours
    assert claims(Found([], {}, rows), [real, *noise])[0].ours.split("p = ")[1] != judged(ABOVE).ours.split("p = ")[1]
    assert float(alone.split("p = ")[1]) == pytest.approx(0.14, abs=0.01)
