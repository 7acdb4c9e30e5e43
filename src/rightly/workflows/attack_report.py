"""What an attack study shows: claims judged by paired tests, and the curves, maps and tables of its report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rightly.evaluation import Comparison, adjust, compare
from rightly.workflows.attack_study import STRANGER, Found, Study
from rightly.workflows.reproduce import Claim, Row, over, run_entry

#: a row of a study -> accuracies, or other numbers, one for each condition that a claim is about
Reader = Callable[[Row], Sequence[float]]
#: (kind of attack, attacked network or "own") -> defence -> the paper's numbers in words
Published = Mapping[tuple[str, str], Mapping[str, str]]


@dataclass(frozen=True)
class Statement:
    """In every condition (strength) the second reading lies above the first by more than ``margin``.

    Attributes:
        claim, paper: as in ``Claim``.
        less, more: what is compared.
        margin: may be negative: "costs at most one point" is more than -0.01.
        unit: of the readings in words: points of accuracy by default.
    """

    claim: str
    paper: str
    less: Reader
    more: Reader
    margin: float = 0.0
    unit: str = "points"


def at(kind: str, source: str, target: str) -> Reader:
    """Accuracy of ``target`` on what the ``kind`` ("fgsm", "tgsm") made for ``source``, at every strength."""
    return lambda row: list(row[kind][source][target])


def worst(target: str) -> Reader:
    """Share of the examples that a defence gets right under every attack that was tried, at every such strength."""
    return lambda row: list(row["defences"][target]["worst"].values())


def clean(target: str) -> Reader:
    """Accuracy on the examples as they are."""
    return lambda row: [row["clean"][target]]


def alone(target: str, key: str) -> Reader:
    """A number that a study keeps of each defence, such as ``"norm_fgsm"`` or ``"zero"``."""
    return lambda row: [row["defences"][target][key]]


def iterated(target: str, key: str) -> Reader:
    """``"reached"`` or ``"seen"`` of the iterated targeted attack."""
    return lambda row: [row["iterated"][target][key]]


def claims(found: Found, statements: Sequence[Statement]) -> list[Claim]:
    """Each statement judged over seeds: paired t-tests in every condition, the largest p of them, then corrected.

    It holds where all differences exceed the margin and all are shown (p < 0.05, Benjamini and Hochberg over the
    statements), and does not where one of them is shown to lie below it; otherwise nothing is shown. A claim about
    every condition needs all of them, so that the largest p is its p (an intersection-union test); one that speaks
    against it is the least of several, times their number, and then corrected over the statements, too.
    """
    tests = [_tests(found, each) for each in statements]
    corrected = (adjust([p(found) for found in tests]) for p in (_largest, _against))
    return [_claim(*entry) for entry in zip(statements, tests, *corrected, strict=True)]


def flagged(found: Found, study: Study) -> dict[str, int]:
    """By defence, in how many seeds something speaks against its white-box accuracy, at any strength."""
    return {name: sum(any(row["defences"][name]["reasons"].values()) for row in found.rows) for name in study.defences}


def run_entries(study: Study, found: Found) -> dict[str, Row]:
    """The record's runs."""
    return {name: _entry(study, found, name) for name in study.defences}


def comparisons(study: Study, found: Found, defence: str, against: str = "plain") -> dict[str, Row]:
    """The record's comparison of a defence with plain training, p-values corrected for their number."""
    pairs = [[_flat(row, name) for row in found.rows] for name in (against, defence)]
    tests = {metric: compare(*([row[metric] for row in rows] for rows in pairs)) for metric in _METRICS}
    corrected = adjust([test.p for test in tests.values()])
    return {
        name: {**test.as_dict(), "p_adjusted": p, "run": defence, "against": against, "higher_is_better": True}
        for (name, test), p in zip(tests.items(), corrected, strict=True)
    }


def figures(study: Study, found: Found, published: Published | None = None) -> Row:
    """Maps, curves and tables."""
    kinds = {"fgsm": "FGSM", "tgsm": "TGSM towards the next class"}
    sources = list(found.rows[0]["fgsm"])
    own = [_curve(study, found, kind, None, f"{told}, each on its own") for kind, told in kinds.items()]
    others = [_curve(study, found, "fgsm", source, f"FGSM of {_title(study, source)}") for source in sources]
    tables = [_matrix(study, found, kind, told, published or {}) for kind, told in kinds.items()]
    tables += [_believed(study, found), _norms(study, found), _shared(study, found)]
    tables += [_towards(study, found)] if "iterated" in found.rows[0] else []
    tables += [_tried(study, found)] if found.tried else []
    return {"maps": found.rows[0].get("maps", []), "curves": [*own, *others], "tables": tables}


_METRICS = ("accuracy", "accuracy_under_own_fgsm", "accuracy_under_transferred_fgsm", "worst_case_accuracy")


