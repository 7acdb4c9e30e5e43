"""Noise studies: networks trained for smooth attributions, tested under noise that they never saw.

A recipe says what is trained, on what and how; choosing weights on validation rows, training every arm with every seed
through ``settings.trials``, and testing under noise are the same for all of them and are done here. What comes out is
told by ``noise_report``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rightly.attributions import Attribution, attribute
from rightly.core.autodiff import reading
from rightly.data import NOISES
from rightly.objectives import Objective
from rightly.objectives.term import Term
from rightly.priors.total_variation import TotalVariation, total_variation
from rightly.references import Sample
from rightly.training import Run
from rightly.workflows.reproduce import Row, Settings

#: "train" is whatever the recipe trains on; "validation" and "test" are (inputs, labels), "references" are inputs
Parts = Mapping[str, Any]
Fit = Callable[[Objective, Parts, int, Path | None], Run]


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        title: in the report.
        attribution: whose total variation is kept small; None trains without a prior.
        told: the attribution and its reference in words.
        trained: False leaves the network as it comes.
    """

    title: str
    attribution: Attribution | None = None
    told: str = ""
    trained: bool = True


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is trained, and how it is tested.

    Attributes:
        arms: by name; one is ``plain``.
        weights: that are tried for every arm with a prior, with the first seed.
        seeds: of every arm.
        allowed: validation accuracy that a weight may cost.
        noise: name in ``rt.data.NOISES`` -> levels, none of them 0.
        span: what black and white are in the inputs' units.
        parts: makes what ``Parts`` says.
        model: makes the network of a seed.
        fit: trains an objective: (objective, parts, seed, checkpoint folder or None); it monitors ``mistakes``.
        explained: test pictures whose attributions are measured.
        samples: references for each of them, and for the maps.
        classes: names of the labels.
    """

    arms: Mapping[str, Arm]
    weights: Sequence[float]
    seeds: Sequence[int]
    allowed: float
    noise: Mapping[str, Sequence[float]]
    span: tuple[float, float]
    parts: Callable[[], Parts]
    model: Callable[[int], nn.Module]
    fit: Fit
    explained: int
    samples: int
    classes: Sequence[str]

    @property
    def penalised(self) -> list[str]:
        """The arms with a prior."""
        return [name for name, arm in self.arms.items() if arm.attribution is not None]


@dataclass(frozen=True)
class Found:
    """What a study trained: ``tried`` to choose weights, and ``rows``, one a seed, of every arm."""

    tried: list[Row]
    rows: dict[str, list[Row]]


def run_study(study: Study, settings: Settings) -> Found:
    """Choose each prior's weight with the first seed, then train every arm with every seed.

    The weight is the paper's: of those that cost no more validation accuracy than allowed the one with the smallest
    penalty; where all cost more, the one that costs least.
    """
    parts = cache(study.parts)

    def work(key: Row) -> Row:
        checkpoint = settings.trials.checkpoint(key) if settings.size == "full" else None
        return _trial(study, parts(), key, settings.engine, checkpoint)

    keys = [{"arm": "plain", "weight": 0.0, "seed": study.seeds[0]}]
    keys += [{"arm": arm, "weight": w, "seed": study.seeds[0]} for w in study.weights for arm in study.penalised]
    plain, *tried = settings.trials.run("weights", keys, work)
    weights = dict.fromkeys(study.arms, 0.0)
    for arm in study.penalised:
        weights[arm] = choose(plain, [row for row in tried if row["arm"] == arm], study.allowed)["weight"]
    keys = [{"arm": arm, "weight": weight, "seed": seed} for seed in study.seeds for arm, weight in weights.items()]
    rows = settings.trials.run("seeds", keys, work)
    return Found([plain, *tried], {arm: [row for row in rows if row["arm"] == arm] for arm in study.arms})


def choose(plain: Row, rows: Sequence[Row], allowed: float) -> Row:
    """The paper's rule, on validation rows; see ``run_study``."""
    # accuracies are whole numbers of rows: rounding must not decide
    good = [row for row in rows if row["validation"] >= plain["validation"] - allowed - 1e-9]
    if good:
        return min(good, key=lambda row: row["penalty"])
    return max(rows, key=lambda row: row["validation"])


def mistakes(outputs: Tensor, labels: Tensor) -> float:
    """Share of the rows with another label than the largest output's."""
    return float((outputs.argmax(1) != labels).double().mean())


