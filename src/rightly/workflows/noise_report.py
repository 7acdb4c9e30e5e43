"""What a noise study shows: claims judged by paired tests, and the curves, maps and tables of its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rightly.evaluation import Comparison, adjust, compare
from rightly.workflows.noise_study import Found, Study
from rightly.workflows.reproduce import Claim, Row, over, run_entry, shown

#: a noise level is hard where the plain network has lost so much accuracy
HARD = 0.20
_UNITS = {
    "gaussian": ("Gaussian noise", "standard deviation (black to white is 1)"),
    "salt_and_pepper": ("Salt-and-pepper noise", "share of the pixels"),
}
Rows = Mapping[str, list[Row]]


@dataclass(frozen=True)
class Statement:
    """One arm is more robust than another to a kind of noise, by so many points of accuracy at least."""

    less: str
    more: str
    kind: str
    paper: str
    points: float = 0.0


def run_entries(study: Study, found: Found) -> dict[str, Row]:
    """The record's runs."""
    return {arm: _entry(study, arm, rows, found.tried) for arm, rows in found.rows.items()}


def comparisons(found: Found, arm: str, against: str = "plain") -> dict[str, Row]:
    """The record's comparison: accuracy without and with noise, p-values corrected for their number."""
    keys = {"accuracy": _clean, **{name: _under(kind) for kind, name in _metrics(found.rows).items()}}
    tests = [compare(*([key(row) for row in found.rows[a]] for a in (against, arm))) for key in keys.values()]
    return {
        name: {**test.as_dict(), "p_adjusted": p, "run": arm, "against": against, "higher_is_better": True}
        for name, test, p in zip(keys, tests, adjust([test.p for test in tests]), strict=True)
    }


def claims(study: Study, found: Found, statements: Sequence[Statement], arm: str, paper_cost: str) -> list[Claim]:
    """The statements, then what ``arm`` costs without noise and how smooth its maps are.

    Each statement is judged on the seeds' mean accuracy over the hard levels, those where the plain network has lost
    20 points on average; p-values are corrected for the number of statements. It holds where the difference is as
    large as stated and shown (p < 0.05), and does not where the 95 % interval lies below that.
    """
    tests = [_gain(study, found.rows, each) for each in statements]
    corrected = adjust([None if test is None else test[0].p for test in tests])
    told = [_claim(study, each, test, p) for each, test, p in zip(statements, tests, corrected, strict=True)]
    clean = compare(*([_clean(row) for row in found.rows[a]] for a in ("plain", arm)))
    means = {a: over(found.rows[a], "clean")["mean"] for a in ("plain", arm)}
    cost = f"{100 * means[arm]:.1f} % against {100 * means['plain']:.1f} % ({_points(clean)})"
    rough = compare(*([row["roughness"] for row in found.rows[a]] for a in (arm, "plain")))
    means = {a: over(found.rows[a], "roughness")["mean"] for a in ("plain", arm)}
    smoother = f"total variation {means['plain']:.0f} to {means[arm]:.0f}{_p(rough.p)}"
    title = study.arms[arm].title
    within = f"{title}: accuracy without noise within {_count(study.allowed)} of plain"
    return [
        *told,
        Claim(within, paper_cost, cost, clean.difference >= -study.allowed),
        Claim(f"{title}: smoother attribution maps than plain", "shown as pictures", smoother, shown(rough)),
    ]


def figures(study: Study, found: Found, pairs: Sequence[tuple[str, str]]) -> Row:
    """Maps, curves and tables."""
    return {
        "maps": _maps(study, found.rows),
        "curves": [_curve(study, found.rows, kind) for kind in study.noise],
        "tables": [
            *(_table(study, found.rows, kind) for kind in study.noise),
            _paired(study, found.rows, pairs),
            _tried(study, found.tried),
        ],
    }


def _clean(row: Row) -> float:
    return float(row["clean"])


def _under(kind: str) -> Any:
    return lambda row: float(np.mean(row["noise"][kind]))


