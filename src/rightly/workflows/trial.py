"""One arm of one case, trained and looked at."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rightly.attributions import attribute
from rightly.core import seeding
from rightly.core.annotation import Annotation
from rightly.core.batch import Inputs, call, outputs_of, rows, take, tensors
from rightly.core.types import AttributionResult
from rightly.evaluation import global_importance, lorenz, metrics_for, predictions, score, share_inside
from rightly.objectives import Objective
from rightly.references import Sample
from rightly.spaces import Input
from rightly.training import Run, fit
from rightly.workflows.case import Arm, Case, Task

#: pictures in a report, examples in a beeswarm
_MAPS, _BEES = 6, 150
#: examples that go through a model at once, and those that prove that a term trains
_PIECE, _FEW = 256, 8

#: what the results of a trial hold at least
TRIAL_KEYS = {"seed", "arm", "metrics", "history", "explanations", "importance", "lorenz", "split", "figures"}


def run_trial(case: Case, arm: Arm, seed: int, folder: Path, *, resume: bool) -> tuple[nn.Module, dict[str, Any]]:
    """Train the arm and measure it on its test part.

    Returns:
        The model, and JSON-able results: metrics, explanations, history, weight and (small) figures.
    """
    objective = Objective(case.make_model(), case.loss, arm.terms, seed=seed)
    settings = case.settings
    start = time.monotonic()
    run = fit(
        objective,
        arm.train,
        arm.validation,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        patience=settings.patience,
        seed=seed,
        checkpoint=folder,
        resume=resume,
    )
    return objective.model, judged(case, arm, seed, objective.model, run, time.monotonic() - start)


def judged(case: Case, arm: Arm, seed: int, model: nn.Module, run: Run, seconds: float) -> dict[str, Any]:
    """A trained model measured on its test part, which is looked at here and nowhere else: JSON-able results."""
    model.eval()
    inputs, labels, _ = arm.test
    truth, found = _unscaled(case, labels.flatten().cpu().numpy(), _predicted(model, inputs, case.task))
    chosen = _chosen(case, arm, seed)
    explained = _explain(case, arm, model, chosen, seed)
    return {
        "seed": seed,
        "arm": arm.name,
        "metrics": score(truth, found, metrics_for(case.task)),
        "history": _history(run),
        "weight": next(iter(run.weights.values()), None) if case.rules is None else None,
        "weight_choice": _weight_choice(run, arm) if case.rules is None else None,
        "engines": run.engines,
        "seconds": seconds,
        "split": {"train": rows(arm.train[0]), "validation": rows(arm.validation[0]), "test": rows(inputs)},
        **_measures(case, arm, chosen, explained),
        **({} if case.rules is None else {"rules": case.rules.kept(model, inputs, run.weights)}),
        "figures": _figures(case, arm, chosen, explained, found),
    }


def prove(case: Case) -> None:
    """Every term of every arm reaches the parameters; raises before anything is trained or written."""
    for arm in case.arms:
        if not arm.terms:
            continue
        objective = Objective(case.make_model(), case.loss, arm.terms)
        inputs, labels, annotation = arm.train
        few = torch.arange(min(_FEW, rows(inputs)))
        batch = take(inputs, few), labels[few], annotation and annotation.take(few)
        with seeding.guarded():
            objective(*batch, part="task")
        for term in arm.terms:
            objective.penalty(term, *batch, seeding.generator("prove"))


@torch.no_grad()
def _predicted(model: nn.Module, inputs: Inputs, task: Task) -> np.ndarray:
    """In pieces: a whole test part of pictures need not fit into memory at once."""
    pieces = torch.arange(rows(inputs)).split(_PIECE)
    return np.concatenate([predictions(outputs_of(call(model, take(inputs, piece))), task) for piece in pieces])


def _unscaled(case: Case, truth: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A regression is judged in the label's own units."""
    mean, sd = case.attached.get("label_scale", (0.0, 1.0))
    return (truth, found) if case.task == "classification" else (truth * sd + mean, found * sd + mean)


def _chosen(case: Case, arm: Arm, seed: int) -> Tensor:
    """Test rows to explain, drawn at random: files are often sorted by something that matters."""
    n = rows(arm.test[0])
    order = torch.randperm(n, generator=seeding.generator(seed, "explained rows"))
    return order[: case.settings.explain_rows]


def _explain(case: Case, arm: Arm, model: nn.Module, chosen: Tensor, seed: int) -> AttributionResult:
    """Expected gradients against the training rows: of the prediction, or of the single output in its own unit."""
    found = attribute(
        model,
        take(arm.test[0], chosen),
        "expected_gradients",
        reference=Sample(arm.train[0]),
        n_samples=case.settings.explain_samples,
        target="predicted",
        seed=seed,
        space=case.space,
    )
    _, unit = case.attached.get("label_scale", (0.0, 1.0))
    gap = found.completeness_gap
    return replace(found, attributions=found.attributions * unit, completeness_gap=None if gap is None else gap * unit)


