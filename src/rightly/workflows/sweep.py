"""``rightly sweep``: priors x weights x seeds on one table, trained many at once, and shown over the weights."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rightly import report
from rightly.core.errors import ArgumentError, DataError
from rightly.data import Table, read_table
from rightly.evaluation import METRICS, interval
from rightly.objectives import Term
from rightly.training import Trial, WeightChoice, fit_many
from rightly.training.selection import pick
from rightly.workflows.about import about_job, about_table
from rightly.workflows.case import Case, Settings
from rightly.workflows.choices import choose
from rightly.workflows.commands import file_digest, identity_of
from rightly.workflows.conclusion import HEADLINES
from rightly.workflows.job import check_folder, run_folder, save_model, torch_threads
from rightly.workflows.request import Request, check_request, settings_for
from rightly.workflows.summary import figures_of, record_of
from rightly.workflows.tables import check_irrelevant, table_case, table_term
from rightly.workflows.trial import judged, prove

PLAIN = "plain"


@dataclass(frozen=True)
class SweepRequest(Request):
    """The arguments of ``rightly sweep``."""

    weights: str = "0.001,0.01,0.1,1,10"
    pruner: str | None = None


@dataclass(frozen=True)
class Sweep:
    """What to sweep: the request, read and checked."""

    request: SweepRequest
    table: Table
    priors: tuple[str, ...]
    weights: tuple[float, ...]
    settings: Settings
    about: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the folder."""
        return f"{Path(self.request.source).name.split('.')[0]}-sweep"

    @property
    def seeds(self) -> range:
        """Each a split and an initialisation of its own."""
        return range(self.request.seed, self.request.seed + self.request.seeds)

    def case(self, seed: int) -> Case:
        """The seed's split with a plain arm and one for each prior."""
        cases = [self._case(prior, seed) for prior in self.priors]
        return replace(cases[0], arms=(cases[0].arms[0], *(case.arms[1] for case in cases)))

    def _case(self, prior: str, seed: int) -> Case:
        irrelevant, settings = self.request.irrelevant, self.settings
        return table_case(self.table, seed, prior=prior, weight=1.0, irrelevant=irrelevant, settings=settings)


def sweep_for(request: SweepRequest) -> Sweep:
    """Read and check; nothing has been written.

    Raises:
        ArgumentError, DataError: something cannot be used.
    """
    check_request(request)
    if request.kind != "table":
        raise ArgumentError("a sweep reads a table", expected="TABLE.csv or .parquet", got=request.source)
    if request.label is None:
        raise ArgumentError("a table needs its label column", expected="--label COLUMN", got="none")
    weights = parse_weights(request.weights)
    given = request.prior or ("right-reasons" if request.irrelevant else "sparsity")
    priors = tuple(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))
    needs = [choose(prior, images=False).needs for prior in priors]
    table = read_table(request.source, request.label, task=request.task, drop=request.drop)
    for need in needs:
        check_irrelevant(table, need, request.irrelevant)
    settings = settings_for(request, len(table.labels), Settings())
    question = f"How much of a prior does a model of {table.label!r} bear, and what does it change?"
    about = about_job(request, " and ".join(priors), question, "sweep")
    about["data"] = about_table(table, Path(request.source).name.split(".")[0])
    return Sweep(request, table, priors, weights, settings, about)


def parse_weights(text: str) -> tuple[float, ...]:
    """Positive numbers separated by commas, in ascending order; zero is dropped: it is the plain run."""
    try:
        weights = {float(part) for part in text.split(",") if part.strip()}
    except ValueError:
        weights = {math.nan}
    if not weights - {0.0} or not all(0 <= weight < math.inf for weight in weights):
        raise ArgumentError(
            "--weights cannot be used", expected="finite numbers above 0, separated by commas", got=text
        )
    return tuple(sorted(weights - {0.0}))


