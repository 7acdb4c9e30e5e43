"""What ``rightly evaluate`` runs: the models of a run, without and with the prior, measured on other data."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rightly import report
from rightly.core import registry, seeding
from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError, DataError
from rightly.core.types import Reference
from rightly.data import gaussian_noise, salt_and_pepper_noise
from rightly.evaluation import (
    MEASURES,
    METRICS,
    Curve,
    Explainer,
    Interval,
    bootstrap,
    cosine,
    evaluate,
    interval,
    metrics_for,
    occlusion,
    predicting,
    predictions,
    robustness_curve,
    score,
)
from rightly.evaluation.explainer import read
from rightly.evaluation.metrics import Task
from rightly.evaluation.robustness import Corruption
from rightly.references import Constant, Sample
from rightly.report.files import RECORD
from rightly.workflows.evaluated import EvaluationRequest, Measured, alone, figures_of, record_of, told
from rightly.workflows.explaining import ENOUGH, load_model
from rightly.workflows.given import Given, check_kind, given_images, given_table
from rightly.workflows.job import check_folder, torch_threads

#: bootstrap samples of the rows, noises at each severity, rows whose explanations are followed under noise
_RESAMPLES, _REPEATS, _FOLLOWED = 500, 5, 50

Noises = Mapping[str, tuple[Corruption, tuple[float, ...]]]
#: words for the axis -> what is done to the inputs, how severely; a table's columns are in standard deviations
_TABLE: Noises = {
    "Gaussian noise (standard deviations)": (gaussian_noise, (0.0, 0.25, 0.5, 1.0, 2.0)),
    "share of inputs replaced by their mean": (occlusion, (0.0, 0.2, 0.4, 0.6, 0.8)),
}
_IMAGES: Noises = {
    "Gaussian noise (black 0, white 1)": (gaussian_noise, (0.0, 0.1, 0.2, 0.3, 0.5)),
    "share of pixels turned black or white": (salt_and_pepper_noise, (0.0, 0.05, 0.1, 0.2, 0.4)),
    "share of the picture hidden": (occlusion, (0.0, 0.1, 0.2, 0.3, 0.5)),
}


def evaluate_run(request: EvaluationRequest, out: Path, *, progress: bool) -> str:
    """Measure a run's models and write ``record.json``, ``figures.json`` and ``report.html``; returns what to print.

    Predictions are judged where the data have labels: the column of a table, folders of pictures named like classes.
    Everything is computed before anything is written.
    """
    _check(request)
    check_out(out)
    began = time.monotonic()
    models, facts = _models(request.run)
    table = check_kind(facts, request.annotations, request.irrelevant)
    data = (
        given_table(facts, request.data, request.irrelevant)
        if table
        else given_images(facts, request.data, request.annotations, request.regions)
    )
    # at random: files are often sorted by something that matters
    order = torch.randperm(len(data.inputs), generator=seeding.generator(request.seed, "evaluated rows"))
    chosen = order[: request.examples].sort().values
    found: dict[str, Measured] = {}
    with torch_threads(1):
        for name, model in models.items():
            found[name] = _measured(model, facts, data, chosen, request, progress)
    comparison = _compared(data, found, facts["task"])
    record = record_of(request, facts, data, found, comparison, len(chosen), time.monotonic() - began)
    figures = figures_of(found, record)
    try:
        report.write_record(out, record, figures)
        report.write_report(out, record, figures)
    except OSError as error:
        raise DataError("the evaluation cannot be written", got=str(error), mend="choose another --out") from None
    return told(found, record)


def _check(request: EvaluationRequest) -> None:
    """Names and numbers, before any file is read."""
    for option, value, least in (("--examples", request.examples, 2), ("--samples", request.samples, 1)):
        check_count(option, value, least=least)
    if not request.methods:
        raise ArgumentError("no method is asked for", expected="--methods NAME[,NAME...]", got="none")
    for method in request.methods:
        registry.find("attribution", method)
    if unknown := [name for name in request.metrics if name not in MEASURES]:
        raise ArgumentError("unknown measure", expected=", ".join(MEASURES), got=", ".join(unknown))


def check_out(out: Path) -> None:
    """The folder has to be new or empty, in a place where it can be made. Writes nothing."""
    check_folder(out, {}, resume=False)
    place = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise DataError(
            "the evaluation cannot be written",
            expected="a place for a folder",
            got=str(out),
            mend="choose another --out",
        )


def _models(run: Path) -> tuple[dict[str, nn.Module], dict[str, Any]]:
    """Plain first, then the one with the prior, under the names of the run's record, which goes with the facts."""
    model, facts = load_model(run)
    record = report.read_record(run) if (run / RECORD).exists() else {"runs": {}, "comparison": {}}
    facts |= {"runs": record["runs"]}
    if not (run / "plain").is_dir():
        return {"plain" if run.name == "plain" else "model": model}, facts
    named = [entry["run"] for entry in record["comparison"].values() if "run" in entry]
    named += [name for name in record["runs"] if name != "plain"]
    return {"plain": load_model(run / "plain")[0], (named or ["model"])[0]: model}, facts