def _trial(study: Study, parts: Parts, key: Row, engine: Any, checkpoint: Path | None) -> Row:
    """Train one network and test it."""
    arm, seed = study.arms[key["arm"]], key["seed"]
    model = study.model(seed)
    terms = []
    if arm.attribution is not None:
        terms = [Term(arm.attribution, TotalVariation(), key["weight"], "smoothness", engine=engine)]
    objective = Objective(model, cross_entropy, terms, seed=seed)
    run = study.fit(objective, parts, seed, checkpoint) if arm.trained else Run()
    validation, test = parts["validation"], parts["test"]
    with reading(model, trainable=False), torch.no_grad():
        found: Row = {
            "validation": _accuracy(model, *validation),
            "clean": _accuracy(model, *test),
            "noise": {
                kind: [_under(study, model, test, kind, level, seed) for level in levels]
                for kind, levels in study.noise.items()
            },
        }
        device = next(model.parameters()).device
        few = [part[:500].to(device) for part in validation]
        found["penalty"] = sum(float(objective.penalty(term, *few)) for term in terms)
    maps = _expected_gradients(study, model, parts, test[0][: study.explained], test[1][: study.explained])
    found |= {"roughness": float(total_variation(maps).mean()), "engines": run.engines}
    if run.history:
        found["history"] = _history(run)
    return {**found, "maps": _maps(study, model, parts)} if seed == study.seeds[0] else found


def _accuracy(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    device = next(model.parameters()).device
    answers = torch.cat([model(part.to(device)).argmax(1).cpu() for part in inputs.split(500)])
    return float((answers == labels).double().mean())


def _under(study: Study, model: nn.Module, test: tuple[Tensor, Tensor], kind: str, level: float, seed: int) -> float:
    """Test accuracy under noise; the same noise for every arm of a seed."""
    generator = torch.Generator().manual_seed(seed)
    return _accuracy(model, NOISES[kind](test[0], level, generator, *study.span), test[1])


def _expected_gradients(study: Study, model: nn.Module, parts: Parts, inputs: Tensor, labels: Tensor) -> Tensor:
    device = next(model.parameters()).device
    found = attribute(
        model,
        inputs.to(device),
        reference=Sample(parts["references"]),
        labels=labels.to(device),
        n_samples=study.samples,
        diagnostics=False,
    )
    return found.attributions.cpu()


def _maps(study: Study, model: nn.Module, parts: Parts) -> list[Row]:
    """Maps of the label's output for a test picture of every class, and of every output for the first of them."""
    inputs, labels = parts["test"]
    classes = range(len(study.classes))
    firsts = [int((labels == label).nonzero()[0, 0]) for label in classes if bool((labels == label).any())]
    chosen = [(row, int(labels[row])) for row in firsts] + [(firsts[0], target) for target in classes]
    rows, targets = torch.tensor(chosen).unbind(1)
    maps = _expected_gradients(study, model, parts, inputs[rows], targets).sum(1)
    with reading(model, trainable=False), torch.no_grad():
        answers = model(inputs[rows].to(next(model.parameters()).device)).argmax(1).tolist()
    low, high = study.span
    images = ((inputs[rows] - low) / (high - low)).clamp(0, 1)
    return [
        {
            "row": row,
            "target": target,
            "image": _rounded(image[0] if len(image) == 1 else image.movedim(0, -1), 3),
            "label": int(labels[row]),
            "map": [[float(f"{value:.3g}") for value in line] for line in drawn.tolist()],
            "prediction": answer,
        }
        for (row, target), image, drawn, answer in zip(chosen, images, maps, answers, strict=True)
    ]


def _rounded(values: Tensor, digits: int) -> Any:
    """Nested lists of rounded numbers."""
    if values.ndim:
        return [_rounded(part, digits) for part in values]
    return round(float(values), digits)


def _history(run: Run) -> Row:
    names = run.history[0]["terms"]
    return {
        "epoch": [entry["epoch"] for entry in run.history],
        "task": [round(entry["task"], 5) for entry in run.history],
        "validation": [1 - entry["validation"] for entry in run.history],
        "terms": {name: [round(entry["terms"][name], 5) for entry in run.history] for name in names},
        "best_epoch": run.best_epoch,
    }