def _flat(row: Row, name: str) -> Row:
    """A defence's numbers in one seed; means over strengths."""
    own = row["defences"][name]
    return {
        "seed": row["seed"],
        "seconds": row["seconds"] / len(row["defences"]),
        "engines": row["engines"][name],
        "accuracy": row["clean"][name],
        "accuracy_under_own_fgsm": float(np.mean(row["fgsm"][name][name])),
        "accuracy_under_transferred_fgsm": float(np.mean(row["fgsm"][STRANGER][name])),
        "worst_case_accuracy": float(np.mean(list(own["worst"].values()))),
        "log10_gradient_norm": own["norm_fgsm"],
        "log10_targeted_gradient_norm": own["norm_tgsm"],
    }


def _entry(study: Study, found: Found, name: str) -> Row:
    defence, weight = study.defences[name], found.weights[name] or None
    rows = [_flat(row, name) for row in found.rows]
    norms = ("log10_gradient_norm", "log10_targeted_gradient_norm")
    entry = run_entry(
        rows, {key: key for key in _METRICS}, {key: key for key in norms}, weight=weight, title=defence.title
    )
    if defence.told:
        entry["prior"] = {
            "name": defence.title,
            "description": defence.told,
            "attribution": "input gradients",
            "citation": "Ross 2018",
        }
    tried = [row for row in found.tried if row["defence"] == name]
    if tried:
        entry["weight_choice"] = {
            "rule": "auto",
            "reason": "It has the highest accuracy on validation rows that the single step made for the undefended "
            f"network, among those that keep {study.allowed:.0%} of its accuracy on clean ones.",
            "measure": "Accuracy on transferred FGSM examples, validation rows",
            "candidates": [
                {"weight": row["weight"], "mean": row["transferred"], "chosen": row["weight"] == weight}
                for row in tried
            ],
        }
    return entry


def _tests(found: Found, each: Statement) -> list[tuple[Comparison, float, float]]:
    """In every condition: the comparison, less the margin, and both means."""
    less = np.array([each.less(row) for row in found.rows], dtype=float)
    more = np.array([each.more(row) for row in found.rows], dtype=float)
    return [
        (compare((low + each.margin).tolist(), high.tolist()), float(low.mean()), float(high.mean()))
        for low, high in zip(less.T, more.T, strict=True)
    ]


def _largest(tests: Sequence[tuple[Comparison, float, float]]) -> float | None:
    """The largest p; None where differences are the same in every seed, so that chance cannot be measured."""
    known = [test.p for test, _, _ in tests if test.p is not None]
    return max(known) if len(known) == len(tests) else None


def _against(tests: Sequence[tuple[Comparison, float, float]]) -> float | None:
    """The smallest p of what lies below, times the number of conditions; None where nothing does."""
    known = [test.p for test, _, _ in tests if test.p is not None and test.difference < 0]
    return min(1.0, len(tests) * min(known)) if known else None


def _claim(
    each: Statement, tests: Sequence[tuple[Comparison, float, float]], p: float | None, against: float | None
) -> Claim:
    scale, form = (100, "{:.1f}") if each.unit == "points" else (1, "{:.3g}")
    lows, highs = ([form.format(scale * value) for value in column] for column in list(zip(*tests, strict=True))[1:])
    unit = " %" if each.unit == "points" else f" {each.unit}"
    ours = f"{' / '.join(highs)}{unit} against {' / '.join(lows)}{unit}" + ("" if p is None else f", p = {p:.2g}")
    if all(test.difference > 0 for test, _, _ in tests) and p is not None and p < 0.05:
        return Claim(each.claim, each.paper, ours, True)
    return Claim(each.claim, each.paper, ours, False if against is not None and against < 0.05 else None)


def _title(study: Study, name: str) -> str:
    return "another undefended network" if name == STRANGER else study.defences[name].title


def _curve(study: Study, found: Found, kind: str, source: str | None, title: str) -> Row:
    """Accuracy by strength with its interval over seeds, the clean accuracy first."""
    series = []
    for name in study.defences:
        points = [over([{"value": row["clean"][name]} for row in found.rows], "value")]
        points += [
            over([{"value": row[kind][source or name][name][i]} for row in found.rows], "value")
            for i in range(len(study.strengths))
        ]
        ends = {"low": [max(p["low"], 0.0) for p in points], "high": [min(p["high"], 1.0) for p in points]}
        series.append({"name": name, "x": [0.0, *study.strengths], "y": [p["mean"] for p in points], **ends})
    return {"title": f"{title}: test accuracy", "x_label": "eps", "y_label": "accuracy", "series": series}


