"""Attack studies: networks trained with different defences, each attacked, and all asked about everybody's examples.

A recipe says what is defended, on what and how. Choosing weights on validation rows, training every defence with every
seed through ``settings.trials``, and attacking what was trained are the same for all of them and are done here. What
comes out is told by ``attack_report``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rightly.attributions import attribute
from rightly.core.gini import gini
from rightly.distillation import soft_labels, tempered
from rightly.evaluation import (
    Transfer,
    answered_right,
    attacked,
    gradient_masking,
    gradient_norms,
    targeted_grid,
    transfer_matrix,
)
from rightly.objectives import Objective
from rightly.objectives.model_term import AnyTerm
from rightly.perturbations import FGSM, JSMA, answers, auto_attack, iterated_tgsm
from rightly.training import Run
from rightly.workflows.reproduce import Row, Settings

#: an undefended network with other initial weights, which nobody is asked about: what it teaches is black-box
STRANGER = "stranger"
#: the smallest gradient norm of figure 3.6
FLOOR = 1e-20
Labelled = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Defence:
    """One way to train.

    Attributes:
        title: in the report.
        told: what it does, in words.
        terms: weight -> terms of the objective; None trains on the loss alone.
        weights: that are tried with the first seed; a single one is taken as it is.
        like: takes the weight that was chosen for this defence.
        temperature: train on the labels and then a fresh network on the first one's answers, both at it; the fresh
            one is used at 1.
    """

    title: str
    told: str = ""
    terms: Callable[[float], Sequence[AnyTerm]] | None = None
    weights: tuple[float, ...] = (0.0,)
    like: str | None = None
    temperature: float | None = None


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is defended, and how it is attacked.

    Attributes:
        defences: by name; one is ``plain``.
        seeds: of every defence.
        allowed: share of plain's validation accuracy that a weight has to leave (the thesis: 0.97).
        strengths: of the single-step attacks, none of them 0.
        worst: strengths at which masked gradients are looked for, and the worst of all attacks is taken.
        clip: the pixels' range.
        parts: makes training, validation and test rows, (inputs, labels) each.
        model: makes the network of a seed, where it is to train.
        fit: trains an objective: (objective, rows, seed).
        steps: of the iterated attacks there.
        iterated: eps and steps of the iterated targeted attack; None leaves it out.
        library: also attack with what the extra ``attacks`` brings.
        shown: test pictures whose gradients are drawn.
    """

    defences: Mapping[str, Defence]
    seeds: Sequence[int]
    allowed: float
    strengths: Sequence[float]
    worst: Sequence[float]
    clip: tuple[float, float]
    parts: Callable[[], Mapping[str, Labelled]]
    model: Callable[[int], nn.Module]
    fit: Callable[[Objective, Labelled, int], Run]
    steps: int = 10
    iterated: tuple[float, int] | None = (0.1, 15)
    library: bool = False
    shown: int = 4


@dataclass(frozen=True)
class Found:
    """What a study trained: ``tried`` to choose weights, the weights, and one row a seed."""

    tried: list[Row]
    weights: dict[str, float]
    rows: list[Row]


def run_study(study: Study, settings: Settings) -> Found:
    """Choose each weight with the first seed by the thesis' rule, then train and attack every defence with every seed.

    Of the weights that leave ``allowed`` of plain's accuracy on clean validation rows, the one with the highest
    accuracy on validation rows that the single step made for the undefended network; the same for all strengths.
    """
    lab = _Lab(study, settings)
    first = study.seeds[0]
    asked = [
        {"defence": name, "weight": weight, "seed": first}
        for name, defence in study.defences.items()
        for weight in defence.weights
        if len(defence.weights) > 1
    ]
    tried = settings.trials.run("weights", asked, lab.weigh)
    weights = {name: defence.weights[0] for name, defence in study.defences.items()}
    for name in {row["defence"] for row in tried}:
        weights[name] = choose([row for row in tried if row["defence"] == name], study.allowed)["weight"]
    weights |= {name: weights[defence.like] for name, defence in study.defences.items() if defence.like}
    keys = [{"seed": seed, "weights": weights} for seed in study.seeds]
    return Found(tried, weights, settings.trials.run("seeds", keys, lab.attack))


def choose(rows: Sequence[Row], allowed: float) -> Row:
    """The thesis' rule (3.4), on validation rows; see ``run_study``."""
    good = [row for row in rows if row["validation"] >= allowed * row["plain"] - 1e-9]
    if good:
        return max(good, key=lambda row: row["transferred"])
    return max(rows, key=lambda row: row["validation"])


