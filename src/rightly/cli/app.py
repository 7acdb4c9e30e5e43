"""The commands and their arguments; the work is in ``rightly.workflows``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from rightly.cli.options import (
    BatchSize,
    Drop,
    Engine,
    Epochs,
    Irrelevant,
    OfTask,
    Out,
    Pruner,
    Quiet,
    Rate,
    Regions,
    Resume,
    Search,
    Seed,
    Seeds,
)

app = typer.Typer(
    help="Train models through their explanations: right for the right reasons, and shown to be.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        _say(f"rightly {metadata.version('rightly')}")
        raise typer.Exit


@app.callback()
def rightly(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Train models through their explanations: right for the right reasons, and shown to be."""


@app.command()
def fit(
    source: Annotated[str, typer.Argument(help="TABLE.csv or .parquet, a folder of images, or module:make_objective.")],
    label: Annotated[str | None, typer.Option(help="Column to predict (tables).")] = None,
    prior: Annotated[
        str | None,
        typer.Option(help="What is expected of the reasons; rightly list shows them."),
    ] = None,
    weight: Annotated[str | None, typer.Option(help="auto (by validation), balance, or a number.")] = None,
    out: Out = None,
    seed: Seed = 0,
    seeds: Seeds = 5,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: Rate = 1e-3,
    task: OfTask = None,
    drop: Drop = "",
    irrelevant: Irrelevant = "",
    rules: Annotated[
        str | None, typer.Option(help="TOML file of rules in words, in place of a prior (tables).")
    ] = None,
    annotations: Annotated[str | None, typer.Option(help="Folder of drawn regions (images).")] = None,
    regions: Annotated[Regions, typer.Option(help="What the regions mean.")] = Regions.irrelevant,
    size: Annotated[int | None, typer.Option(help="Resize images to this many pixels a side.")] = None,
    engine: Annotated[Engine | None, typer.Option(help="How the prior's input gradients are taken.")] = None,
    resume: Resume = False,
    quiet: Quiet = False,
) -> None:
    """Train without and with a prior on the same splits, compare, and write a report."""
    from rightly.workflows.commands import job_for
    from rightly.workflows.job import run_job
    from rightly.workflows.request import Request

    request = Request(
        source,
        label=label,
        prior=prior,
        weight=weight,
        seed=seed,
        seeds=seeds,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        task=task.value if task else None,
        drop=_names(drop),
        irrelevant=_names(irrelevant),
        rules=rules,
        annotations=annotations,
        regions=regions.value,
        size=size,
        engine=engine.value if engine else None,
    )
    job, name = job_for(request)
    folder = _announced(out, name, job.about, resume, quiet)
    _show(run_job(job, folder, resume=resume, progress=not quiet), folder)


@app.command()
def sweep(
    source: Annotated[str, typer.Argument(help="TABLE.csv or .parquet.")],
    label: Annotated[str | None, typer.Option(help="Column to predict.")] = None,
    prior: Annotated[str | None, typer.Option(help="One or several, separated by commas.")] = None,
    weights: Annotated[str, typer.Option(help="To try, separated by commas.")] = "0.001,0.01,0.1,1,10",
    out: Out = None,
    seed: Seed = 0,
    seeds: Seeds = 5,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: Rate = 1e-3,
    task: OfTask = None,
    drop: Drop = "",
    irrelevant: Irrelevant = "",
    pruner: Annotated[
        Pruner | None, typer.Option(help="Stop hopeless trainings early, by validation (extra: sweep).")
    ] = None,
    resume: Resume = False,
    quiet: Quiet = False,
) -> None:
    """Train a table's model with every weight of a prior and many seeds, and show what the weight changes."""
    from rightly.workflows.sweep import SweepRequest, run_sweep, sweep_for

    request = SweepRequest(
        source,
        label=label,
        prior=prior,
        weights=weights,
        seed=seed,
        seeds=seeds,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        task=task.value if task else None,
        drop=_names(drop),
        irrelevant=_names(irrelevant),
        pruner=pruner.value if pruner else None,
    )
    found = sweep_for(request)
    folder = _announced(out, found.name, found.about, resume, quiet)
    _show(run_sweep(found, folder, resume=resume, progress=not quiet), folder)


