"""Curvature penalties in two dimensions (Ross 2018, figure 4.2): a Hessian penalty against one on the gradient.

A network with ten hidden units learns a wavy boundary in the plane, plain, with double backpropagation, and with the
squared Frobenius norm of the Hessian of its log-odds, each penalty at several strengths, to where it outweighs the
cross-entropy many times. The thesis shows two pictures; here are numbers for what it reads off them: how wide the
band of middling log-odds is, how flat they are, and what a penalty that is far too strong does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import rightly as rt
from rightly.evaluation import compare
from rightly.workflows.reproduce import Claim, Outcome, Settings, adjusted, over, run_entry, shown

ROWS, BATCH, RATE, HIDDEN = 500, 100, 1e-2, 10
WEIGHTS = {"gradient": [0.1, 1.0, 10.0, 100.0], "hessian": [0.001, 0.01, 0.1, 1.0, 10.0]}
TITLES = {"plain": "No penalty", "gradient": "Gradient penalty", "hessian": "Hessian penalty"}
#: of the pictures, and of all measurements on the plane
GRID = 41
#: a strength is chosen among those whose validation accuracy is within this of the arm's best
CLOSE = 0.01


def run(settings: Settings) -> Outcome:
    """Every arm at every strength, several seeds."""
    seeds = settings.sized(smoke=2, reduced=5, full=20)
    epochs = settings.sized(smoke=2, reduced=100, full=300)
    weights = settings.sized(smoke={arm: [w[1]] for arm, w in WEIGHTS.items()}, reduced=WEIGHTS, full=WEIGHTS)
    arms = [("plain", 0.0), *((arm, weight) for arm in weights for weight in weights[arm])]
    keys = [
        {"arm": arm, "weight": weight, "seed": settings.seed + seed} for seed in range(seeds) for arm, weight in arms
    ]
    rows = settings.trials.run("trainings", keys, lambda key: train(key, epochs))
    return _outcome(settings, rows, epochs)


def boundary(x: Tensor) -> Tensor:
    """Above zero on one side: (N, 2) -> (N,)."""
    return x[:, 1] - 0.4 * (4 * x[:, 0]).sin()


def points(count: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Evenly over [-1, 1]^2, with their class (N, 1)."""
    x = 2 * torch.rand(count, 2, generator=draws) - 1
    return x, (boundary(x) > 0).float()[:, None]


def plane() -> Tensor:
    """A grid (GRID * GRID, 2) over the square, row by row from the top."""
    ticks = torch.linspace(-1, 1, GRID)
    across, up = torch.meshgrid(ticks.flip(0), ticks, indexing="ij")
    return torch.stack([up.flatten(), across.flatten()], 1)


def train(key: dict[str, Any], epochs: int) -> dict[str, Any]:
    """One network, and what its log-odds look like on the plane."""
    draws = torch.Generator().manual_seed(key["seed"])
    train, validation, test = (points(count, draws) for count in (ROWS, ROWS, 4 * ROWS))
    with torch.random.fork_rng():
        torch.manual_seed(key["seed"])
        model = nn.Sequential(nn.Linear(2, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1))
    terms = []
    if key["arm"] == "gradient":
        terms = [rt.recipes.double_backpropagation(key["weight"])]
    if key["arm"] == "hessian":
        terms = [rt.recipes.hessian_penalty(key["weight"])]
    # the run's engine has no say: on a smooth network, and twice over, only double backward is exact
    objective = rt.Objective(model, binary_cross_entropy_with_logits, terms, seed=key["seed"])
    found = rt.fit(objective, train, epochs=epochs, batch_size=BATCH, lr=RATE, seed=key["seed"])
    last = found.history[-1]
    grid = plane()
    labels = torch.ones(len(grid), dtype=torch.long)
    with torch.no_grad():
        odds = model(grid)[:, 0]
    slopes = rt.Gradient()(model, grid, labels).attributions
    curves = rt.Hessian()(model, grid, labels).attributions
    return {
        "validation": _accuracy(model, validation),
        "test": _accuracy(model, test),
        "outweighs": sum(last["terms"].values()) / last["task"],
        "wide": float((odds.abs() < 2.5).double().mean()),
        "slope": float(slopes.norm(dim=1).mean()),
        "curvature": float(curves.square().flatten(1).sum(1).sqrt().mean()),
        "odds": [[round(float(value), 3) for value in line] for line in odds.reshape(GRID, GRID)],
    }


@torch.no_grad()
def _accuracy(model: nn.Module, part: tuple[Tensor, Tensor]) -> float:
    return float(((model(part[0]) > 0) == (part[1] > 0.5)).double().mean())


# ---------------------------------------------------------------------------------------------------- what is reported

Rows = list[dict[str, Any]]


def _at(rows: Rows, arm: str, weight: float) -> Rows:
    return [row for row in rows if row["arm"] == arm and row["weight"] == weight]


def _strengths(rows: Rows, arm: str) -> list[float]:
    return sorted({row["weight"] for row in rows if row["arm"] == arm})


def _chosen(rows: Rows, arm: str) -> float:
    """The strongest whose validation accuracy is within a point of the arm's best."""
    found = {weight: over(_at(rows, arm, weight), "validation")["mean"] for weight in _strengths(rows, arm)}
    return max(weight for weight, value in found.items() if value >= max(found.values()) - CLOSE)


