"""Squares (Ross 2018, figure 4.3): two models with different conceptual reasons, found in the space of a learned code.

Pictures of a white square in which a light background goes with a large square. An autoencoder that tells background,
size and place apart is prepended to a network with one hidden layer, its weights fixed; two such networks trained at
once, with a penalty on the cosine of their gradients in the code, have to use a concept each. What they use is read off
test pictures where only one of the two concepts tells the class.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import rightly as rt
from rightly.evaluation import compare
from rightly.workflows.reproduce import Claim, Outcome, Settings, over, run_entry

SIDE, HIDDEN, RATE, BATCH, WEIGHT = 16, 100, 1e-2, 256, 1.0
ARMS = {
    "plain": "Plain, from pixels",
    "plain_code": "Plain, from the code",
    "pixels": "At once, orthogonal in pixels",
    "code": "At once, orthogonal in the code",
}
NAMES = ("background", "size")


def run(settings: Settings) -> Outcome:
    """Four ways to two models, several seeds."""
    count = settings.sized(smoke=2, reduced=5, full=20)
    epochs = settings.sized(smoke=1, reduced=30, full=60)
    rows = settings.sized(smoke=300, reduced=4000, full=10_000)
    # the first two settled the rate
    seeds = range(settings.seed + 2, settings.seed + 2 + count)

    @cache
    def coder(seed: int) -> Autoencoder:
        coder.cache_clear()  # one seed at a time
        return autoencoder(seed, rows, settings.sized(smoke=1, reduced=12, full=30))

    keys = [{"arm": arm, "seed": seed} for seed in seeds for arm in ARMS]
    found = settings.trials.run("latent-squares", keys, lambda key: train(key, coder(key["seed"]), rows, epochs))
    return _outcome({arm: [row for row in found if row["arm"] == arm] for arm in ARMS}, rows, epochs, count)


class Autoencoder(nn.Module):
    """Pictures (B, 1, 16, 16) -> (B, 256 + 4): the picture made again, and the code."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.encoder = nn.Sequential(
                nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten(),
                nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 4),
            )  # fmt: skip
            self.decoder = nn.Sequential(
                nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 512), nn.ReLU(), nn.Unflatten(1, (32, 4, 4)),
                nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 1, 4, 2, 1),
            )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        code = self.encoder(x)
        return torch.cat([self.decoder(code).flatten(1), code], 1)


def autoencoder(seed: int, rows: int, epochs: int) -> Autoencoder:
    """Trained on pictures in which the concepts are free, told what they are; then fixed."""
    free = rt.data.confounded_squares(10_000 + seed, rows=1, test_rows=rows, side=SIDE).alone.values()
    pictures = torch.cat([torch.from_numpy(part.inputs) for part in free])
    wanted = torch.cat([pictures.flatten(1), factors(pictures)], 1)

    def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        weights = torch.ones(outputs.shape[1])
        weights[SIDE**2 :] = 10.0
        return ((outputs - labels).square() @ weights).mean()

    model = Autoencoder(seed)
    rt.fit(rt.Objective(model, loss, seed=seed), (pictures, wanted), epochs=epochs, lr=2e-3, batch_size=128, seed=seed)
    return model.requires_grad_(False)


def factors(pictures: torch.Tensor) -> torch.Tensor:
    """Background, size, and place of the square, each over about -1 to 1: (B, 4)."""
    square = (pictures[:, 0] > 0.9).float()
    area, places = square.sum((1, 2)), torch.arange(SIDE) / SIDE
    down, right = (square.sum(2) @ places) / area, (square.sum(1) @ places) / area
    background, size = pictures.flatten(1).amin(1), area.sqrt() / SIDE
    return torch.stack([background * 4 - 1.4, size * 6 - 2, down * 3 - 1.4, right * 3 - 1.4], 1)


def train(key: dict[str, Any], coder: Autoencoder, rows: int, epochs: int) -> dict[str, Any]:
    """Two models and what they do where only one concept tells the class."""
    data = rt.data.confounded_squares(key["seed"], rows=rows, side=SIDE)
    coded = key["arm"] in ("plain_code", "code")

    def network(seed: int) -> nn.Module:
        head = rt.models.mlp(4 if coded else SIDE**2, (HIDDEN,), 2, seed=seed)
        return nn.Sequential(coder.encoder, head) if coded else head

    found = rt.find_another_explanation(
        network,
        cross_entropy,
        tuple(map(torch.from_numpy, data.train)),
        method="simultaneous",
        space=rt.spaces.Layer("0") if coded else None,
        weight=0.0 if key["arm"].startswith("plain") else WEIGHT,
        epochs=epochs,
        batch_size=BATCH,
        lr=RATE if coded else 1e-3,
        seed=key["seed"],
    )
    alone = [[_accuracy(model, data.alone[rule]) for rule in NAMES] for model in found.models]
    first = 0 if alone[0][0] + alone[1][1] >= alone[0][1] + alone[1][0] else 1
    pair = alone[first], alone[1 - first]
    with torch.no_grad():
        pictures = torch.from_numpy(data.test.inputs)
        error = (coder.encoder(pictures) - factors(pictures)).square().mean().sqrt()
    return {
        "accuracy": min(_accuracy(model, data.test) for model in found.models),
        "own": min(pair[0][0], pair[1][1]),
        "foreign": max(pair[0][1], pair[1][0]),
        "background": alone[0][0],
        "size": alone[0][1],
        "cosine": float(found.similarity[0, 1]),
        "code_error": float(error),
    }