@app.command()
def discover(
    source: Annotated[str, typer.Argument(help="TABLE.csv or .parquet, or a folder of images.")],
    label: Annotated[str | None, typer.Option(help="Column to predict (tables).")] = None,
    method: Annotated[
        Search, typer.Option(help="One after the other, or all at once with orthogonal gradients.")
    ] = Search.sequential,
    models: Annotated[
        int | None, typer.Option(help="At most, one after the other (5); or how many at once (2).")
    ] = None,
    weight: Annotated[str | None, typer.Option(help="Of the penalty: balance, or a number.")] = None,
    cutoff: Annotated[float, typer.Option(help="Gradients above this share of the largest count as used.")] = 0.67,
    tolerance: Annotated[float, typer.Option(help="Accuracy that a model may lose.")] = 0.05,
    out: Out = None,
    seed: Seed = 0,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: Rate = 1e-3,
    task: OfTask = None,
    drop: Drop = "",
    size: Annotated[int | None, typer.Option(help="Resize images to this many pixels a side.")] = None,
    resume: Resume = False,
    quiet: Quiet = False,
) -> None:
    """Find models that are right for different reasons, and show them side by side to choose from."""
    from rightly.workflows.discovering import DiscoverRequest, run_search, search_for

    request = DiscoverRequest(
        source,
        label=label,
        method=method.value,
        models=models,
        weight=weight,
        cutoff=cutoff,
        tolerance=tolerance,
        seed=seed,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        task=task.value if task else None,
        drop=_names(drop),
        size=size,
    )
    search = search_for(request)
    folder = _announced(out, search.name, search.about, resume, quiet)
    record = run_search(search, folder, resume=resume, progress=not quiet)
    _show(record, folder)
    _say("\n".join(record["conclusion"]))


@app.command()
def demo(
    quick: Annotated[bool, typer.Option("--quick", help="Two seeds instead of five.")] = False,
    out: Out = None,
    resume: Resume = False,
    quiet: Quiet = False,
) -> None:
    """Two models that were right for the wrong reasons become right for better ones, on data that come along."""
    from rightly.workflows.demo import promises, run_demo

    folder = out or _numbered("demo", resume)
    found = run_demo(folder, seeds=2 if quick else 5, resume=resume, progress=not quiet)
    for where, record in found:
        _say(f"\n{record['title']}\n")
        _show(record, where)
    kept = promises({where.name: record for where, record in found})
    _say("")
    for text, true in kept:
        _say(f"{'as promised ' if true else 'NOT AS PROMISED'}  {text}")
    if not all(true for _, true in kept):
        raise typer.Exit(1)


