"""Arms of an experiment against each other, split by split: the paper's claims judged with corrected tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rightly.evaluation import Comparison, bootstrap, compare, interval
from rightly.workflows.reproduce import Claim, Row, adjusted, shown

#: the trials of every arm, over the same splits in the same order
Found = Mapping[str, Sequence[Row]]


@dataclass(frozen=True)
class Contest:
    """One arm against another.

    Attributes:
        claim: the paper's sentence.
        against, arm: which two.
        paper: its number.
        gain: whether the paper says that ``arm`` is better; False where it says that it is not: refuted by a
            gain, shown only where ``arm`` is worse. That none was found is not shown by a test that finds none.
    """

    claim: str
    against: str
    arm: str
    paper: str
    gain: bool = True


def paired(found: Found, against: str, arm: str, key: str, test_share: float | None = None) -> Comparison:
    """``arm`` less ``against`` in one measure, split by split; ``test_share`` as in ``compare``."""
    return compare([row[key] for row in found[against]], [row[key] for row in found[arm]], test_share=test_share)


def corrected(found: Found, contests: Sequence[Contest], key: str, test_share: float | None = None) -> list[Comparison]:
    """All contests, their p corrected for how many they are (Benjamini, Hochberg)."""
    return adjusted([paired(found, contest.against, contest.arm, key, test_share) for contest in contests])


def resplit_note(found: Found, contests: Sequence[Contest], key: str, test_share: float) -> str:
    """What the claims' tests would say had they heeded that splits of one data set share rows."""
    tests = [corrected(found, contests, key, share) for share in (None, test_share)]
    before, after = (sum(shown(test) is not None for test in part) for part in tests)
    told = "; ".join(
        f"{contest.arm} against {contest.against} {test.difference:+.3f} ({test.low:+.3f} to {test.high:+.3f}), "
        f"p = {test.p:.2g}"
        for contest, test in zip(contests, tests[1], strict=True)
        if test.p is not None
    )
    return (
        "With the variance corrected for rows that splits share (corrected resampled t-test, Nadeau and Bengio 2003), "
        f"{after} of {len(contests)} differences are shown where the tests above show {before}"
        + (f": {told}." if told else ".")
    )


def judged(found: Found, contests: Sequence[Contest], key: str, label: str) -> list[Claim]:
    """A claim for every contest; of the measure, more is better."""
    claims = []
    for contest, test in zip(contests, corrected(found, contests, key), strict=True):
        arm, against = (interval([row[key] for row in found[name]]).mean for name in (contest.arm, contest.against))
        chance = "" if test.t is None else f", t = {test.t:.2f}, corrected p = {test.p:.2g}"
        ours = f"{label} {arm:.3f} against {against:.3f} ({test.low:+.3f} to {test.high:+.3f}{chance})"
        better = shown(test)
        holds = better if contest.gain or better is None else not better
        claims.append(Claim(contest.claim, contest.paper, ours, holds))
    return claims


def contest_table(
    found: Found, contests: Sequence[Contest], key: str, label: str, titles: Mapping[str, str]
) -> dict[str, Any]:
    """The tests behind ``judged``, for the report."""
    tests = corrected(found, contests, key)
    body = [
        [f"{titles[c.arm]} less {titles[c.against]}", t.difference, t.low, t.high, t.t, t.p, t.p_ranks]
        for c, t in zip(contests, tests, strict=True)
    ]
    columns = ["Comparison", "Difference", "95% from", "to", "t", "Corrected p", "p of ranks"]
    return {"title": f"{label}: paired tests over splits.", "columns": columns, "rows": body}


def mean_table(
    found: Found, key: str, title: str, titles: Mapping[str, str], chosen: Mapping[str, str], further: Mapping[str, str]
) -> dict[str, Any]:
    """Every arm's mean over splits with its bootstrap interval, and the means of further measures (heading -> key)."""
    body = []
    for arm, rows in found.items():
        mean = bootstrap(np.mean, [row[key] for row in rows])
        means = [float(np.mean([row[name] for row in rows])) for name in further.values()]
        body.append([titles[arm], chosen[arm], mean.mean, mean.low, mean.high, *means])
    return {"title": title, "columns": ["Model", "Chosen", "Mean", "95% from", "to", *further], "rows": body}


def best_option(rows: Sequence[Row], key: str = "validation") -> Any:
    """The ``option`` whose trials have the largest mean of ``key``; of equals the first. Lists come back as tuples."""
    names = {json.dumps(row["option"]): row["option"] for row in rows}
    best = max(names, key=lambda name: np.mean([row[key] for row in rows if json.dumps(row["option"]) == name]))
    return tuple(names[best]) if isinstance(names[best], list) else names[best]