def run_sweep(sweep: Sweep, out: Path, *, resume: bool, progress: bool) -> dict[str, Any]:
    """Train everything, write ``trials/trials.jsonl``, the record, the report and the chosen model; the record.

    Trials that have ended are not repeated when resuming. The test parts are looked at once all trials have ended.
    """
    identity = identity_of(sweep.request, ",".join(sweep.priors), sweep.settings, file_digest(sweep.request.source))
    check_folder(out, identity, resume)
    case = functools.cache(sweep.case)
    first = case(sweep.seeds[0])
    prove(first)
    with run_folder(out, identity), torch_threads(1):
        start = time.monotonic()
        trials = _train(sweep, case, out / "trials", resume=resume, progress=progress)
        results = {(prior, weight): _judged(found, prior, case) for (prior, weight), found in _settings(trials).items()}
        chosen = _chosen(sweep, trials)
        judged_trials = results[PLAIN, 0.0] + [
            result | {"weight_choice": _as_dict(choice)}
            for prior, choice in chosen.items()
            for result in results[prior, choice.weight]
        ]
        compared = (PLAIN, next(iter(chosen)))
        shown = replace(first, arms=tuple(arm for arm in first.arms if arm.name in (PLAIN, *chosen)))
        record = record_of(shown, judged_trials, sweep.about, compared, time.monotonic() - start)
        record["notes"] = _notes(trials)
        figures = figures_of(judged_trials) | over_weights(sweep, trials, results)
        best = _settings(trials)[compared[1], chosen[compared[1]].weight][0]
        _save(out, first, best)
        report.write_record(out, record, figures)
        report.write_report(out, record, figures)
    return record


def _train(sweep: Sweep, case: Callable[[int], Case], folder: Path, *, resume: bool, progress: bool) -> list[Trial]:
    settings = sweep.settings
    first = case(sweep.seeds[0])

    def terms_of(prior: str) -> Callable[[Any], Sequence[Term]]:
        return lambda train: [table_term(sweep.table, choose(prior, images=False), train[0], 1.0)]

    return fit_many(
        lambda seed: case(seed).make_model(),
        first.loss,
        {PLAIN: [], **{prior: terms_of(prior) for prior in sweep.priors}},
        grid={"weight": sweep.weights},
        seeds=sweep.seeds,
        splits=lambda seed: case(seed).arms[0].data[:2],
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        patience=settings.patience,
        folder=folder,
        resume=resume,
        pruner=sweep.request.pruner,
        progress=progress,
    )


def _settings(trials: Sequence[Trial]) -> dict[tuple[str, float], list[Trial]]:
    """The trials that were trained to their end, by prior and weight (0 for the plain ones)."""
    found: dict[tuple[str, float], list[Trial]] = {}
    for trial in trials:
        of_setting = found.setdefault((trial.setting["prior"], trial.setting.get("weight", 0.0)), [])
        if trial.status == "trained":
            of_setting.append(trial)
    return found


def _judged(trials: Sequence[Trial], prior: str, case: Callable[[int], Case]) -> list[dict[str, Any]]:
    """Each trial's model measured on the test part of its split."""
    results = []
    for trial in trials:
        split = case(trial.seed)
        arm = next(arm for arm in split.arms if arm.name == prior)
        if trial.model is None:
            raise DataError("the model of a trial is missing", got=trial.setting)
        results.append(judged(split, arm, trial.seed, trial.model, trial.run, trial.run.seconds))
    return results


def _chosen(sweep: Sweep, trials: Sequence[Trial]) -> dict[str, WeightChoice]:
    """Each prior's weight by the validation loss: the rule of ``weight="auto"``, over seeds instead of examples.

    Only weights that came through with every seed take part, and only priors that have one.
    """
    found: dict[str, dict[float, torch.Tensor]] = {}
    for (prior, weight), of_setting in _settings(trials).items():
        if len(of_setting) == len(sweep.seeds):
            found.setdefault(prior, {})[weight] = torch.tensor([trial.run.best_value for trial in of_setting])
    if PLAIN not in found or len(found) < 2:
        raise DataError(
            "nothing came through with every seed that could be compared",
            expected="the plain run, and a weight of a prior, trained to the end with every seed",
            got=f"{sum(trial.status != 'trained' for trial in trials)} trials pruned or diverged (trials.jsonl)",
            mend="other --weights, a lower --lr, or no --pruner, in a new folder",
        )
    return {prior: pick(losses) for prior, losses in found.items() if prior != PLAIN}


