"""What a comparison shows, in words, and what a reader should be warned of."""

from __future__ import annotations

from rightly.report.cleaning import Record
from rightly.report.numerals import count, has_interval, interval, p_value
from rightly.report.runs import Run, compared, runs_of
from rightly.report.words import better, ordered, row_noun, word_of

SIGNIFICANT = 0.05
_FEW_ROWS, _FEW_SEEDS, _FEW_CASES = 200, 3, 50


def judged(entry: Record) -> float | None:
    """The p value that a comparison is judged by: corrected for the number of measures, where the record has that."""
    p: float | None = entry["p"] if entry.get("p_adjusted") is None else entry["p_adjusted"]
    return p


def shown(entry: Record) -> bool | None:
    """Whether a comparison shows a difference: p below 0.05, or without p an interval that excludes zero.

    None when there is neither.
    """
    if (p := judged(entry)) is not None:
        return p < SIGNIFICANT
    if not has_interval(entry):
        return None
    return bool(entry["low"] > 0 or entry["high"] < 0)


def reading(metric: str, entry: Record) -> str:
    """Read a comparison in two to four words: ``Higher (better)``, ``No difference shown``."""
    seen = shown(entry)
    if seen is None:
        return "Not tested"
    if not seen or entry["difference"] == 0:
        return "No difference shown"
    higher = entry["difference"] > 0
    wanted = better(metric, entry)
    suffix = "" if wanted is None else " (better)" if wanted == higher else " (worse)"
    return ("Higher" if higher else "Lower") + suffix


def difference_text(entry: Record) -> str:
    """Write a difference with its interval and p on one line: ``+0.007 (95% interval +0.001 to +0.013, p = 0.03)``."""
    middle, ends = interval(entry, "difference", signed=True)
    p = p_value(judged(entry))
    told = f"95% interval {ends}" if ends else "no interval"
    if judged(entry) is not None:
        told += f", p {p[0]} {p[1:]}" if p[0] in "<>" else f", p = {p}"
    return f"{middle} ({told})"


def _mean(run: Run, metric: str) -> float | None:
    entry = run.record["metrics"]["test"].get(metric) or run.record["explanations"].get(metric)
    return None if entry is None else float(entry["mean"])


def sentence(record: Record, metric: str) -> str:
    """Read a comparison as a sentence with the numbers in it."""
    entry, label = record["comparison"][metric], word_of(metric).label
    numbers = f"difference {difference_text(entry)}"
    pair = compared(record, metric)
    told = "" if pair is None else " against ".join(_told(run, metric) for run in pair)
    if not shown(entry):
        return f"{label}: {reading(metric, entry).lower()}{f', {told}' if told else ''}; {numbers}."
    if not told:
        return f"{label}: {reading(metric, entry).lower()}; {numbers}."
    return f"{label} is {reading(metric, entry).lower()}: {told}; {numbers}."


def _told(run: Run, metric: str) -> str:
    """A run with its mean: ``0.842 for "Sparsity"``."""
    mean = _mean(run, metric)
    name = f"\u201c{run.title}\u201d"
    return name if mean is None else f"{interval({'mean': mean})[0]} for {name}"


def conclusion(record: Record) -> list[str]:
    """The record's own conclusion, or the comparisons read one by one when it has none."""
    if record.get("conclusion"):
        return list(record["conclusion"])
    return [sentence(record, metric) for metric in ordered(record["comparison"])]


def _about_rows(data: Record) -> list[str]:
    test, noun = (data.get("split") or {}).get("test"), row_noun(data)
    if test is None:
        return []
    if test < _FEW_ROWS:
        return [
            f"The test set is small ({count(test, noun)}). A few {noun}s more or less could change the result; "
            "the intervals say how much."
        ]
    counts, rows = data.get("class_counts") or {}, data.get("rows")
    if not counts or not rows:
        return []
    rarest = min(sorted(counts), key=lambda name: counts[name])
    cases = counts[rarest] * test / rows
    if cases >= _FEW_CASES:
        return []
    return [
        f"Only about {count(round(cases), f'test {noun}')} belong to \u201c{rarest}\u201d: "
        "results on that class are uncertain."
    ]


def _about_seeds(record: Record) -> list[str]:
    fewest = min(len(run.record["seeds"]) for run in runs_of(record))
    if fewest >= _FEW_SEEDS:
        return []
    often = "once (one seed)" if fewest == 1 else f"{fewest} times"
    return [f"A model was trained only {often}: how much of a result is luck cannot be judged well."]


def cautions(record: Record) -> list[str]:
    """What an honest reader must know before using the result; never empty."""
    comparison = record["comparison"]
    found = _about_rows(record["data"]) + _about_seeds(record)
    if any(shown(entry) is False for entry in comparison.values()):
        found.append(
            "\u201cNo difference shown\u201d (p not below 0.05) means that this test could not tell the models "
            "apart. It does not prove that they are equal."
        )
    tested = sum(entry["p"] is not None and entry.get("p_adjusted") is None for entry in comparison.values())
    if tested > 2:
        found.append(
            f"{tested} measures were compared, and their p values are not corrected for that: about one in 20 "
            "such comparisons falls below 0.05 by chance."
        )
    found.append(
        "Explanations show what a model uses to predict. They do not show causes, and they do not say "
        "what would happen if a feature were changed in the world."
    )
    return found