def _matrix(study: Study, found: Found, kind: str, told: str, published: Published) -> Row:
    """Everybody's accuracy on everybody's examples, the paper's numbers under ours."""
    sources = list(found.rows[0][kind])
    body = [["clean", *(_cell([[row["clean"][name]] for row in found.rows]) for name in study.defences)]]
    body += _paper(study, published, ("clean", ""), "clean")
    own = [_cell([row[kind][name][name] for row in found.rows]) for name in study.defences]
    body += [["own", *own], *_paper(study, published, (kind, "own"), "own")]
    for source in sources:
        cells = [_cell([row[kind][source][name] for row in found.rows]) for name in study.defences]
        body += [[_title(study, source), *cells], *_paper(study, published, (kind, source), _title(study, source))]
    eps = " / ".join(f"{value:g}" for value in study.strengths)
    title = (
        f"{told}: test accuracy at eps {eps}, mean over seeds; rows are the networks that the examples were made for."
    )
    return {"title": title, "columns": ["Made for", *(d.title for d in study.defences.values())], "rows": body}


def _paper(study: Study, published: Published, key: tuple[str, str], name: str) -> list[list[str]]:
    if key not in published:
        return []
    return [[f"{name}, in the paper", *(published[key].get(each, "") for each in study.defences)]]


def _cell(values: Sequence[Sequence[float]]) -> str:
    return " / ".join(f"{value:.2f}" for value in np.mean(values, axis=0))


def _believed(study: Study, found: Found) -> Row:
    """Whether white-box accuracy may be read as robustness."""
    body = []
    counts = flagged(found, study)
    for name, defence in study.defences.items():
        own = [row["defences"][name] for row in found.rows]
        reasons = [reason for each in own for found_at in each["reasons"].values() for reason in found_at]
        body.append(
            [
                defence.title,
                f"{np.mean([each['zero'] for each in own]):.2f}",
                *(_cell([list(each[key].values()) for each in own]) for key in ("fgsm", "pgd", "worst")),
                f"{counts[name]} of {len(found.rows)}",
                reasons[0] if reasons else "",
            ]
        )
    extra = {"ensemble": "AutoAttack-style ensemble", "jsma": "JSMA succeeds"}
    columns = ["Defence", "Zero gradients", "FGSM", "PGD", "Worst of all", "Seeds flagged", "First reason"]
    for key, head in extra.items():
        if key in found.rows[0]["defences"]["plain"]:
            columns.append(head)
            for line, name in zip(body, study.defences, strict=True):
                values = [row["defences"][name][key] for row in found.rows]
                line.append(_cell([list(v.values()) if isinstance(v, dict) else [v] for v in values]))
    eps = " / ".join(f"{value:g}" for value in study.worst)
    title = (
        f"Masked gradients: accuracy under FGSM, PGD and the worst of all attacks at eps {eps}. A flagged defence's "
    )
    return {"title": title + "white-box accuracy is not counted as robustness.", "columns": columns, "rows": body}


def _norms(study: Study, found: Found) -> Row:
    body = [
        [
            defence.title,
            *(
                f"{np.mean([row['defences'][name][f'{what}_{kind}'] for row in found.rows]):.2f}"
                for kind in ("fgsm", "tgsm")
                for what in ("norm", "spread")
            ),
        ]
        for name, defence in study.defences.items()
    ]
    columns = ["Defence", "FGSM: mean", "FGSM: spread", "TGSM: mean", "TGSM: spread"]
    title = "Log10 of the norm of the attacks' input gradients (at least -20), over test pictures."
    return {"title": title, "columns": columns, "rows": body}


def _shared(study: Study, found: Found) -> Row:
    """Figure 3.3 in numbers."""
    pairs = list(found.rows[0]["overlap"][STRANGER])
    titles = {name: defence.title for name, defence in study.defences.items()}
    heads = [" and ".join(titles[name] for name in pair.split(" and ")) for pair in pairs]
    body = [
        [
            head,
            *(
                f"{np.mean([row['overlap'][source][pair] for row in found.rows]):.2f}"
                for source in found.rows[0]["fgsm"]
            ),
        ]
        for head, pair in zip(heads, pairs, strict=True)
    ]
    columns = ["Both fooled", *(_title(study, source) for source in found.rows[0]["fgsm"])]
    title = "Of the examples that fool either of two networks, the share that fools both; "
    title += f"FGSM at {max(study.strengths):g}."
    return {"title": title, "columns": columns, "rows": body}


def _towards(study: Study, found: Found) -> Row:
    body = [
        [defence.title, *(_cell([[row["iterated"][name][key]] for row in found.rows]) for key in ("reached", "seen"))]
        for name, defence in study.defences.items()
    ]
    columns = ["Defence", "Target reached", "Another undefended network sees the target too"]
    eps, steps = study.iterated or (0.0, 0)
    return {
        "title": f"Iterated TGSM, {steps} steps of {eps:g} towards the next class.",
        "columns": columns,
        "rows": body,
    }


def _tried(study: Study, found: Found) -> Row:
    body = [
        [study.defences[row["defence"]].title, row["weight"], row["validation"], row["transferred"]]
        for row in found.tried
    ]
    columns = ["Defence", "Weight", "Validation accuracy", "Validation accuracy on FGSM of plain"]
    return {"title": "The weights that were tried, with the first seed.", "columns": columns, "rows": body}