def _measured(
    model: nn.Module, facts: Mapping[str, Any], data: Given, chosen: Tensor, request: EvaluationRequest, progress: bool
) -> Measured:
    found = predictions(read(model, data.inputs), facts["task"])
    if data.truth is not None and facts["task"] == "regression":
        mean, sd = facts.get("label_scale", (0.0, 1.0))
        found = found * sd + mean
    reference: Reference = Sample(data.inputs) if len(data.inputs) >= ENOUGH else Constant(0.0)
    table = evaluate(
        model,
        (
            data.inputs[chosen],
            None if data.labels is None else data.labels[chosen],
            data.annotation and data.annotation.take(chosen if len(data.annotation) > 1 else torch.tensor([0])),
        ),
        request.methods,
        request.metrics or None,
        reference=reference,
        target="predicted",
        background=data.inputs if data.inputs.ndim == 2 else None,
        n_samples=request.samples,
        seed=request.seed,
        progress=progress,
    )
    metrics = {} if data.truth is None else _judged(data.truth, found, facts["task"])
    curves = _curves(model, facts["task"], next(iter(metrics), None), data, chosen, reference, request)
    return Measured(metrics, found, table, curves)


def _judged(truth: np.ndarray, found: np.ndarray, task: Task) -> dict[str, Interval]:
    """Without the area under the curve where a class does not occur."""
    every = task == "regression" or len(np.unique(truth)) == found.shape[1]
    names = [name for name in metrics_for(task) if every or name != "auc"]
    return {name: _resampled(partial(_score, name), truth, found) for name in names}


def _resampled(statistic: Callable[..., float], *samples: np.ndarray) -> Interval:
    """With its interval over the rows; the number alone where most resamples lack what it needs (a rare class)."""
    try:
        return bootstrap(statistic, *samples, resamples=_RESAMPLES)
    except ArgumentError:
        return interval([statistic(*samples)])


def _score(name: str, truth: np.ndarray, found: np.ndarray) -> float:
    return score(truth, found, [name])[name]


def _compared(data: Given, found: Mapping[str, Measured], task: Task) -> dict[str, Any]:
    """Differences between two models over the same rows, drawn with replacement."""
    if data.truth is None or len(found) != 2:
        return {}
    (first, plain), (second, other) = found.items()
    table = {}
    for name in plain.metrics:

        def gain(truth: np.ndarray, one: np.ndarray, two: np.ndarray, name: str = name) -> float:
            return _score(name, truth, two) - _score(name, truth, one)

        one = _resampled(gain, data.truth, plain.predictions, other.predictions)
        if alone(one):
            continue  # a difference without an interval says nothing
        table[name] = {
            "difference": one.mean,
            "low": one.low,
            "high": one.high,
            "p": None,
            "test": "paired bootstrap over the rows",
            "n": len(data.truth),
            "higher_is_better": METRICS[name].higher_is_better,
            "run": second,
            "against": first,
        }
    return table


def _curves(
    model: nn.Module,
    task: Task,
    headline: str | None,
    data: Given,
    chosen: Tensor,
    reference: Reference,
    request: EvaluationRequest,
) -> dict[tuple[str, str], Curve]:
    """By what is measured and what is done to the inputs: the headline metric, and how alike explanations stay."""
    noises = _TABLE if data.inputs.ndim == 2 else _IMAGES
    x = data.inputs[chosen[:_FOLLOWED]]
    explainer = Explainer.of(
        "expected_gradients", model, x, reference=reference, n_samples=request.samples, seed=request.seed
    )
    before = explainer(model, x)

    def alike(moved: Tensor) -> float:
        return float(cosine(explainer(model, moved), before).mean())

    def curves(
        title: str, measure: Callable[[Tensor], float], inputs: Tensor, bounds: tuple[float, float], applied: Noises
    ) -> dict[tuple[str, str], Curve]:
        return {
            (title, words): robustness_curve(
                measure, inputs, corruption, severities, repeats=_REPEATS, bounds=bounds, seed=request.seed
            )
            for words, (corruption, severities) in applied.items()
        }

    found = curves("cosine of explanations", alike, x, (-1.0, 1.0), dict([next(iter(noises.items()))]))
    if headline is None or data.labels is None:
        return found
    # a regression's labels and outputs are both in the model's scale, in which R2 is the same
    judge = predicting(model, data.labels, headline, task)
    return curves(headline, judge, data.inputs, METRICS[headline].bounds, noises) | found