def _accuracy(model: nn.Module, part: Any) -> float:
    with torch.no_grad():
        return float((model(torch.from_numpy(part.inputs)).argmax(1) == torch.from_numpy(part.labels)).double().mean())


Rows = dict[str, list[dict[str, Any]]]


def _outcome(rows: Rows, count: int, epochs: int, seeds: int) -> Outcome:
    metrics = {"accuracy": "accuracy", "own_concept": "own", "other_concept": "foreign"}
    runs = {
        arm: run_entry(
            found, metrics, {"cosine": "cosine"}, weight=WEIGHT if arm in ("pixels", "code") else None, title=ARMS[arm]
        )
        for arm, found in rows.items()
    }
    own, foreign = ({arm: [row[key] for row in found] for arm, found in rows.items()} for key in ("own", "foreign"))
    pair = {"run": "code", "against": "pixels"}
    return Outcome(
        title="Squares: two concepts, two models",
        question="Can two networks be made to use different concepts that always go together in training?",
        reduction=f"{count} pictures of {SIDE} x {SIDE}, {epochs} epochs, {seeds} seeds (the thesis shows one).",
        data={
            "name": "Squares",
            "source": "generated after Ross 2018, section 4.2",
            "kind": "images",
            "rows": count,
            "task": "classification",
            "split": {"train": count, "test": 2000},
        },
        runs=runs,
        comparison={
            "own_concept": {**compare(own["pixels"], own["code"]).as_dict(), **pair},
            "other_concept": {
                **compare(foreign["pixels"], foreign["code"]).as_dict(),
                **pair,
                "higher_is_better": False,
            },
        },
        claims=_claims(rows),
        notes=_NOTES,
        figures={"tables": [_table(rows)]},
    )


_NOTES = [
    "The thesis gives no sizes. Here: backgrounds 0 to 0.25 or 0.45 to 0.7, squares of 2 to 4 or 6 to 8 pixels a side, "
    "one hidden layer of 100, an autoencoder with a code of 4.",
    "As in the thesis the code is disentangled with supervision: the autoencoder is told background, size and place of "
    "pictures in which these go together in no way. It never sees a class.",
    "The models of a pair are matched with the concept that each is better at; told is the worse of the two at its "
    "own, the better at the other's. 50 % is chance.",
    "Weight 1, as in equation 2.1. The rate (0.01 on the code) was settled with exact factors in place of the code on "
    "seeds 0 and 1, whose decoupled pictures were seen and which are not counted; 0.003 and weights from 0.3 to 3 "
    "gave the same.",
]


def _claims(rows: Rows) -> list[Claim]:
    code = rows["code"]
    plain = [over(rows["plain"], name)["mean"] for name in NAMES]
    apart = compare([row["own"] for row in rows["pixels"]], [row["own"] for row in code])
    return [
        Claim(
            "A plain network uses both concepts",
            "about 75 % on each test set",
            f"{_percent(rows['plain'], 'background')} where only the background tells, "
            f"{_percent(rows['plain'], 'size')} where only the size does",
            all(0.6 <= value <= 0.9 for value in plain),
        ),
        Claim(
            "Two at once, in the code: near perfect at one concept, no better than chance at the other",
            "near 100 % and 50 % (figure)",
            f"own {_percent(code, 'own')}, other {_percent(code, 'foreign')}",
            all(row["own"] >= 0.95 and row["foreign"] <= 0.6 for row in code),
        ),
        Claim(
            "Penalties in the space of pixels do not get there",
            "very difficult",
            f"own {_percent(rows['pixels'], 'own')}, other {_percent(rows['pixels'], 'foreign')}; "
            f"{100 * apart.difference:+.1f} points in the code",
            apart.difference > 0 and (apart.p is None or apart.p < 0.05),
        ),
        Claim(
            "All stay accurate where both concepts tell",
            "not told",
            f"{_percent(code, 'accuracy')}",
            over(code, "accuracy")["mean"] >= 0.99,
        ),
    ]


def _percent(rows: list[dict[str, Any]], key: str) -> str:
    found = over(rows, key)
    return f"{100 * found['mean']:.1f} % ± {50 * (found['high'] - found['low']):.1f}"


def _table(rows: Rows) -> dict[str, Any]:
    columns = [
        "Trained",
        "Own concept alone",
        "Other concept alone",
        "Both",
        "Cosine of gradients",
        "Error of the code",
    ]
    keys = ("own", "foreign", "accuracy", "cosine", "code_error")
    body = [[ARMS[arm], *(over(found, key)["mean"] for key in keys)] for arm, found in rows.items()]
    return {
        "title": "The worse model of each pair at its own concept, the better at the other's.",
        "columns": columns,
        "rows": body,
    }
