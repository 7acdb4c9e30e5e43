"""Two moons among features of noise (Weinberger et al. 2020): a prior that learns from meta-features which ones matter.

A network separates two half moons from 200 rows, with N(0, 1) nuisance features beside the two that tell. All it is
told about a feature are its mean and deviation on the training rows. A deep attribution prior learns from these, along
with the network, how much a feature is expected to matter; it is compared with no prior and with priors of sparsity.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import rightly as rt
from rightly.evaluation import adjust, compare
from rightly.workflows.reproduce import Claim, Outcome, Settings, over, run_entry

TRAIN, TEST = 200, 1000
NOISE = 0.1
ARMS = {
    "plain": "No prior",
    "dapr": "Deep attribution prior",
    "l1": "L1 of expected gradients",
    "gini": "Gini of expected gradients",
}
#: tried for each prior; the deep one's is times 1 / p, which makes it the paper's mean, so that 1 is the published one
WEIGHTS = {"plain": [0.0], "dapr": [0.1, 1.0, 10.0], "l1": [0.01, 0.1, 1.0], "gini": [0.1, 1.0, 10.0]}


def run(settings: Settings) -> Outcome:
    """Every arm with every number of nuisance features and every draw of the data."""
    counts = settings.sized(smoke=[6, 12], reduced=[50, 250], full=[50, 100, 250, 500, 1000])
    repeats = settings.sized(smoke=2, reduced=5, full=5)
    epochs = settings.sized(smoke=3, reduced=150, full=1000)
    keys = [
        {"arm": arm, "nuisance": count, "seed": settings.seed + seed}
        for count in counts
        for seed in range(repeats)
        for arm in ARMS
    ]
    rows = settings.trials.run("trainings", keys, lambda key: train(key, epochs, settings.engine))
    return _outcome(settings, rows, counts, epochs)


def moons(rows: int, nuisance: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Features (rows, 2 + nuisance), the telling ones first, and the half moon (rows,) that each row is from."""
    labels = torch.arange(rows) % 2
    turn = math.pi * torch.rand(rows, generator=draws)
    upper = torch.stack([turn.cos(), turn.sin()], 1)
    lower = torch.stack([1 - turn.cos(), 0.5 - turn.sin()], 1)
    telling = torch.where(labels[:, None] == 0, upper, lower) + NOISE * torch.randn(rows, 2, generator=draws)
    return torch.cat([telling, torch.randn(rows, nuisance, generator=draws)], 1), labels


def term(arm: str, weight: float, features: Tensor, engine: Any) -> list[rt.Term]:
    """The arm's prior on expected gradients of the label's logit, one draw an example."""
    if arm == "plain":
        return []
    prior: Any = {"l1": rt.priors.L1, "gini": rt.priors.Sparsity}.get(arm)
    if prior is None:
        weight /= features.shape[1]
        prior = rt.priors.MetaFeatures(torch.stack([features.std(0), features.mean(0)], 1))
    else:
        prior = prior()
    return [rt.Term(rt.ExpectedGradients(), prior, weight, "prior", engine=engine)]