class _Lab:
    """Trains a network once, and attacks."""

    def __init__(self, study: Study, settings: Settings) -> None:
        self.study, self.engine = study, settings.engine
        self.parts = cache(study.parts)
        self.trained = cache(self._train)

    def weigh(self, key: Row) -> Row:
        """One weight of one defence, on validation rows."""
        plain = self.trained("plain", 0.0, key["seed"])[0]
        model, run = self.trained(key["defence"], key["weight"], key["seed"])
        inputs, labels = self._on(model, "validation")
        found = [
            _share(answered_right(model, attacked(plain, inputs, labels, self._step(eps)), labels))
            for eps in self.study.strengths
        ]
        return {
            "validation": _share(answered_right(model, inputs, labels)),
            "plain": _share(answered_right(plain, inputs, labels)),
            "transferred": sum(found) / len(found),
            "engines": run.engines,
        }

    def attack(self, key: Row) -> Row:
        """All defences of one seed, against each other."""
        seed = key["seed"]
        trained = {name: self.trained(name, key["weights"][name], seed) for name in self.study.defences}
        models = {name: model for name, (model, _) in trained.items()}
        # another seed than any defence has
        sources = {STRANGER: self.trained("plain", 0.0, seed + 10_000)[0], **models}
        inputs, labels = self._on(models["plain"], "test")
        steps = {
            eps: transfer_matrix(models, inputs, labels, self._step(eps), sources=sources) for eps in self.strengths
        }
        towards = {
            eps: transfer_matrix(models, inputs, labels, self._step(eps, "next"), sources=sources)
            for eps in self.strengths
        }
        found: Row = {
            "clean": {name: _share(answered_right(model, inputs, labels)) for name, model in models.items()},
            "fgsm": _accuracies(steps),
            "tgsm": _accuracies(towards),
            "overlap": _overlap(steps[max(self.strengths)]),
            "defences": {name: self._alone(name, model, sources, inputs, labels) for name, model in models.items()},
            "engines": {name: run.engines for name, (_, run) in trained.items()},
        }
        if self.study.iterated is not None:
            found["iterated"] = self._iterated(models, sources[STRANGER], inputs, labels)
        if seed == self.study.seeds[0]:
            found["maps"] = self._maps(models, inputs, labels)
        self.trained.cache_clear()  # one seed at a time
        return found

    @property
    def strengths(self) -> Sequence[float]:
        return self.study.strengths

    def _step(self, eps: float, targeted: Any = None) -> FGSM:
        return FGSM(eps, targeted=targeted, clip=self.study.clip)

    def _on(self, model: nn.Module, part: str) -> Labelled:
        device = next(model.parameters()).device
        inputs, labels = self.parts()[part]
        return inputs.to(device), labels.to(device)

    def _train(self, name: str, weight: float, seed: int) -> tuple[nn.Module, Run]:
        defence = self.study.defences[name]
        terms = [term.with_engine(self.engine) for term in (defence.terms(weight) if defence.terms else ())]
        loss = cross_entropy if defence.temperature is None else tempered(defence.temperature)
        inputs, labels = self.parts()["train"]
        model = self.study.model(seed)
        run = self.study.fit(Objective(model, loss, terms, seed=seed), (inputs, labels), seed)
        if defence.temperature is not None:
            device = next(model.parameters()).device
            soft = soft_labels(model, inputs.to(device), defence.temperature).to(labels.device)
            model = self.study.model(seed + 20_000)
            run = self.study.fit(Objective(model, loss, terms, seed=seed), (inputs, soft), seed)
        return model.eval(), run

    def _alone(
        self, name: str, model: nn.Module, sources: Mapping[str, nn.Module], inputs: Tensor, labels: Tensor
    ) -> Row:
        """What white-box attacks find, and whether they can be believed."""
        found: Row = {"worst": {}, "fgsm": {}, "pgd": {}, "reasons": {}, "zero": 0.0}
        for eps in self.study.worst:
            others = {
                f"FGSM of {source}": attacked(other, inputs, labels, self._step(eps))
                for source, other in sources.items()
                if source != name
            }
            sign = gradient_masking(
                model, inputs, labels, eps, clip=self.study.clip, transferred=others, steps=self.study.steps
            )
            found["reasons"][f"{eps:g}"] = list(sign.reasons)
            found["worst"][f"{eps:g}"] = sign.worst
            found["zero"] = sign.zero_gradients
            for kind in ("fgsm", "pgd"):
                found[kind][f"{eps:g}"] = sign.accuracy[kind]
            if self.study.library:
                ensemble = attacked(model, inputs, labels, auto_attack(eps, self.study.clip))
                found.setdefault("ensemble", {})[f"{eps:g}"] = _share(answered_right(model, ensemble, labels))
        if self.study.library:
            few = attacked(model, inputs[:50], labels[:50], JSMA(clip=self.study.clip))
            found["jsma"] = 1 - _share(answered_right(model, few, labels[:50]))
        found["gini"] = float(gini(gradient_maps(model, inputs).abs().flatten(1)).mean())
        classes = int(labels.max()) + 1
        for kind, goal in (("fgsm", labels), ("tgsm", (labels + 1) % classes)):
            norms = gradient_norms(model, inputs, goal).clamp(min=FLOOR).log10()
            found[f"norm_{kind}"], found[f"spread_{kind}"] = float(norms.mean()), float(norms.std())
        return found

    def _iterated(self, models: Mapping[str, nn.Module], judge: nn.Module, inputs: Tensor, labels: Tensor) -> Row:
        """How often an iterated targeted attack succeeds, and the stranger then sees the target as well."""
        eps, steps = self.study.iterated or (0.0, 0)
        attack = replace(iterated_tgsm(eps, steps), clip=self.study.clip)
        classes = int(labels.max()) + 1
        found: Row = {}
        for name, model in models.items():
            changed = attacked(model, inputs, labels, attack)
            goal = (labels + 1) % classes
            reached = answered_right(model, changed, goal)
            seen = answered_right(judge, changed, goal)
            found[name] = {"reached": _share(reached), "seen": _share(reached & seen)}
        return found

    def _maps(self, models: Mapping[str, nn.Module], inputs: Tensor, labels: Tensor) -> list[Row]:
        """Figure 3.9's gradients of test pictures, and for grey pictures figure 3.8's changes towards every class."""
        maps = {name: gradient_maps(model, inputs[: self.study.shown]).sum(1) for name, model in models.items()}
        found = [
            {
                "title": "Gradient of the cross-entropy against the uniform distribution",
                "image": _drawn(inputs[row], 3),
                "label": int(labels[row]),
                "runs": {
                    name: {"map": _shares(drawn[row]), "prediction": int(answers(models[name](inputs[row : row + 1])))}
                    for name, drawn in maps.items()
                },
            }
            for row in range(len(inputs[: self.study.shown]))
        ]
        if self.study.iterated is None or inputs.shape[1] != 1:
            return found
        eps, steps = self.study.iterated
        classes = int(labels.max()) + 1
        firsts = [int((labels == label).nonzero()[0, 0]) for label in labels[:2].tolist()]
        few = inputs[firsts]
        runs = {}
        for name, model in models.items():
            changed, _ = targeted_grid(
                model, few, lambda k: iterated_tgsm(eps, steps, k, clip=self.study.clip), classes
            )
            runs[name] = {"map": _drawn(_tiled(changed - few[:, None]), 2)}
        still = few[:, None].expand(-1, classes, *few.shape[1:])
        title = f"Added and taken away by {steps} targeted steps of {eps:g}, towards every class from left to right"
        return [*found, {"title": title, "image": _drawn(_tiled(still), 2), "runs": runs}]


