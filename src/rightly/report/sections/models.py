"""The models compared: what each run is, with its marker, which is the legend of every later chart."""

from __future__ import annotations

from rightly.report.blocks import Facts, Model, Models, Prose, Section
from rightly.report.charts import svg
from rightly.report.cleaning import Record
from rightly.report.numerals import count, duration, setting
from rightly.report.runs import Run, runs_of

_PLAIN = "Trained for the task alone, with nothing expected of its explanations."


def models(record: Record) -> Section:
    """One card per run."""
    runs = runs_of(record)
    lead = (
        "One model was trained."
        if len(runs) == 1
        else "All models have the same design and were trained on the same rows; "
        "they differ in what is written here. Colour and shape stand for a model in every chart below."
    )
    return Section(
        "models",
        "The models compared" if len(runs) > 1 else "The model",
        [
            Prose([lead]),
            Models([_model(run) for run in runs]),
        ],
    )


def swatch(run: Run) -> str:
    """A run's marker as a small picture of its own."""
    mark = svg.marker(run.shape, 8, 8, 6, run.colour)
    return svg.element(
        "svg", mark, xmlns="http://www.w3.org/2000/svg", viewBox="0 0 16 16", class_="swatch", aria_hidden="true"
    )


def _model(run: Run) -> Model:
    prior = run.record.get("prior") or {}
    weight = run.record["weight"]
    facts = [
        ("Prior", prior.get("name") or ""),
        ("Attribution", prior.get("attribution") or ""),
        ("Reference", prior.get("reference") or ""),
        ("Weight", "none" if weight is None else setting(weight)),
        ("Engine", _engines(run.record.get("engines", {}))),
        ("Trained", f"{count(len(run.record['seeds']), 'time')} (one seed each)"),
        ("Time", duration(run.record["seconds"]) if run.record["seconds"] else ""),
    ]
    description = prior.get("description") or (_PLAIN if run.name == "plain" else "")
    return Model(swatch(run), run.title, description, Facts([(term, text) for term, text in facts if text]))


def _engines(engines: Record) -> str:
    """How the input gradients were taken; by term where that differs."""
    if len(set(engines.values())) == 1:
        return str(*set(engines.values()))
    return "; ".join(f"{term} by {text}" for term, text in sorted(engines.items()))