def train(key: dict[str, Any], epochs: int, engine: Any) -> dict[str, Any]:
    """A training for every weight; the one with the lowest loss on validation rows is tested."""
    draws = torch.Generator().manual_seed(key["seed"])
    data, valid, (x, y) = (moons(rows, key["nuisance"], draws) for rows in (TRAIN, TRAIN, TEST))
    size = data[0].shape[1]
    best: dict[str, Any] = {}
    lowest = math.inf
    for weight in WEIGHTS[key["arm"]]:
        model = rt.models.mlp(size, [max(size // 4, 8), max(size // 8, 4)], 2, seed=key["seed"])
        terms = term(key["arm"], weight, data[0], engine)
        objective = rt.Objective(model, cross_entropy, terms, seed=key["seed"])
        settings = {"epochs": epochs, "batch_size": 50, "lr": 1e-3, "patience": 100, "seed": key["seed"]}
        found = rt.fit(objective, data, valid, **settings)
        value = float("inf") if found.best_value is None else found.best_value
        if best and value >= lowest:
            continue
        lowest = value
        with torch.no_grad():
            right = (model(x).argmax(1) == y).double().mean()
        sizes = (
            rt.attribute(
                model,
                x[:200],
                "expected_gradients",
                reference=rt.references.Sample(data[0]),
                n_samples=20,
                target=y[:200],
            )
            .attributions.abs()
            .mean(0)
        )
        best = {
            "accuracy": float(right),
            "share": float(sizes[:2].sum() / sizes.sum()),
            "weight": weight,
            "engines": found.engines,
        }
        if key["arm"] == "dapr":
            expected = terms[0].prior.expected().abs()
            best["expected_telling"] = float(expected[:2].mean())
            best["expected_nuisance"] = float(expected[2:].mean())
    return best


# ---------------------------------------------------------------------------------------------------- what is reported

Rows = list[dict[str, Any]]


def _of(rows: Rows, arm: str, count: int) -> Rows:
    return [row for row in rows if row["arm"] == arm and row["nuisance"] == count]


def _outcome(settings: Settings, rows: Rows, counts: list[int], epochs: int) -> Outcome:
    most = counts[-1]
    repeats = len(_of(rows, "plain", most))
    metrics, explanations = {"accuracy": "accuracy"}, {"telling_share": "share"}
    return Outcome(
        title="Two moons among noise: a prior that learns from meta-features",
        question="Does a model that learns what kinds of features matter separate the moons where others drown?",
        reduction=(
            f"{'As published' if settings.size == 'full' else 'Reduced'}: {', '.join(map(str, counts))} nuisance "
            f"features (the paper has 50 to 1000), {repeats} draws of the data (the paper 5), at most {epochs} epochs."
        ),
        data={
            "name": "two moons with nuisance features",
            "source": "made as published",
            "kind": "table",
            "rows": 2 * TRAIN + TEST,
            "features": 2 + most,
            "label": "half moon",
            "task": "classification",
            "split": {"train": TRAIN, "validation": TRAIN, "test": TEST},
        },
        runs={
            arm: run_entry(_of(rows, arm, most), metrics, explanations, title=f"{title}, {most} nuisance features")
            for arm, title in ARMS.items()
        },
        comparison={
            "accuracy": {
                **_paired(rows, "plain", most).as_dict(),
                "run": "dapr",
                "against": "plain",
                "higher_is_better": True,
            }
        },
        claims=_claims(rows, counts),
        notes=_NOTES,
        figures={"tables": [_table(rows, counts)]},
    )


_NOTES = [
    "Networks of layers p/4 and p/8, Adam with learning rate 0.001, batches of 50, patience 100, the best validated "
    "epoch kept. The authors' code has Adam 0.0005 with weight decay, patience on accuracy, and no weight to choose.",
    "Meta-features are mean and deviation on the training rows, the predictor is linear, one expected-gradients draw "
    "an example with references from the batch; a weight of 1 is the published sum of loss and mean distance.",
    "Weights are those of the lowest validation loss out of three for each prior.",
    "The half moons are those of the usual generator, with noise 0.1, which the paper does not give.",
]


def _paired(rows: Rows, against: str, count: int) -> Any:
    pairs = [_of(rows, arm, count) for arm in (against, "dapr")]
    return compare(*([row["accuracy"] for row in part] for part in pairs))


def _claims(rows: Rows, counts: list[int]) -> list[Claim]:
    others = [arm for arm in ARMS if arm != "dapr"]
    found = {(arm, count): _paired(rows, arm, count) for arm in others for count in counts}
    adjusted = dict(zip(found, adjust([1.0 if c.p is None else c.p for c in found.values()]), strict=True))
    claims = []
    for (arm, count), paired in found.items():
        means = [over(_of(rows, one, count), "accuracy")["mean"] for one in ("dapr", arm)]
        p = adjusted[arm, count]
        claims.append(
            Claim(
                f"With {count} nuisance features it is more accurate than: {ARMS[arm]}",
                "more accurate (figure)",
                f"{means[0]:.3f} against {means[1]:.3f}, p = {p:.2g} (adjusted)",
                paired.difference > 0 if p < 0.05 else None,
            )
        )
    learned = [row for row in rows if row["arm"] == "dapr"]
    more = [row["expected_telling"] > row["expected_nuisance"] for row in learned]
    claims.append(
        Claim(
            "What the predictor expects of the telling features is larger than of nuisance",
            "the predictor tells which features matter",
            f"in {sum(more)} of {len(more)} trainings",
            all(more) if all(more) or not any(more) else None,
        )
    )
    return claims


def _table(rows: Rows, counts: list[int]) -> dict[str, Any]:
    body = []
    for count in counts:
        for arm, title in ARMS.items():
            part = _of(rows, arm, count)
            accuracy, share = over(part, "accuracy"), over(part, "share")
            weight = float(np.median([row["weight"] for row in part]))
            body.append([count, title, accuracy["mean"], accuracy["low"], accuracy["high"], share["mean"], weight])
    columns = ["Nuisance", "Prior", "Test accuracy", "95% from", "to", "Share of the telling two", "Median weight"]
    return {"title": "By number of nuisance features.", "columns": columns, "rows": body}
