"""How training went (curves by term) and how the weight was chosen."""

from __future__ import annotations

from collections.abc import Callable

from rightly.report.blocks import Block, Cell, Figure, Folded, Prose, Section, Table
from rightly.report.charts.axes import Key
from rightly.report.charts.lines import Frame, Line, lines, wants_log
from rightly.report.charts.weights import Candidate, weights
from rightly.report.cleaning import Record
from rightly.report.numerals import ABSENT, number, setting
from rightly.report.runs import Run, runs_of

Trace = Callable[[Record], list[float | None] | None]

_RULES = {
    "auto": "The weight was chosen automatically, on validation rows only; the test rows took no part.",
    "balance": "The weight was set so that the prior pulls on the model about as strongly as the task does.",
    "given": "The weight was given by the person who ran this.",
}


def training(record: Record) -> Section | None:
    """One small chart for the task, one for validation, one for each term."""
    runs = [run for run in runs_of(record) if run.record.get("history")]
    terms = sorted({name for run in runs for history in run.record["history"] for name in history.get("terms") or {}})
    traces: list[tuple[str, Trace]] = [
        ("Task loss (training rows)", lambda history: history.get("task")),
        ("Validation", lambda history: history.get("validation")),
        *((f"Penalty: {_named(term)}", _term(term)) for term in terms),
    ]
    panels = [panel for title, trace in traces if (panel := _panel(title, trace, runs))]
    if not panels:
        return None
    note = (
        "One thin line per seed. The open circle marks the epoch whose model was kept. Task loss falls as the model "
        "learns. A penalty may rise first: a model that has learned nothing has nothing to explain."
    )
    return Section("training", "How training went", [Figure("Training curves.", panels, note)])


def _named(term: str) -> str:
    return term.replace("_", " ")


def _term(term: str) -> Trace:
    def trace(history: Record) -> list[float | None] | None:
        found: list[float | None] | None = (history.get("terms") or {}).get(term)
        return found

    return trace


def _panel(title: str, trace: Trace, runs: list[Run]) -> str | None:
    drawn, keys = [], []
    for run in runs:
        found = [
            _seed(run, history, values)
            for history in run.record["history"]
            if (values := trace(history)) and any(value is not None for value in values)
        ]
        if found:
            keys.append(Key(run.title, run.colour, None))
            drawn += found
    if not drawn:
        return None
    log = wants_log([value for line in drawn for value in line.numbers()])
    y_label = "log scale" if log else ""
    description = f"By epoch, {len(drawn)} lines, one per seed and model"
    return lines(Frame(title, description, "Epoch", y_label, keys, height=130, log=log, whole_x=True), drawn)


def _seed(run: Run, history: Record, values: list[float | None]) -> Line:
    marks = [
        (epoch, value)
        for epoch, value in zip(history["epoch"], values, strict=True)
        if value is not None and epoch == history.get("best_epoch")
    ]
    return Line(history["epoch"], values, run.colour, width=1.3, opacity="0.75", marks=marks)


def weight(record: Record) -> Section | None:
    """For each run with a weight that was chosen: the rule, the reason, the candidates."""
    blocks: list[Block] = []
    for run in runs_of(record):
        if choice := run.record.get("weight_choice"):
            blocks += _choice(run, choice)
    return Section("weight", "How the weight was chosen", blocks) if blocks else None


def _choice(run: Run, choice: Record) -> list[Block]:
    blocks: list[Block] = [Prose([_told(run, choice)])]
    entries = choice.get("candidates") or []
    if entries:
        measure = choice.get("measure") or "Loss on the validation rows"
        candidates = [Candidate(e["weight"], e["mean"], e.get("error"), bool(e.get("chosen"))) for e in entries]
        chosen = next((setting(c.weight) for c in candidates if c.chosen), "none")
        chart = weights(
            run.title, f"{len(candidates)} weights tried; chosen: {chosen}.", candidates, measure, run.colour
        )
        note = "Bars show one standard error either way. The ringed weight was chosen."
        blocks.append(Figure("The weights that were tried.", [chart], note))
        blocks.append(Folded("The candidates as numbers", _table(candidates, measure)))
    return blocks


def _told(run: Run, choice: Record) -> str:
    """The weight, the rule by which it was found, and the reason that the record gives."""
    value, rule = run.record["weight"], choice.get("rule") or ""
    reason = _sentence(choice.get("reason") or "")
    chosen = [entry["weight"] for entry in choice.get("candidates") or [] if entry.get("chosen")]
    varies = value is not None and chosen and abs(chosen[0] - value) > 1e-6 * abs(value)
    parts = [
        f"\u201c{run.title}\u201d has a weight of {setting(value)}." if value is not None else "",
        _RULES[rule] if rule in _RULES and not (rule == "given" and reason) else "",
        reason,
        "It was chosen anew for each seed: the middle value is given, one of the choices is shown." if varies else "",
    ]
    return " ".join(part for part in parts if part)


def _sentence(text: str) -> str:
    """A reason as a sentence, whether it was written as one or not."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if not text or text[-1] in ".!?" else ".")


def _table(candidates: list[Candidate], measure: str) -> Table:
    rows = [
        [
            Cell(setting(c.weight), order=c.weight),
            Cell(number(c.mean), order=c.mean),
            Cell(ABSENT if c.error is None else number(c.error)),
            Cell("chosen" if c.chosen else ""),
        ]
        for c in sorted(candidates, key=lambda c: c.weight)
    ]
    return Table("The weights that were tried.", ["Weight", measure, "Standard error", ""], rows, frozenset({0, 1, 2}))
