"""The demonstration: two models that were right for the wrong reasons, on data that come along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rightly.data import nhefs_mortality
from rightly.workflows.about import about_table
from rightly.workflows.case import Settings
from rightly.workflows.job import Job, run_job
from rightly.workflows.pictures import decoy_case
from rightly.workflows.tables import table_case


def digits_job(seeds: int) -> Job:
    """Digits whose corners give the label away in training: right reasons against plain and against no decoy."""
    settings = Settings(epochs=60, patience=None, explain_samples=50, explain_rows=200)
    data = {
        "name": "Digits with decoys",
        "kind": "images",
        "source": "scikit-learn's load_digits (UCI optical recognition of handwritten digits)",
        "rows": 1797,
        "label": "digit",
        "task": "classification",
        "licence": "BSD-3-Clause (scikit-learn)",
        "notes": [
            "In the training and validation images the grey of the four corners gives the digit away; in the test "
            "images it is that of a random digit. After Ross, Hughes and Doshi-Velez (2017), on smaller images.",
            "The model that never saw a decoy is trained and tested on the same images without it.",
        ],
    }
    about = {
        "title": "Digits: looking away from the decoy",
        "question": "A model has learned to read a mark in the corners instead of the digit. Does telling it where "
        "not to look (the right-reasons prior) make it read the digit, as if the mark had never been there?",
        "command": "demo",
        "rerun": "rightly demo",
        "data": data,
    }
    identity = {"demo": "digits", "seeds": seeds, **vars(settings)}
    return Job(lambda seed: decoy_case(seed, settings), range(seeds), about, identity, ("plain", "right-reasons"))


def mortality_job(seeds: int) -> Job:
    """Mortality in the NHANES I follow-up: the sparsity prior against plain."""
    table = nhefs_mortality()
    settings = Settings()
    about = {
        "title": "Mortality: fewer, clearer reasons",
        "question": "Who of 1,629 people examined in 1971 had died by 1992? A plain network spreads its reasons over "
        "dozens of measurements. Does asking for few features (the sparsity prior) give a model that relies on a "
        "handful and predicts as well?",
        "command": "demo",
        "rerun": "rightly demo",
        "data": about_table(table, "NHEFS mortality") | {"licence": "MIT (R and Python package causaldata)"},
    }
    identity = {"demo": "mortality", "seeds": seeds, **vars(settings)}
    return Job(
        lambda seed: table_case(table, seed, prior="sparsity", weight=None, irrelevant=(), settings=settings),
        range(seeds),
        about,
        identity,
        ("plain", "sparsity"),
    )


def run_demo(out: Path, *, seeds: int, resume: bool, progress: bool) -> list[tuple[Path, dict[str, Any]]]:
    """Run both; returns each folder with its record."""
    found = []
    for name, job in (("digits", digits_job(seeds)), ("mortality", mortality_job(seeds))):
        folder = out / name
        found.append((folder, run_job(job, folder, resume=resume, progress=progress)))
    return found


def promises(records: dict[str, dict[str, Any]]) -> list[tuple[str, bool]]:
    """What the demo claims, each with whether it came true."""
    digits = _accuracies(records["digits"])
    mortality = records["mortality"]["comparison"]
    gain = 100 * (digits["right-reasons"] - digits["plain"])
    short = 100 * (digits["no-decoy"] - digits["right-reasons"])
    return [
        (f"digits: right reasons {gain:.1f} points above plain (at least 25)", gain >= 25),
        (f"digits: {short:.1f} points below a model that never saw a decoy (at most 3)", short <= 3),
        (
            f"mortality: Gini {mortality['gini']['difference']:+.3f} (at least +0.2)",
            mortality["gini"]["difference"] >= 0.2,
        ),
        (
            f"mortality: AUC {mortality['auc']['difference']:+.4f} (at least -0.01)",
            mortality["auc"]["difference"] >= -0.01,
        ),
    ]


def _accuracies(record: dict[str, Any]) -> dict[str, float]:
    return {name: run["metrics"]["test"]["accuracy"]["mean"] for name, run in record["runs"].items()}
