"""TRIM frequency (Singh, Ha, Yu 2022, table 2): which attribution finds the one frequency that labels are made of.

Every data set is white noise whose label says whether the strength of one frequency, another for each data set, is
above its median. A network learns each, all of a group at once; then every method scores all frequencies of test
points. The paper's error is the share of points where the highest score of class 1 is not at the true frequency. It
depends on the sign of the scores, so that three more definitions stand beside it.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

import rightly as rt
from rightly.evaluation import compare, interval
from rightly.workflows.reproduce import Claim, Outcome, Settings, run_entry

LENGTH, WIDTH, LAYERS = 100, 100, 3
METHODS = {
    "cd": "Contextual decomposition",
    "ig": "Integrated gradients",
    "eg": "Expected gradients",
    "gradient": "Gradient",
    "gradient_x_input": "Gradient times input",
    "occlusion": "Occlusion",
}
ERRORS = {
    "signed": "highest score of class 1 (the paper's)",
    "signed_1": "the same, points of class 1 only",
    "signed_0": "the same, points of class 0 only",
    "absolute": "largest absolute score",
    "set": "largest mean absolute score of the data set",
}
#: table 2, in percent; SHAP there is captum's GradientShap
PAPER = {"cd": "0.4 ± 0.28", "ig": "4.2 ± 0.88", "eg": "4.0 ± 0.90 (SHAP)"}


def run(settings: Settings) -> Outcome:
    """Groups of networks, then every method on every network."""
    groups = settings.sized(smoke=2, reduced=6, full=20)
    size = settings.sized(smoke=2, reduced=5, full=25)
    steps = settings.sized(smoke=5, reduced=1000, full=1500)
    points = settings.sized(smoke=10, reduced=100, full=500)
    rows = settings.trials.run(
        "groups",
        [{"group": settings.seed * 1000 + group} for group in range(groups)],
        lambda key: trial(key["group"], size, steps, points),
    )
    nets = [{**net, "seconds": row["seconds"] / len(row["nets"])} for row in rows for net in row["nets"]]
    return _outcome(settings, nets, steps, points)


class Many(nn.Module):
    """Equal networks, each with weights of its own, trained as one: (D, B, n) -> (D, B)."""

    def __init__(self, count: int, draws: torch.Generator) -> None:
        super().__init__()
        sizes = [LENGTH, *[WIDTH] * (LAYERS - 1), 1]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for before, after in pairwise(sizes):
            spread = 1 / math.sqrt(before)
            self.weights.append((2 * torch.rand(count, before, after, generator=draws) - 1) * spread)
            self.biases.append((2 * torch.rand(count, 1, after, generator=draws) - 1) * spread)

    def forward(self, x: Tensor) -> Tensor:
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x.relu() if number else x, weight)
        return x[..., 0]

    def single(self, which: int) -> nn.Sequential:
        """One of them, as a network of its own."""
        layers: list[nn.Module] = []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            layer = nn.Linear(weight.shape[1], weight.shape[2])
            with torch.no_grad():
                layer.weight.copy_(weight[which].T)
                layer.bias.copy_(bias[which, 0])
            layers += [layer, nn.ReLU()]
        return nn.Sequential(*layers[:-1]).eval()


def trial(group: int, size: int, steps: int, points: int) -> dict[str, Any]:
    """Train a group on fresh draws at every step, and score every network's test points."""
    draws = torch.Generator().manual_seed(group)
    space = rt.spaces.Fourier()
    truth = torch.randint(1, LENGTH // 2, (size,), generator=draws)
    model = Many(size, draws)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        x = torch.randn(size, 256, LENGTH, generator=draws)
        labels = _labels(space, x, truth)
        loss = nn.functional.binary_cross_entropy_with_logits(model(x), labels, reduction="none").mean(1).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    x = torch.randn(size, points, LENGTH, generator=draws)
    labels = _labels(space, x, truth)
    with torch.no_grad():
        right = ((model(x) > 0) == labels.bool()).float().mean(1)
    nets = []
    for which in range(size):
        scores = scored(model.single(which), x[which], space)
        errors = {
            f"{method}_{kind}": value
            for method, found in scores.items()
            for kind, value in wrong(found, int(truth[which]), labels[which]).items()
        }
        nets.append({"seed": group * 100 + which, "accuracy": float(right[which]), **errors})
    return {"nets": nets}


def _labels(space: Any, x: Tensor, truth: Tensor) -> Tensor:
    """Whether cosine and sine of the frequency together are above their median: squares of two normal draws."""
    coordinates = space.encode(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    pair = torch.stack([2 * truth - 1, 2 * truth], 1)[:, None].expand(-1, x.shape[1], 2)
    return (coordinates.gather(2, pair).square().sum(2) > 2 * math.log(2)).float()


def scored(model: nn.Module, x: Tensor, space: Any) -> dict[str, Tensor]:
    """Every method's score of every frequency for class 1: {method: (points, LENGTH / 2 + 1)}."""
    others = rt.references.Sample(torch.randn(200, LENGTH, generator=torch.Generator().manual_seed(1)))
    regions = space.bands((LENGTH,), [(k - 0.5) / LENGTH if k else 0.0 for k in range(LENGTH // 2 + 2)])
    methods = {
        "cd": rt.ContextualDecomposition(regions, space=space),
        "ig": rt.IntegratedGradients(n_steps=20, space=space),
        "eg": rt.ExpectedGradients(others, n_samples=50, space=space),
        "gradient": rt.Gradient(space=space),
        "gradient_x_input": rt.InputXGradient(space=space),
        "occlusion": rt.Occlusion(space=space),
    }
    found = {name: method(model, x, diagnostics=False).attributions for name, method in methods.items()}
    return {name: phi if name == "cd" else rt.functional.over_regions(phi, regions) for name, phi in found.items()}


def wrong(scores: Tensor, truth: int, labels: Tensor) -> dict[str, float | None]:
    """The error in every definition, a share between 0 and 1; None for a class without points."""
    signed = (scores.argmax(1) != truth).double()
    found: dict[str, float | None] = {
        "signed": float(signed.mean()),
        "absolute": float((scores.abs().argmax(1) != truth).double().mean()),
        "set": float(scores.abs().mean(0).argmax() != truth),
    }
    for label in (0, 1):
        own = signed[labels == label]
        found[f"signed_{label}"] = float(own.mean()) if len(own) else None
    return found


# ---------------------------------------------------------------------------------------------------- what is reported

Rows = list[dict[str, Any]]


def _outcome(settings: Settings, nets: Rows, steps: int, points: int) -> Outcome:
    told = f"{len(nets)} data sets, {steps} steps of 256 fresh draws each, {points} test points"
    return Outcome(
        title="The one frequency that decides",
        question="Which attribution gives the true frequency the highest score?",
        reduction=f"{told}." if settings.size == "full" else f"Reduced: {told} (full: 500, 1500, 500).",
        data={
            "name": "White noise of 100 steps",
            "source": "generated",
            "kind": "custom",
            "rows": points,
            "features": LENGTH,
            "label": "whether the strength of one frequency is above its median",
            "task": "classification",
            "split": {"test": points},
            "notes": [f"{len(nets)} data sets, each with a frequency of its own."],
        },
        runs={("plain" if method == "cd" else method): _run(method, nets) for method in METHODS},
        comparison={
            "error": {
                **_paired(nets, "ig").as_dict(),
                "run": "plain",
                "against": "ig",
                "higher_is_better": False,
            }
        },
        claims=_claims(nets),
        notes=_NOTES,
        figures={"tables": [_table(nets)]},
    )


_NOTES = [
    "The paper's code trains one network and reports 500 test points of it as 500 data sets; here the data sets are "
    "different ones, each with a frequency and a network of its own.",
    "Coordinates are real and orthonormal; a frequency's score is that of its cosine and sine together: as one region "
    "for contextual decomposition, as a sum for the others.",
    "Scores are of the network's one logit, the score of class 1. Zero is the reference of every method but expected "
    "gradients, which draw from the data. DeepLift is left out.",
    "Points of class 0 have little of the frequency, and so a true score near zero where zero is the reference: that "
    "is where the errors lie. Against data as references it is below zero.",
]


def _run(method: str, nets: Rows) -> dict[str, Any]:
    metrics = {"error": f"{method}_signed", "error_absolute": f"{method}_absolute", "error_set": f"{method}_set"}
    entry = run_entry(nets, {**metrics, "accuracy": "accuracy"}, weight=None)
    entry["seconds"] /= len(METHODS)
    return {**entry, "title": METHODS[method]}


def _paired(nets: Rows, against: str, kind: str = "signed") -> Any:
    return compare([net[f"{against}_{kind}"] for net in nets], [net[f"cd_{kind}"] for net in nets])


def _percent(nets: Rows, key: str) -> Any:
    return interval([100 * net[key] for net in nets if net[key] is not None])


def _claims(nets: Rows) -> list[Claim]:
    cd = _percent(nets, "cd_signed")
    found = [
        Claim(
            "Contextual decomposition errs at most 1 % of the time (the paper's definition)",
            f"{PAPER['cd']} %",
            f"{cd.mean:.2f} % ({cd.low:.2f} to {cd.high:.2f} over {len(nets)} data sets)",
            cd.mean <= 1,
        )
    ]
    for other in ("ig", "eg", "gradient_x_input", "occlusion"):
        for kind, word in (("signed", "the paper's definition"), ("absolute", "by absolute scores")):
            paired = _paired(nets, other, kind)
            ours, theirs = (_percent(nets, f"{method}_{kind}").mean for method in ("cd", other))
            claim = f"It errs less often than {METHODS[other].lower()}, {word}"
            shown = None if paired.p is None or paired.p >= 0.05 else paired.difference < 0
            paper = f"{PAPER['cd']} against {PAPER.get(other, 'not given')}" if kind == "signed" else "not given"
            found.append(Claim(claim, paper, f"{ours:.2f} % against {theirs:.2f} %", shown))
    return found


def _table(nets: Rows) -> dict[str, Any]:
    body = [[METHODS[method], *(_percent(nets, f"{method}_{kind}").mean for kind in ERRORS)] for method in METHODS]
    return {
        "title": "Error in percent, by definition (table 2).",
        "columns": ["Method", *ERRORS.values()],
        "rows": body,
    }
