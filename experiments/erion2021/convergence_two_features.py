"""Two features that say the same (Erion et al. 2021, supplement D.1): which penalties free a model from one of them.

A logistic model that leans on two perfectly correlated binary features alike is trained on with a penalty on the
attributions of the second. Expected gradients with k draws from a zero background are compared with input gradients,
log-probability gradients and integrated gradients of two and four steps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import rightly as rt
from rightly.evaluation import compare
from rightly.workflows.reproduce import Claim, Outcome, Settings, over, run_entry, shown

ROWS, BATCH = 1000, 64
#: the dependency counts as removed when the second feature matters less than this share of the first
REMOVED = 0.05
ZERO = rt.references.Constant(0.0)


def expected(k: int) -> rt.ExpectedGradients:
    """As published: k independent positions on the path from zero, of the model's probability."""
    return rt.ExpectedGradients(ZERO, n_samples=k, design="independent", recentred=False, output="prob")


def integrated(steps: int, rule: str = "trapezoid") -> rt.IntegratedGradients:
    """From zero, both ends included as in the published code unless another rule is asked for."""
    return rt.IntegratedGradients(ZERO, n_steps=steps, rule=rule, output="prob")


class Arm(NamedTuple):
    """A penalty: its title, its attribution (None for no penalty), and gradients an example and step."""

    title: str
    attribution: Any = None
    calls: int = 0


ARMS = {
    "plain": Arm("No penalty"),
    **{f"eg{k}": Arm(f"Expected gradients, k = {k}", expected(k), k) for k in range(1, 6)},
    "gradient": Arm("Gradient", rt.Gradient(output="prob"), 1),
    "log_gradient": Arm("Log-probability gradient", rt.Gradient(output="log_prob"), 1),
    "ig2": Arm("Integrated gradients, both ends", integrated(2), 2),
    "ig4": Arm("Integrated gradients, 4 steps", integrated(4), 4),
    "ig4_gauss": Arm("Integrated gradients, 4 Gauss-Legendre nodes", integrated(4, "gauss-legendre"), 4),
}
#: the article's table 1, "convergence time", which its text does not define
PAPER_TIME = {"eg1": 0.150, "gradient": 0.250, "ig": 0.989}


def run(settings: Settings) -> Outcome:
    """Every arm with every seed of the data, the order of the batches and the draws."""
    seeds = settings.sized(smoke=2, reduced=5, full=20)
    epochs = settings.sized(smoke=2, reduced=200, full=200)
    keys = [{"arm": arm, "seed": settings.seed + seed} for seed in range(seeds) for arm in ARMS]
    rows = settings.trials.run("seeds", keys, lambda key: train(key, epochs, settings.engine))
    return _outcome(settings, {arm: [row for row in rows if row["arm"] == arm] for arm in ARMS}, epochs)


def train(key: dict[str, Any], epochs: int, engine: Any) -> dict[str, Any]:
    """Train on from the same weights; how much the second feature matters against the first, epoch by epoch."""
    draws = torch.Generator().manual_seed(key["seed"])
    labels = torch.bernoulli(torch.rand(ROWS, 1, generator=draws), generator=draws)
    test = torch.bernoulli(torch.rand(ROWS, 2, generator=draws), generator=draws)
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.fill_(10.0)
        model.bias.fill_(-6.0)
    arm = ARMS[key["arm"]]
    terms = []
    if arm.attribution is not None:
        terms = [rt.Term(arm.attribution, rt.priors.Irrelevant("l1"), 1.0, "second_feature", engine=engine)]
    objective = rt.Objective(model, binary_cross_entropy_with_logits, terms, seed=key["seed"])
    ratios: list[float] = []
    found = rt.fit(
        objective,
        (labels.expand(-1, 2), labels, rt.Annotation(irrelevant=torch.tensor([[0.0, 1.0]]))),
        epochs=epochs,
        batch_size=BATCH,
        lr=1e-2,
        seed=key["seed"],
        callback=lambda epoch, history: ratios.append(reliance(model)),
    )
    done = next((epoch for epoch, ratio in enumerate(ratios, 1) if abs(ratio) < REMOVED), None)
    with torch.no_grad():
        right = ((model(test)[:, 0] > 0) == (test[:, 0] > 0.5)).double().mean()
    return {
        "ratios": [round(ratio, 6) for ratio in ratios],
        "mean_ratio": float(np.mean(ratios)),
        "last_ratio": ratios[-1],
        "epochs": epochs if done is None else done,
        "removed": done is not None,
        "accuracy": float(right),
        "engines": found.engines,
    }


@torch.no_grad()
def reliance(model: nn.Module) -> float:
    """Effect of the second feature over that of the first: each switched on, at 100 values of the other in [0, 1)."""
    others = torch.arange(0, 1, 0.01)[:, None]

    def effect(rows: Any) -> Tensor:
        on, off = (torch.sigmoid(model(rows(torch.full_like(others, value)))) for value in (1.0, 0.0))
        return (on - off).mean()

    second = effect(lambda value: torch.cat([others, value], 1))
    return float(second / effect(lambda value: torch.cat([value, others], 1)))


# ---------------------------------------------------------------------------------------------------- what is reported

Rows = dict[str, list[dict[str, Any]]]


