"""Records and figures for the tests of the report room: small, plain, and each call a fresh one."""

from __future__ import annotations

import math
from typing import Any

Record = dict[str, Any]

HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"


def interval(mean: float, half: float = 0.01, seeds: int = 3) -> Record:
    """An interval as a command writes it."""
    values = [mean + half * (at - (seeds - 1) / 2) / max(seeds, 1) for at in range(seeds)]
    return {"mean": mean, "low": mean - half, "high": mean + half, "values": values}


def bare_run(seeds: int = 3, auc: float = 0.8) -> Record:
    """A run with its fixed part only."""
    return {
        "seeds": list(range(seeds)),
        "weight": None,
        "metrics": {"test": {"auc": interval(auc, seeds=seeds)}},
        "explanations": {},
        "seconds": 12.5,
    }


def bare_record() -> Record:
    """A record with its fixed part only: one run, nothing compared."""
    return {"schema": 1, "command": "fit", "data": {}, "runs": {"plain": bare_run()}, "comparison": {}}


def full_run(name: str, features: list[str], seeds: int = 3) -> Record:
    """A run with every optional part."""
    run = bare_run(seeds, 0.8 if name == "plain" else 0.82)
    shares = [1 / (at + 1) for at in range(len(features))]
    run["metrics"] = {
        "test": {"auc": run["metrics"]["test"]["auc"], "log_loss": interval(0.4, seeds=seeds)},
        "validation": {"auc": interval(0.81, seeds=seeds)},
    }
    run["explanations"] = {
        "gini": interval(0.6),
        "inside": interval(0.2),
        "completeness_gap": interval(0.001, 0.0005),
        "importance": [
            {"feature": feature, "mean": share, "low": share * 0.9, "high": share * 1.1}
            for feature, share in zip(features, shares, strict=True)
        ],
        "lorenz": [(at / 100) ** 2 for at in range(101)],
    }
    epochs = list(range(1, 9))
    run["history"] = [
        {
            "epoch": epochs,
            "task": [math.exp(-epoch / 4) for epoch in epochs],
            "validation": [None, *(0.1 + math.exp(-epoch / 4) for epoch in epochs[1:])],
            "terms": {} if name == "plain" else {"sparsity": [10.0 ** (1 - epoch) for epoch in epochs]},
            "best_epoch": 6,
        }
        for _ in range(seeds)
    ]
    if name != "plain":
        run |= {
            "title": f"The {name} prior",
            "weight": 0.1,
            "engines": {name: "frozen-masks: a plain stack of layers"},
            "prior": {
                "name": name,
                "description": "Few features should matter.",
                "attribution": "Expected gradients",
                "reference": "200 training rows",
                "citation": "Somebody (2021). https://doi.org/10.1/x",
            },
            "weight_choice": {
                "rule": "auto",
                "reason": "the largest weight within one standard error of the best",
                "candidates": [
                    {"weight": 0.0, "mean": 0.5, "error": 0.01, "chosen": False},
                    {"weight": 0.1, "mean": 0.48, "error": 0.01, "chosen": True},
                    {"weight": 10.0, "mean": 0.7, "error": None, "chosen": False},
                ],
            },
        }
    return run


def full_record(features: list[str] | None = None, names: tuple[str, ...] = ("plain", "sparsity")) -> Record:
    """A record with every part that the schema knows."""
    features = ["age", "sex", "pressure"] if features is None else features
    return {
        "schema": 1,
        "command": "fit",
        "title": "Mortality",
        "question": "Can fewer features do?",
        "created": "2026-03-05T14:05:12+00:00",
        "attribution": "They are expected gradients of the predicted class.",
        "intervals": "Numbers are means over seeds with 95% t intervals.",
        "versions": {"rightly": "0.1.0", "torch": "2.9"},
        "rerun": "rightly fit table.csv --label died",
        "seconds": 61.0,
        "notes": ["A note about the run."],
        "data": {
            "name": "NHANES",
            "source": "A survey",
            "kind": "table",
            "rows": 1000,
            "features": len(features),
            "label": "died",
            "task": "classification",
            "classes": ["survived", "died"],
            "class_counts": {"survived": 700, "died": 300},
            "split": {"train": 600, "validation": 200, "test": 200},
            "columns": [{"name": name, "kind": "number", "missing": 4, "levels": None} for name in features],
            "notes": ["One row is one person."],
            "licence": "Public domain",
        },
        "runs": {name: full_run(name, features) for name in names},
        "comparison": {
            "auc": {"difference": 0.02, "low": 0.01, "high": 0.03, "p": 0.004, "test": "paired t test", "n": 3},
            "log_loss": {"difference": 0.01, "low": -0.02, "high": 0.04, "p": 0.4, "higher_is_better": False},
            "gini": {"difference": 0.1, "low": 0.05, "high": 0.15, "p": 0.0001},
        },
    }


def full_figures(features: list[str] | None = None, names: tuple[str, ...] = ("plain", "sparsity")) -> Record:
    """Figures of every kind."""
    features = ["age", "sex", "pressure"] if features is None else features
    values, attributions = [0.0, 0.5, None, 1.0], [-1.0, 0.1, 0.2, 2.0]
    image = [[0.0, 0.5, 1.0], [0.2, 0.2, 0.2]]
    mark = [[0, 1, 1], [0, 0, 0]]
    signed = [[-1.0, 0.0, 2.0], [0.0, 0.0, 0.5]]
    return {
        "beeswarm": {
            name: [
                {"feature": feature, "values": list(values), "attributions": list(attributions)} for feature in features
            ]
            for name in names
        },
        "maps": [
            {
                "title": "Image 1",
                "label": "3",
                "image": image,
                "annotation": mark,
                "runs": {
                    name: {"map": signed, "prediction": "3", "correct": index == 0} for index, name in enumerate(names)
                },
            }
        ],
        "curves": [
            {
                "title": "Learning curve",
                "x_label": "Rows",
                "y_label": "AUC",
                "series": [
                    {
                        "name": "plain",
                        "x": [1, 2, 3],
                        "y": [0.5, None, 0.7],
                        "low": [0.4, None, 0.6],
                        "high": [0.6, None, 0.8],
                    },
                    {"name": "published", "x": [1, 3], "y": [0.5, 0.72], "paper": True},
                ],
            }
        ],
        "regions": [
            {
                "title": "Image 1 (answer 3)",
                "image": image,
                "levels": [
                    {"title": "Round 1", "groups": [[0, -1, 1], [0, -1, 1]], "scores": [-0.5, 1.0]},
                    {"title": "Last", "groups": [[0, 0, 0], [0, 0, 0]], "scores": [0.8]},
                ],
            }
        ],
        "tables": [
            {"title": "Ours and theirs", "columns": ["Model", "Ours"], "rows": [["A", 0.5], ["B", None], [1, True]]}
        ],
    }