@app.command()
def explain(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    data: Annotated[Path, typer.Argument(help="Table with the same columns, or folder of images.")],
    out: Annotated[Path, typer.Option(help="CSV of predictions and attributions to write (replaced if there).")] = Path(
        "explanations.csv"
    ),
    samples: Annotated[int, typer.Option(help="References an example.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Explain a run's model, with the prior, on other data: one row of attributions for each row."""
    from rightly.workflows.explaining import explain_run

    _say(explain_run(run, data, out, samples=samples, seed=seed, progress=not quiet))


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    data: Annotated[Path, typer.Argument(help="Table with the same columns, or folder of images.")],
    methods: Annotated[
        str, typer.Option(help="Ways to explain, separated by commas.")
    ] = "expected_gradients,gradient,input_x_gradient",
    metrics: Annotated[str, typer.Option(help="Measures, separated by commas; all that fit by default.")] = "",
    annotations: Annotated[Path | None, typer.Option(help="Folder of drawn regions (images).")] = None,
    regions: Annotated[Regions, typer.Option(help="What the regions mean.")] = Regions.irrelevant,
    irrelevant: Annotated[str, typer.Option(help="Columns that must not matter (tables).")] = "",
    examples: Annotated[int, typer.Option(help="Rows explained, at most.")] = 200,
    samples: Annotated[int, typer.Option(help="References an example.")] = 50,
    out: Annotated[Path | None, typer.Option(help="Folder to write, new or empty.")] = None,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Measure a run's models on other data: predictions, and whether their explanations can be trusted."""
    from rightly.workflows.evaluated import EvaluationRequest
    from rightly.workflows.evaluating import evaluate_run

    request = EvaluationRequest(
        run,
        data,
        methods=_names(methods),
        metrics=_names(metrics),
        annotations=annotations,
        regions=regions.value,
        irrelevant=_names(irrelevant),
        examples=examples,
        samples=samples,
        seed=seed,
    )
    folder = out or _numbered(f"{run.name}-evaluation", False)
    _say(f"{evaluate_run(request, folder, progress=not quiet)}\n\nreport: {folder / 'report.html'}")


@app.command()
def check(
    maker: Annotated[str, typer.Argument(help="module:make_objective.")],
    seed: Annotated[int, typer.Option(help="Passed to the function.")] = 0,
) -> None:
    """Prove before training that every term reaches the parameters with the right gradient, and at what cost."""
    from rightly.workflows.checking import check_maker

    report, decomposed = check_maker(maker, seed)
    _say(f"{report}\n\n{decomposed}")
    if not report.ok:
        raise typer.Exit(1)


@app.command(name="list")
def list_components(
    family: Annotated[str | None, typer.Argument(help="space, reference, attribution or prior.")] = None,
) -> None:
    """List what can be combined, with one line each."""
    from rightly.workflows.catalogue import listing

    _say(listing(family))


@app.command()
def show(name: Annotated[str, typer.Argument(help="A component or a reproduction.")]) -> None:
    """Show a component: arguments, meaning, traits, source."""
    from rightly.workflows.catalogue import description

    _say(description(name))


@app.command()
def reproduce(
    name: Annotated[str | None, typer.Argument(help="Of the published result; none lists them.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every one.")] = False,
    full: Annotated[bool, typer.Option("--full", help="The paper's size instead of the reduced one.")] = False,
    out: Out = None,
    seed: Seed = 0,
    data_dir: Annotated[Path | None, typer.Option(help="Where the data sets are.")] = None,
    dataset: Annotated[str | None, typer.Option(help="For recipes that know several; the paper's by default.")] = None,
    engine: Annotated[Engine, typer.Option(help="How the priors' input gradients are taken.")] = Engine.auto,
    workers: Annotated[int, typer.Option(help="Processes that share the trainings; each training has one thread.")] = 1,
    resume: Resume = False,
    quiet: Quiet = False,
) -> None:
    """Run a published result, the paper's number beside ours."""
    from rightly.workflows import reproduce as reproductions

    known = reproductions.names()
    if name is None and not all_:
        _say("\n".join(f"{key:20} {line}" for key, line in known.items()))
        return
    for chosen in list(known) if name is None else [name]:
        folder = out / chosen if out and all_ else out or _numbered(chosen, resume)
        where = reproductions.reproduce(
            chosen,
            full=full,
            out=folder,
            seed=seed,
            data_dir=data_dir,
            resume=resume,
            progress=not quiet,
            dataset=dataset,
            engine=engine.value,
            workers=workers,
        )
        _say(f"{reproductions.summary(where)}\n\nreport: {where / 'report.html'}")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _announced(out: Path | None, name: str, about: dict[str, Any], resume: bool, quiet: bool) -> Path:
    """The run's folder, told with what was noticed in the data."""
    folder = out or _numbered(name, resume)
    if not quiet:
        notes = about["data"].get("notes", [])
        sys.stderr.write("".join(f"{line}\n" for line in (*notes, f"the run's folder is {folder}")))
    return folder


def _numbered(name: str, resume: bool) -> Path:
    """``runs/NAME-1``, ``-2``, ...: the first that is free; when resuming, the last that is there."""
    number = 1
    while (Path("runs") / f"{name}-{number}").exists():
        number += 1
    return Path("runs") / f"{name}-{max(1, number - 1) if resume else number}"


def _show(record: dict[str, object], folder: Path) -> None:
    from rightly.report import results_table

    _say(results_table(record))
    _say(f"\nreport: {folder / 'report.html'}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