def gradient_maps(model: nn.Module, inputs: Tensor) -> Tensor:
    """Figure 3.9's explanation (N, *F): the gradient of the cross-entropy against the uniform distribution."""
    return attribute(model, inputs, "gradient", output="loss_uniform", diagnostics=False).attributions


def _accuracies(found: Mapping[float, Transfer]) -> Row:
    """source -> target -> accuracy at every strength."""
    first = next(iter(found.values()))
    return {
        source: {target: [one.accuracy(source, target).mean for one in found.values()] for target in first.targets}
        for source in first.sources
    }


def _overlap(found: Transfer) -> Row:
    """By source, for each pair of targets: of the examples that fool either, the share that fools both."""
    shares: Row = {}
    for source in found.sources:
        fooled = {target: found.fooled_by(target)[source] for target in found.targets}
        shares[source] = {
            f"{one} and {other}": _share((fooled[one] & fooled[other])[fooled[one] | fooled[other]])
            for position, one in enumerate(found.targets)
            for other in found.targets[position + 1 :]
        }
    return shares


def _share(hits: Tensor) -> float:
    """Of nothing: 0."""
    return float(hits.double().mean()) if len(hits) else 0.0


def _tiled(grid: Tensor) -> Tensor:
    """(N, K, 1, H, W) -> one picture (1, N H, K W)."""
    return torch.cat([torch.cat(list(row), 2) for row in grid], 1)


def _drawn(image: Tensor, digits: int) -> Any:
    values = image[0] if len(image) == 1 else image.movedim(0, -1)
    return values.double().cpu().numpy().round(digits).tolist()


def _shares(values: Tensor) -> Any:
    """A map as shares of its absolute sum: a network that is sure has small gradients."""
    scaled = values.double() / values.double().abs().sum().clamp(min=1e-300)
    return [[float(f"{value:.3g}") for value in line] for line in scaled.tolist()]