def _measures(case: Case, arm: Arm, chosen: Tensor, explained: AttributionResult) -> dict[str, Any]:
    importance = global_importance(explained.attributions, case.groups, explained.completeness_gap)
    measures = {"gini": importance.gini, "completeness_gap": importance.completeness_gap}
    annotation = arm.test[2]
    if annotation is not None and annotation.irrelevant is not None:
        region, known = annotation.take(chosen).known("irrelevant", explained.attributions)
        if bool((annotated := known.flatten(1).any(1)).any()):
            measures["inside"] = float(share_inside(explained.attributions, region)[annotated].mean())
    named = dict(zip(case.features, importance.values.tolist(), strict=True)) if case.features else {}
    return {"explanations": measures, "importance": named, "lorenz": lorenz(importance.values)}


def _history(run: Run) -> dict[str, Any]:
    return {
        "epoch": [entry["epoch"] for entry in run.history],
        "task": [entry["task"] for entry in run.history],
        "validation": [entry["validation"] for entry in run.history],
        "terms": {name: [entry["terms"][name] for entry in run.history] for name in run.weights},
        "best_epoch": run.best_epoch,
    }


def _weight_choice(run: Run, arm: Arm) -> dict[str, Any] | None:
    if not arm.terms:
        return None
    (term,) = arm.terms[:1]
    if term.name not in run.choices:
        return {"rule": "given", "reason": "given by the user", "candidates": []}
    choice = run.choices[term.name]
    candidates = [vars(candidate) for candidate in choice.candidates]
    return {"rule": str(term.weight), "reason": choice.reason, "candidates": candidates}


def _figures(case: Case, arm: Arm, chosen: Tensor, explained: AttributionResult, found: np.ndarray) -> dict[str, Any]:
    if case.features and case.shades is not None and case.groups is not None:
        return {"beeswarm": _beeswarm(case, case.groups, case.shades[chosen.numpy()], explained.attributions)}
    if tensors(arm.test[0])[0].ndim == 4 and case.task == "classification" and isinstance(case.space, Input):
        return {"maps": _maps(case, arm, chosen, explained.attributions, found)}
    return {}


def _beeswarm(case: Case, groups: np.ndarray, shades: np.ndarray, attributions: Tensor) -> list[dict[str, Any]]:
    flat = attributions[:_BEES]
    summed = flat.new_zeros(len(flat), len(case.features)).index_add(1, torch.as_tensor(groups), flat).numpy()
    return [
        {
            "feature": name,
            "values": [None if np.isnan(v) else float(v) for v in shades[: len(summed), i]],
            "attributions": [float(v) for v in summed[:, i]],
        }
        for i, name in enumerate(case.features)
    ]


def _maps(case: Case, arm: Arm, chosen: Tensor, attributions: Tensor, found: np.ndarray) -> list[dict[str, Any]]:
    """The first explained image of each of the first classes, so that the pictures differ; the same for every arm."""
    inputs, labels, annotation = arm.test
    labels = labels.flatten()
    explained = labels[chosen]
    firsts = [int((explained == label).nonzero()[0]) for label in explained.unique()[:_MAPS]]
    return [
        _picture(case, int(chosen[k]), tensors(inputs)[0], labels, annotation, attributions[k], found) for k in firsts
    ]


def _picture(
    case: Case,
    row: int,
    images: Tensor,
    labels: Tensor,
    annotation: Annotation | None,
    attribution: Tensor,
    found: np.ndarray,
) -> dict[str, Any]:
    image, predicted, marked = images[row], int(found[row].argmax()), None
    if annotation is not None:
        name = "irrelevant" if annotation.irrelevant is not None else "relevant"
        region, known = annotation.take(torch.tensor([row])).known(name, image[None, :1])
        marked = region[0, 0].int().tolist() if bool(known.any()) else None
    return {
        "title": f"test image {row}",
        "label": case.classes[int(labels[row])],
        "image": _shown(image).tolist(),
        "annotation": marked,
        "map": attribution.sum(0).tolist(),
        "prediction": case.classes[predicted],
        "correct": predicted == int(labels[row]),
    }


def _shown(image: Tensor) -> Tensor:
    """(C, H, W) as a report draws it: (H, W) or (H, W, 3), from 0 to 1."""
    if len(image) not in (1, 3):
        image = image.mean(0, keepdim=True)
    low, high = float(image.min()), float(image.max())
    if low < 0 or high > 1:
        image = (image - low) / max(high - low, torch.finfo(image.dtype).tiny)
    return image[0] if len(image) == 1 else image.permute(1, 2, 0)