def _metrics(rows: Rows) -> dict[str, str]:
    return {kind: f"accuracy_under_{kind}_noise" for kind in rows["plain"][0]["noise"]}


def _entry(study: Study, name: str, rows: list[Row], tried: Sequence[Row]) -> Row:
    arm, weight = study.arms[name], rows[0]["weight"] or None
    metrics = _metrics(rows={"plain": rows})
    flat = [{**row, **{name: _under(kind)(row) for kind, name in metrics.items()}} for row in rows]
    measures = {"accuracy": "clean", **{name: name for name in metrics.values()}}
    entry = run_entry(flat, measures, {"total_variation": "roughness"}, weight=weight, title=arm.title)
    entry["metrics"]["validation"] = {"accuracy": over(rows, "validation")}
    if "history" in rows[0]:
        entry["history"] = [row["history"] for row in rows]
    if arm.attribution is None:
        return entry
    entry["prior"] = {
        "name": arm.title,
        "description": "Total variation of each picture's standardised attributions, kept small.",
        "attribution": arm.told,
        "citation": "Erion et al. 2021",
    }
    entry["weight_choice"] = {
        "rule": "auto",
        "reason": "It has the smallest penalty among those that cost at most "
        f"{_count(study.allowed)} of validation accuracy.",
        "measure": "Validation accuracy",
        "candidates": [
            {"weight": row["weight"], "mean": row["validation"], "chosen": row["weight"] == weight}
            for row in tried
            if row["arm"] == name
        ],
    }
    return entry


def hard_levels(rows: Rows, kind: str) -> list[int]:
    """Numbers of the levels where the plain network has lost 20 points, on average over seeds."""
    clean = over(rows["plain"], "clean")["mean"]
    return [i for i, y in enumerate(_means(rows["plain"], kind)) if y <= clean - HARD + 1e-9]


def _means(rows: Sequence[Row], kind: str) -> list[float]:
    return [float(value) for value in np.mean([row["noise"][kind] for row in rows], axis=0)]


def _gain(study: Study, rows: Rows, each: Statement) -> tuple[Comparison, list[float], list[int]] | None:
    """The paired comparison over hard levels, the two means, and those levels; None where no level is hard."""
    levels = hard_levels(rows, each.kind)
    if not levels:
        return None
    values = [[float(np.mean([row["noise"][each.kind][i] for i in levels])) for row in rows[a]] for a in _arms(each)]
    return compare(*values), [float(np.mean(part)) for part in values], levels


def _arms(each: Statement) -> tuple[str, str]:
    return each.less, each.more


def _claim(
    study: Study, each: Statement, test: tuple[Comparison, list[float], list[int]] | None, p: float | None
) -> Claim:
    less, more = (study.arms[arm].title for arm in _arms(each))
    by = f" by at least {_count(each.points)}" if each.points else ""
    text = f"{_UNITS[each.kind][0]}: {more} above {less}{by} where plain has lost {_count(HARD)}"
    if test is None:
        return Claim(text, each.paper, "plain loses less at every level", None)
    found, (low, high), levels = test
    at = ", ".join(f"{study.noise[each.kind][i]:g}" for i in levels)
    ours = f"{100 * high:.1f} % against {100 * low:.1f} % at {at} ({_points(found)}{_p(p)})"
    if p is not None and p < 0.05 and found.difference >= each.points:
        return Claim(text, each.paper, ours, found.difference > 0)
    return Claim(text, each.paper, ours, False if found.n > 1 and found.high < each.points else None)


def _count(share: float) -> str:
    points = round(100 * share, 6)
    return f"{points:g} point" + ("" if points == 1 else "s")


def _points(found: Comparison) -> str:
    if found.n < 2:
        return f"{100 * found.difference:+.1f} points"
    return f"{100 * found.difference:+.1f} points, {100 * found.low:+.1f} to {100 * found.high:+.1f}"


def _p(p: float | None) -> str:
    return "" if p is None else f", p = {p:.2g}"