def _outcome(settings: Settings, rows: Rows, epochs: int) -> Outcome:
    seeds = len(rows["plain"])
    size = "Full size" if settings.size == "full" else "Reduced"
    metrics, explanations = {"mean_ratio": "mean_ratio", "accuracy": "accuracy"}, {"last_ratio": "last_ratio"}
    return Outcome(
        title="Two features that say the same: a penalty frees the model from one",
        question="Which attributions, once penalised, make a model stop using a feature?",
        reduction=f"{size}: {seeds} seeds, {epochs} epochs (the paper shows one training of 200 epochs).",
        data={
            "name": "two equal binary features",
            "source": "made as published",
            "kind": "table",
            "rows": ROWS,
            "features": 2,
            "label": "the first feature",
            "task": "classification",
            "split": {"train": ROWS, "test": ROWS},
        },
        runs={arm: run_entry(found, metrics, explanations, title=ARMS[arm].title) for arm, found in rows.items()},
        comparison={
            "mean_ratio": {
                **_paired(rows, "gradient", "mean_ratio").as_dict(),
                "run": "eg1",
                "against": "gradient",
                "higher_is_better": False,
            }
        },
        claims=_claims(rows),
        notes=_NOTES,
        figures={"curves": _curves(rows, epochs), "tables": [_table(rows)]},
    )


_NOTES = [
    "Weights (10, 10), bias -6, cross-entropy plus the mean absolute attribution of the second feature, Adam with "
    "learning rate 0.01, batches of 64, as in the authors' notebook. There, what is left over of an epoch is dropped; "
    "here it is a batch of 40.",
    "mean_ratio is the effect of the second feature over that of the first, averaged over all epochs: the area under "
    "the paper's curve. The article's table gives a 'convergence time' without a definition; this comes near it.",
    "The published integrated gradients average over steps that include both ends with equal weight; ours give the "
    "ends half of it (with two steps that is the same).",
    "accuracy is that on test rows whose features are independent, the first being the label.",
]


def _paired(rows: Rows, against: str, key: str, arm: str = "eg1") -> Any:
    return compare([row[key] for row in rows[against]], [row[key] for row in rows[arm]])


def _claims(rows: Rows) -> list[Claim]:
    epochs = over(rows["eg1"], "epochs")
    removed = sum(row["removed"] for row in rows["eg1"])
    claims = [
        Claim(
            "Expected gradients with k = 1 remove the dependency on the second feature",
            "within 75 epochs",
            f"in {removed} of {len(rows['eg1'])} trainings, after {epochs['mean']:.0f} epochs "
            f"({epochs['low']:.0f} to {epochs['high']:.0f})",
            removed == len(rows["eg1"]) and epochs["mean"] <= 75,
        )
    ]
    for arm in ("gradient", "log_gradient", "ig2", "ig4", "ig4_gauss"):
        found, means = _paired(rows, arm, "mean_ratio"), [over(rows[a], "mean_ratio")["mean"] for a in ("eg1", arm)]
        faster = shown(found)
        paper = PAPER_TIME.get(arm) or (PAPER_TIME["ig"] if arm.startswith("ig") else None)
        claims.append(
            Claim(
                f"They do so faster than: {ARMS[arm].title}",
                "faster (figure)" if paper is None else f"convergence time {PAPER_TIME['eg1']:.3f} against {paper:.3f}",
                f"mean ratio {means[0]:.3f} against {means[1]:.3f}, "
                f"removed in {sum(row['removed'] for row in rows[arm])} of {len(rows[arm])} trainings",
                None if faster is None else not faster,
            )
        )
    return [*claims, _calls_claim(rows)]


def _calls_claim(rows: Rows) -> Claim:
    calls = {k: [k * row["epochs"] for row in rows[f"eg{k}"]] for k in range(1, 6)}
    told = ", ".join(f"{np.mean(calls[k]):.0f}" for k in calls)
    more = [shown(compare(calls[1], calls[k])) for k in range(2, 6)]
    verdict = True if all(more) else False if False in more else None
    return Claim(
        "More draws an example (k = 2 to 5) need more gradients in all than k = 1",
        "more (figure)",
        f"epochs times k until removed: {told} for k = 1 to 5",
        verdict,
    )


def _curves(rows: Rows, epochs: int) -> list[dict[str, Any]]:
    def curve(title: str, arms: list[str]) -> dict[str, Any]:
        series = []
        for arm in arms:
            points = [over([{"ratio": row["ratios"][at]} for row in rows[arm]], "ratio") for at in range(epochs)]
            band = {key: [point[key] for point in points] for key in ("low", "high")}
            x, y = list(range(1, epochs + 1)), [point["mean"] for point in points]
            series.append({"name": arm, "x": x, "y": y, **band})
        return {
            "title": title,
            "x_label": "epoch",
            "y_label": "effect of the second feature / the first",
            "series": series,
        }

    others = [arm for arm in ARMS if not arm.startswith("eg")]
    return [
        curve("Expected gradients by number of draws (supplement, figure 3)", [f"eg{k}" for k in range(1, 6)]),
        curve("Expected gradients against other attributions (supplement, figure 4)", ["eg1", *others]),
    ]


def _table(rows: Rows) -> dict[str, Any]:
    body = []
    for arm, found in rows.items():
        time = over(found, "mean_ratio")
        epochs = [row["epochs"] for row in found if row["removed"]]
        paper = PAPER_TIME.get(arm)
        body.append(
            [
                ARMS[arm].title,
                time["mean"],
                time["low"],
                time["high"],
                paper,
                f"{len(epochs)} of {len(found)}",
                float(np.mean(epochs)) if epochs else None,
                float(np.mean(epochs)) * ARMS[arm].calls if epochs and ARMS[arm].calls else None,
            ]
        )
    columns = [
        "Penalty",
        "Mean ratio",
        "95% from",
        "to",
        "Paper's time",
        "Removed",
        "Epochs until then",
        "Gradients a row",
    ]
    return {"title": "How fast the second feature stops mattering.", "columns": columns, "rows": body}