def _outcome(settings: Settings, rows: Rows, epochs: int) -> Outcome:
    chosen = {arm: _at(rows, arm, _chosen(rows, arm)) for arm in TITLES}
    strongest = {arm: _at(rows, arm, _strengths(rows, arm)[-1]) for arm in WEIGHTS}
    metrics, explanations = {"accuracy": "test"}, {"wide": "wide", "slope": "slope", "curvature": "curvature"}
    return Outcome(
        title="Hessian penalties in the plane",
        question="Does penalising curvature make a boundary wider and flatter, and spare it what strong gradient "
        "penalties do?",
        reduction=f"{'Full size' if settings.size == 'full' else 'Reduced'}: {len(chosen['plain'])} seeds, {epochs} "
        "epochs (the thesis shows one pair of pictures and gives no sizes).",
        data={
            "name": "a wave in the plane",
            "source": "made for this; the thesis does not give its own",
            "kind": "table",
            "rows": ROWS,
            "features": 2,
            "label": "above or below 0.4 sin(4 x)",
            "task": "classification",
            "split": {"train": ROWS, "validation": ROWS, "test": 4 * ROWS},
        },
        runs={
            arm: run_entry(found, metrics, explanations, weight=found[0]["weight"] or None, title=TITLES[arm])
            for arm, found in chosen.items()
        },
        comparison={
            "accuracy": {
                **_paired(chosen["gradient"], chosen["hessian"], "test").as_dict(),
                "run": "hessian",
                "against": "gradient",
            }
        },
        claims=_claims(chosen, strongest),
        notes=_NOTES,
        figures={"maps": _maps(chosen, strongest), "tables": [_table(rows)]},
    )


_NOTES = [
    "Ten hidden units as in the thesis, with tanh; data, strengths, optimiser (Adam, 0.01) and lengths are ours.",
    "The gradient penalty is double backpropagation, as in the thesis' chapter 3; the Hessian is that of the log-odds, "
    "which its pictures show. The thesis does not say whose derivatives it penalised.",
    "The pictures show log-odds over the square, divided by 5, at the strengths chosen (the strongest within a point "
    "of the best validation accuracy), and at the strongest of all.",
]


def _paired(first: Rows, second: Rows, key: str) -> Any:
    return compare([row[key] for row in first], [row[key] for row in second])


def _claims(chosen: dict[str, Rows], strongest: dict[str, Rows]) -> list[Claim]:
    picture = "a pair of pictures (figure 4.2)"
    # where it is judged, what, against whom, and whether it should be higher
    asked = [
        (chosen, "wide", "gradient", True),
        (chosen, "curvature", "gradient", False),
        (chosen, "curvature", "plain", False),
        (strongest, "test", "gradient", True),
    ]
    tests = adjusted([_paired(rows[against], rows["hessian"], key) for rows, key, against, _ in asked])
    judged = []
    for (rows, key, against, higher), test in zip(asked, tests, strict=True):
        means = [over(rows[arm], key)["mean"] for arm in ("hessian", against)]
        verdict = shown(test)
        holds = verdict if verdict is None or higher else not verdict
        p = "no p-value" if test.p is None else f"corrected p = {test.p:.2g}"
        judged.append((f"{means[0]:.3f} against {means[1]:.3f} ({p})", holds))
    wide, flat, plain, strong = judged
    outweighs = [over(strongest[arm], "outweighs")["mean"] for arm in ("hessian", "gradient")]
    return [
        Claim("The Hessian penalty's band is wider than the gradient's (share of |log-odds| < 2.5)", picture, *wide),
        Claim("and flatter (mean norm of the Hessian)", picture, *flat),
        Claim("It is flatter than without a penalty", picture, *plain),
        Claim(
            "Much too strong a Hessian penalty does less harm than such a gradient penalty (test accuracy)",
            "more sensibly even when the penalty is much larger than the cross-entropy",
            f"{strong[0]}; at the end the penalties are {outweighs[0]:.2g} and {outweighs[1]:.2g} cross-entropies",
            # training may end with a penalty that is small because the network has given up
            strong[1] if min(outweighs) > 1 else None,
        ),
    ]


def _maps(chosen: dict[str, Rows], strongest: dict[str, Rows]) -> list[dict[str, Any]]:
    """The first seed's log-odds beside the true classes."""
    true = (boundary(plane()) > 0).int().reshape(GRID, GRID).tolist()

    def picture(found: dict[str, Rows]) -> dict[str, Any]:
        scaled = {arm: [[value / 5 for value in line] for line in rows[0]["odds"]] for arm, rows in found.items()}
        return {"image": true, "label": 1, "runs": {arm: {"map": values} for arm, values in scaled.items()}}

    return [picture(chosen), picture({"plain": chosen["plain"], **strongest})]


def _table(rows: Rows) -> dict[str, Any]:
    keys = ["validation", "test", "outweighs", "wide", "slope", "curvature"]
    body = [
        [TITLES[arm], weight, *(over(_at(rows, arm, weight), key)["mean"] for key in keys)]
        for arm in TITLES
        for weight in _strengths(rows, arm)
    ]
    columns = ["Penalty", "Weight", "Validation", "Test", "Penalty / loss", "|log-odds| < 2.5", "Slope", "Curvature"]
    return {"title": "All strengths, means over seeds.", "columns": columns, "rows": body}
