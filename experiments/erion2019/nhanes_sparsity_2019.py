"""NHANES sparsity as first published (Erion et al. 2019, figure 3): many rows, and 34 subsets of 100 rows.

With thousands of people every regulariser is swept to see how sparse a network can be without losing accuracy; with
100 people the four that did best are compared, on 34 random subsets. Numbers beside ours: the preprint.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

import rightly as rt
from rightly.evaluation import adjust, compare
from rightly.workflows.reproduce import Claim, Outcome, Settings, over, run_entry, shown
from rightly.workflows.sparsity_study import ARMS, Study

DATASETS = ("nhanes", "nhefs")
NAMES = {"nhanes": "NHANES I, ten years", "nhefs": "NHEFS (smokers of NHANES I), death by 1992"}
#: the preprint's supplement 8.3: the regularisers that were swept, and those of its figure 3
SWEPT = (
    "plain",
    "gini_eg",
    "mixed_eg",
    "sgl_first",
    "l1_first",
    "l1_all",
    "l1_eg",
    "l2_first",
    "l2_all",
    "l2_eg",
    "dropout",
)
SMALL = ("plain", "l1_all", "sgl_first", "gini_eg")
#: T and p of the sparse prior's test AUC against them on 34 subsets
PAPER = {"plain": (4.25, 1.66e-3), "l1_all": (4.09, 2.60e-3), "sgl_first": (2.32, 0.0266)}
#: shares of training and validation rows, of all
SHARES = (7500 / 13000, 2500 / 13000)
RATES = (0.1, 0.3, 0.5, 0.7, 0.9)
#: of stochastic gradient descent, as the preprint has it
LR = 1.0

Rows = list[dict[str, Any]]


def run(settings: Settings) -> Outcome:
    """Sweep on many rows; then tune and repeat on every subset."""
    table = _table(settings)
    sizes = [round(share * len(table.labels)) for share in SHARES]
    references = settings.sized(smoke=5, reduced=50, full=50)
    large = Study(
        table,
        train=sizes[0],
        validation=sizes[1],
        k=settings.sized(smoke=1, reduced=1, full=50),
        references=references,
        epochs=settings.sized(smoke=1, reduced=12, full=12),
        batch_size=90,
        optimizer="sgd",
        lr=LR,
        corner=True,
        engine=settings.engine,
    )
    small = replace(
        large,
        train=100,
        validation=100,
        test=min(2500, len(table.labels) - 200),
        epochs=settings.sized(smoke=2, reduced=20, full=20),
        batch_size=100,
        corner=False,
    )
    strengths = settings.sized(smoke=[1.0], reduced=_grid(-6, 3, 1), full=_grid(-10, 3, 0.1))
    seeds = [settings.seed + i for i in range(settings.sized(smoke=1, reduced=3, full=3))]
    subsets = [settings.seed + i for i in range(settings.sized(smoke=2, reduced=34, full=34))]
    networks, kept = settings.sized(smoke=(2, 1), reduced=(30, 3), full=(100, 10))

    def tried(arm: str) -> list[float]:
        return [0.0] if arm == "plain" else list(RATES) if ARMS[arm].rates else strengths

    swept = {
        arm: settings.trials.run(
            f"many rows: {ARMS[arm].title}",
            [{"part": "many rows", "arm": arm, "strengths": tried(arm), "seed": seed} for seed in seeds],
            lambda key: large.block(key["arm"], key["strengths"], [key["seed"]])[0],
        )
        for arm in SWEPT
    }

    def subset(key: dict[str, Any]) -> dict[str, Any]:
        chosen = small.block(key["arm"], key["strengths"], [key["seed"]])[0]
        return chosen | small.best_of(key["arm"], chosen["weight"], key["seed"], networks, kept)

    few = {
        arm: settings.trials.run(
            f"34 subsets: {ARMS[arm].title}",
            [{"part": "subsets", "arm": arm, "strengths": tried(arm), "seed": seed} for seed in subsets],
            subset,
        )
        for arm in SMALL
    }
    return _outcome(settings, large, swept, few, (networks, kept))


def _grid(first: float, last: float, step: float) -> list[float]:
    return [float(f"{10 ** (first + i * step):.4g}") for i in range(round((last - first) / step) + 1)]


def _table(settings: Settings) -> rt.data.Table:
    if settings.dataset == "nhefs":
        return rt.data.nhefs_mortality()
    return rt.data.nhanes_mortality(rt.data.load_frame("nhanes1_shap_subset", data_dir=settings.data_dir), 10)


# ---------------------------------------------------------------------------------------------------- what is reported


def _outcome(
    settings: Settings, large: Study, swept: dict[str, Rows], few: dict[str, Rows], networks: tuple[int, int]
) -> Outcome:
    table = large.table
    tests = [compare(_values(few[arm], "test"), _values(few["gini_eg"], "test")) for arm in PAPER]
    adjusted = adjust([found.p for found in tests])
    return Outcome(
        title="Mortality: a sparsity prior, as first published",
        question="How sparse can a network become at full accuracy, and does that help when there is little data?",
        reduction=_reduction(settings, networks),
        data={
            "name": NAMES[str(settings.dataset)],
            "source": table.source,
            "kind": "table",
            "rows": len(table.labels),
            "features": len(table.columns),
            "label": table.label,
            "task": "classification",
            "classes": list(table.classes),
            "class_counts": {name: int((table.labels == i).sum()) for i, name in enumerate(table.classes)},
            "split": {
                "train": large.train,
                "validation": large.validation,
                "test": len(table.labels) - large.train - large.validation,
            },
            "notes": [f"{len(few['plain'])} subsets of 100 rows, 100 more to validate, at most 2,500 to test."],
        },
        runs={arm: _run(arm, rows) for arm, rows in few.items()},
        comparison={
            "auc": {
                **tests[0].as_dict(),
                "p_adjusted": adjusted[0],
                "run": "gini_eg",
                "against": "plain",
                "higher_is_better": True,
            }
        },
        claims=[*_of_many_rows(swept), *_of_subsets(few, tests, adjusted)],
        notes=_NOTES,
        figures={"curves": [_trade_off(swept), _lorenz(swept)], "tables": [_table_of_many_rows(swept)]},
    )


_NOTES = [
    "The public extract has 18 of the preprint's 36 variables, of 9,932 of 13,000 people; its shares of training, "
    "validation and test rows are kept, and each seed draws its own split (the preprint: one).",
    "One logit instead of a softmax of two, which learns twice as fast. Stochastic gradient descent with learning rate "
    "1, as in the preprint; the epoch kept is that of the best validation AUC (the preprint: the last).",
    "On many rows the network reported for a regulariser is that whose validation AUC and Gini of importance (training "
    "rows) come closest to 1 and 1, as the preprint has it; test rows are read for that one only.",
    "Strengths are the paper's lambda; L2 penalties are sums of squares. Importance is the mean absolute expected "
    "gradient over (at most 500) training rows, 50 references each.",
]


def _reduction(settings: Settings, networks: tuple[int, int]) -> str:
    if settings.size == "full":
        return "Full size: 131 strengths from 1e-10 to 1000, k = 50, the 10 best of 100 networks on each of 34 subsets."
    return (
        f"Reduced: strengths a decade apart from 1e-6 to 1000, one reference a row in training, the {networks[1]} best "
        f"of {networks[0]} networks on each of 34 subsets (the preprint: 130 strengths from 1e-10 to 1000, k = 50, the "
        "10 best of 100 networks)."
    )


def _values(rows: Rows, key: str) -> list[float]:
    return [row[key] for row in rows]


def _run(arm: str, rows: Rows) -> dict[str, Any]:
    median = None if arm == "plain" else float(np.median(_values(rows, "weight")))
    entry = run_entry(rows, {"auc": "test"}, {"gini": "gini"}, weight=median)
    entry["title"] = ARMS[arm].title
    if arm != "plain":
        told = "That is the median: each subset has the strength with its best validation AUC."
        entry["weight_choice"] = {"rule": "auto", "reason": told}
    if ARMS[arm].told:
        entry["prior"] = {"name": ARMS[arm].title, "attribution": ARMS[arm].told, "citation": "Erion et al. 2019"}
    return entry


def _of_many_rows(swept: dict[str, Rows]) -> list[Claim]:
    """Sparser than the sparsest others at the same accuracy."""
    claims = []
    for arm in ("l1_all", "sgl_first"):
        found = compare(_values(swept[arm], "gini"), _values(swept["gini_eg"], "gini"))
        means = [over(swept[a], key)["mean"] for a in ("gini_eg", arm) for key in ("gini", "test")]
        ours = f"Gini {means[0]:.3f} against {means[2]:.3f}, at an AUC of {means[1]:.3f} and {means[3]:.3f}"
        ours += "" if found.p is None else f" (p = {found.p:.2g} over {found.n} splits)"
        claim = f"many rows: the Gini prior is sparser than {ARMS[arm].title}, both near the corner"
        claims.append(Claim(claim, "substantially, at an AUC of 0.85 (figure)", ours, shown(found)))
    return claims


def _of_subsets(few: dict[str, Rows], tests: list[Any], adjusted: list[float | None]) -> list[Claim]:
    claims = []
    for arm, found, p in zip(PAPER, tests, adjusted, strict=True):
        means = [over(few[a], "test")["mean"] for a in ("gini_eg", arm)]
        ours = f"{means[0]:.3f} against {means[1]:.3f}"
        if found.t is not None:
            ours += f", T = {found.t:.2f}, adjusted p = {p:.2g}, d = {found.effect:.2f} over {found.n} subsets"
        claim = f"100 rows: the Gini prior has the higher AUC than {ARMS[arm].title}"
        claims.append(Claim(claim, "T = {}, p = {:g}".format(*PAPER[arm]), ours, shown(replace(found, p=p))))
    return claims


def _table_of_many_rows(swept: dict[str, Rows]) -> dict[str, Any]:
    columns = ["Regulariser", "Test AUC", "Gini of importance", "Validation AUC", "Strength (median)"]
    body = [
        [ARMS[arm].title, *(over(rows, key)["mean"] for key in ("test", "gini", "validation")), _strength(arm, rows)]
        for arm, rows in swept.items()
    ]
    return {"title": "Many rows: the network of each regulariser nearest the corner.", "columns": columns, "rows": body}


def _strength(arm: str, rows: Rows) -> float | None:
    return None if arm == "plain" else float(np.median(_values(rows, "weight")))


def _trade_off(swept: dict[str, Rows]) -> dict[str, Any]:
    series = []
    for arm, rows in swept.items():
        pairs = [
            (gini, validation)
            for row in rows
            for gini, validation in zip(row["ginis"], row["validations"], strict=True)
            if gini is not None
        ]
        pairs.sort()
        series.append({"name": arm, "x": [gini for gini, _ in pairs], "y": [validation for _, validation in pairs]})
    return {
        "title": "Many rows: sparsity and performance at every strength (figure 3, top left)",
        "x_label": "Gini of importance",
        "y_label": "validation AUC",
        "series": series,
    }


def _lorenz(swept: dict[str, Rows]) -> dict[str, Any]:
    shown_arms = ("plain", "l1_all", "sgl_first", "gini_eg")
    curves = {arm: np.mean([row["lorenz"] for row in swept[arm]], axis=0).tolist() for arm in shown_arms}
    share = np.linspace(0, 1, len(curves["plain"])).tolist()
    return {
        "title": "Many rows: cumulative importance of the least important features (figure 3, top right)",
        "x_label": "share of features",
        "y_label": "share of importance",
        "series": [{"name": arm, "x": share, "y": curve} for arm, curve in curves.items()],
    }