def _maps(study: Study, rows: Rows) -> list[Row]:
    """A row of pictures for every example, each arm beside the others."""
    shown_rows = [found[0]["maps"] for found in rows.values()]
    classes = len({each["label"] for each in shown_rows[0]})
    told = []
    for i, examples in enumerate(zip(*shown_rows, strict=True)):
        first = examples[0]
        title = None
        if i >= classes:
            title = f"The same picture: what speaks for the answer '{study.classes[first['target']]}'"
        told.append(
            {
                "title": title,
                "image": first["image"],
                "label": study.classes[first["label"]],
                "runs": {
                    arm: {
                        "map": e["map"],
                        "prediction": study.classes[e["prediction"]],
                        "correct": e["prediction"] == e["label"],
                    }
                    for arm, e in zip(rows, examples, strict=True)
                },
            }
        )
    return told


def _curve(study: Study, rows: Rows, kind: str) -> Row:
    """Accuracy by level with its interval, the clean accuracy first."""
    name, unit = _UNITS[kind]
    series = []
    for arm, found in rows.items():
        levels = [over([{"value": row["clean"]} for row in found], "value")]
        levels += [
            over([{"value": row["noise"][kind][i]} for row in found], "value") for i in range(len(study.noise[kind]))
        ]
        ends = {
            "low": [max(entry["low"], 0.0) for entry in levels],
            "high": [min(entry["high"], 1.0) for entry in levels],
        }
        series.append(
            {"name": arm, "x": [0.0, *study.noise[kind]], "y": [entry["mean"] for entry in levels], **ends},
        )
    return {"title": f"{name}: test accuracy", "x_label": unit, "y_label": "accuracy", "series": series}


def _table(study: Study, rows: Rows, kind: str) -> Row:
    def cell(values: Sequence[float]) -> str:
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        return f"{np.mean(values):.3f} ± {spread:.3f}"

    body = [["0", *(cell([row["clean"] for row in found]) for found in rows.values())]]
    for i, level in enumerate(study.noise[kind]):
        body.append([f"{level:g}", *(cell([row["noise"][kind][i] for row in found]) for found in rows.values())])
    columns = [_UNITS[kind][1].capitalize(), *(study.arms[arm].title for arm in rows)]
    title = f"{_UNITS[kind][0]}: test accuracy, mean ± standard deviation over seeds."
    return {"title": title, "columns": columns, "rows": body}


def _paired(study: Study, rows: Rows, pairs: Sequence[tuple[str, str]]) -> Row:
    """Every pair of arms at every level of every kind, p-values corrected over the whole table."""
    keys = [(pair, kind, i) for pair in pairs for kind in study.noise for i in range(len(study.noise[kind]))]
    found = [
        compare(*([row["noise"][kind][i] for row in rows[arm]] for arm in (less, more)))
        for (less, more), kind, i in keys
    ]
    corrected = adjust([test.p for test in found])
    body = [
        [
            f"{study.arms[more].title} less {study.arms[less].title}",
            _UNITS[kind][0],
            study.noise[kind][i],
            round(test.difference, 4),
            None if test.t is None else round(test.t, 2),
            _short(test.p),
            _short(p),
            _short(test.p_ranks),
        ]
        for ((less, more), kind, i), test, p in zip(keys, found, corrected, strict=True)
    ]
    columns = ["Comparison", "Noise", "Level", "Difference", "t", "p", "p corrected", "p of ranks (Wilcoxon)"]
    title = "Paired tests over seeds at each level; corrected after Benjamini and Hochberg over this table."
    return {"title": title, "columns": columns, "rows": body}


def _short(p: float | None) -> float | None:
    return None if p is None else float(f"{p:.2g}")


def _tried(study: Study, tried: Sequence[Row]) -> Row:
    kind = next(iter(study.noise))
    body = [
        [study.arms[row["arm"]].title, row["weight"], row["validation"], row["penalty"], _under(kind)(row)]
        for row in tried
    ]
    under = f"{_UNITS[kind][0]}, test rows (did not choose)"
    columns = ["Arm", "Weight", "Validation accuracy", "Penalty (validation rows)", under]
    return {"title": "The weights that were tried, with the first seed.", "columns": columns, "rows": body}