def _as_dict(choice: WeightChoice) -> dict[str, Any]:
    return {
        "rule": "auto",
        "reason": choice.reason,
        "measure": "mean validation loss over seeds",
        "candidates": [vars(candidate) for candidate in choice.candidates],
    }


def _notes(trials: Sequence[Trial]) -> list[str]:
    """What the numbers do not tell: how the models were trained, and which did not come through."""
    notes = [f"The models were trained {reason}." for reason in dict.fromkeys(trial.reason for trial in trials)]
    for status, meaning in (("pruned", "stopped early by the pruner"), ("diverged", "ended with a loss not finite")):
        if count := sum(trial.status == status for trial in trials):
            notes.append(f"{count} of {len(trials)} trials were {meaning}; means over the others are of a selection.")
    return notes


def over_weights(
    sweep: Sweep, trials: Sequence[Trial], results: Mapping[tuple[str, float], Sequence[dict[str, Any]]]
) -> dict[str, Any]:
    """Curves and a table over the weights: the validation loss, the headline on the test part, and the Gini."""
    by_setting = _settings(trials)
    headline = next(n for n in HEADLINES["table"] if n in results[PLAIN, 0.0][0]["metrics"])
    measured: dict[str, Callable[[tuple[str, float]], list[float]]] = {
        "validation loss": lambda key: [float(trial.run.best_value or 0.0) for trial in by_setting[key]],
        f"{headline} (test)": lambda key: [result["metrics"][headline] for result in results[key]],
        "Gini of the importances": lambda key: [result["explanations"]["gini"] for result in results[key]],
    }
    bounds = {f"{headline} (test)": METRICS[headline].bounds, "Gini of the importances": (0.0, 1.0)}
    rows: list[list[Any]] = []
    curves: dict[str, list[dict[str, Any]]] = {title: [] for title in measured}
    for prior in (PLAIN, *sweep.priors):
        weights = [weight for name, weight in by_setting if name == prior and by_setting[name, weight]]
        found = {
            title: [interval(values((prior, weight)), bounds.get(title, (-math.inf, math.inf))) for weight in weights]
            for title, values in measured.items()
        }
        for i, weight in enumerate(weights):
            means = [found[title][i].mean for title in measured]
            rows.append([prior, weight, f"{len(by_setting[prior, weight])} of {len(sweep.seeds)}", *means])
        # a plain model has no weight: it is drawn as a level line
        ends = [sweep.weights[0], sweep.weights[-1]] if prior == PLAIN else weights
        for title, values in found.items():
            values = values * len(ends) if prior == PLAIN else values
            curves[title].append(
                {
                    "name": prior,
                    "x": ends,
                    "y": [one.mean for one in values],
                    "low": [one.low for one in values],
                    "high": [one.high for one in values],
                }
            )
    columns = ["prior", "weight", "seeds", *measured]
    return {
        "curves": [
            {"title": title[:1].upper() + title[1:], "x_label": "weight", "y_label": title, "series": series}
            for title, series in curves.items()
        ],
        "tables": [{"title": "Every setting, means over seeds", "columns": columns, "rows": rows}],
    }


def _save(out: Path, case: Case, trial: Trial) -> None:
    """The chosen weight's model of the first seed, as ``rightly fit`` leaves it."""
    if trial.model is None:
        raise DataError("the model of a trial is missing", got=trial.setting)
    facts = {"architecture": case.architecture, "task": case.task, "classes": list(case.classes)}
    save_model(out, trial.model, facts | case.attached | {"features": list(case.features)})
