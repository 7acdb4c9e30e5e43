"""What each model relies on: measures of the explanations, importance, beeswarm and Lorenz curve."""

from __future__ import annotations

from typing import Any

from rightly.report.blocks import Block, Cell, Figure, Folded, Prose, Section, Table
from rightly.report.charts.axes import Key
from rightly.report.charts.bars import Bars, bars
from rightly.report.charts.beeswarm import MOST_DOTS, Swarm, beeswarm, reach
from rightly.report.charts.lines import Frame, Line, lines
from rightly.report.cleaning import Record
from rightly.report.numerals import ABSENT, count, interval, listed, percent
from rightly.report.palette import MUTED
from rightly.report.runs import Run, runs_of, title_of
from rightly.report.sections.results import MARKS, comparison_table, interval_panels, meanings
from rightly.report.words import judged_rows, ordered

_MOST_BARS, _MOST_SWARMS = 15, 12
_SPECIAL = {"importance", "lorenz"}

Shares = dict[str, tuple[float, float | None, float | None]]


def reliance(record: Record, figures: Record) -> Section | None:
    """All that the explanations say over the whole test set."""
    runs = runs_of(record)
    shares = {run.name: _shares(run.explanations["importance"]) for run in runs if run.explanations.get("importance")}
    blocks: list[Block] = [
        *_importance(runs, shares),
        *_swarms(record, figures.get("beeswarm") or {}, shares),
        *_lorenz(runs),
        *_measures(record, runs),
    ]
    if not blocks:
        return None
    return Section("reliance", "What each model relies on", [Prose([_lead(record)]), *blocks])


def _lead(record: Record) -> str:
    lead = (
        "An attribution says how much a feature moved one prediction, and which way. Importance is the size of "
        f"a feature's attributions, averaged over the {judged_rows(record['data'])}."
    )
    return f"{lead} {record['attribution']}" if record.get("attribution") else lead


def _shares(importance: list[dict[str, Any]]) -> Shares:
    """Importance scaled so that the means of a run sum to 1; all 0 stays 0."""
    total = sum(entry["mean"] for entry in importance)

    def share(value: float | None) -> float | None:
        return None if value is None else value / total if total > 0 else 0.0

    return {
        entry["feature"]: (share(entry["mean"]) or 0.0, share(entry.get("low")), share(entry.get("high")))
        for entry in importance
    }


def _ranked(shares: dict[str, Shares]) -> list[str]:
    """Features by their largest share in any run, largest first."""
    largest: dict[str, float] = {}
    for entries in shares.values():
        for feature, (mean, _, _) in entries.items():
            largest[feature] = max(largest.get(feature, 0.0), mean)
    return sorted(largest, key=lambda feature: (-largest[feature], feature))


def _importance(runs: list[Run], shares: dict[str, Shares]) -> list[Block]:
    if not shares:
        return []
    runs = [run for run in runs if run.name in shares]
    ranked = _ranked(shares)
    top = ranked[:_MOST_BARS]
    groups = [Bars(run.title, run.colour, run.shape, shares[run.name]) for run in runs]
    told = "; ".join(
        f"{run.title}: " + ", ".join(f"{f} {percent(shares[run.name][f][0])}" for f in top[:3] if f in shares[run.name])
        for run in runs
    )
    which = f"The {len(top)} most important of {len(ranked)} features" if len(ranked) > len(top) else "All features"
    caption = "Importance of the features."
    note = (
        f"{which}, by the largest share in any model. "
        "Each model's importance is scaled to a total of 100%. A long bar means that the model leans on the "
        "feature. Thin black lines are 95% intervals."
    )
    chart = bars("Importance", f"Largest shares. {told}.", top, groups)
    return [
        Figure(caption, [chart], note),
        Folded(f"All features as numbers ({len(ranked)})", _table(runs, shares, ranked)),
    ]


def _table(runs: list[Run], shares: dict[str, Shares], ranked: list[str]) -> Table:
    rows = [[Cell(feature), *(_share_cell(shares[run.name].get(feature)) for run in runs)] for feature in ranked]
    columns = ["Feature", *(run.title for run in runs)]
    return Table("Share of importance, with 95% intervals.", columns, rows, frozenset(range(1, len(columns))))


def _share_cell(share: tuple[float, float | None, float | None] | None) -> Cell:
    if share is None:
        return Cell(ABSENT)
    mean, low, high = share
    ends = "" if low is None or high is None else f"{percent(low)} to {percent(high)}"
    if low == high or percent(low) == percent(high):
        ends = ""
    return Cell(percent(mean), ends, mean)


def _swarms(record: Record, given: Record, shares: dict[str, Shares]) -> list[Block]:
    swarms = {name: {s["feature"]: Swarm(**s) for s in _fields(entries)} for name, entries in given.items() if entries}
    if not swarms:
        return []
    sizes: dict[str, Shares] = {
        name: {feature: (_size(swarm), None, None) for feature, swarm in entries.items()}
        for name, entries in swarms.items()
    }
    present = {feature for entries in swarms.values() for feature in entries}
    ranked = [f for f in _ranked(shares or sizes) if f in present] or _ranked(sizes)
    top = ranked[:_MOST_SWARMS]
    chosen = {name: [entries.get(f, Swarm(f, [], [])) for f in top] for name, entries in swarms.items()}
    span = reach([swarm for entries in chosen.values() for swarm in entries])
    order = [run.name for run in runs_of(record) if run.name in chosen]
    order += sorted(set(chosen) - set(order))
    panels = [
        beeswarm(
            title_of(name, record["runs"].get(name)),
            f"Attributions of {listed(top[:3])}{' and others' if len(top) > 3 else ''}, one dot per row.",
            chosen[name],
            span,
        )
        for name in order
    ]
    most = max(len(swarm.attributions) for entries in chosen.values() for swarm in entries)
    gaps = any(not swarm.attributions for entries in chosen.values() for swarm in entries)
    note = _swarm_note(most, len(panels)) + (" A feature without dots was not recorded for that model." if gaps else "")
    return [Figure("How the value of a feature moves the prediction.", panels, note)]


def _fields(entries: list[Record]) -> list[Record]:
    return [{key: entry[key] for key in ("feature", "values", "attributions")} for entry in entries]


def _size(swarm: Swarm) -> float:
    return sum(map(abs, swarm.attributions)) / max(len(swarm.attributions), 1)


def _swarm_note(most: int, panels: int) -> str:
    note = (
        "Each dot is one row of the test set. Right of the line, the feature raised the model's output for that "
        "row; left, it lowered it. Colour is the feature's value. Grey: no value, or no order among the values."
    )
    if panels > 1:
        note += " All models share one axis; the most extreme 0.5% of a feature may be drawn at its ends."
    if most > MOST_DOTS:
        note += f" {count(MOST_DOTS)} of {count(most, 'row')} are shown, chosen evenly."
    return note


def _lorenz(runs: list[Run]) -> list[Block]:
    drawn = [run for run in runs if run.explanations.get("lorenz")]
    if not drawn:
        return []
    x = [float(percent) for percent in range(101)]
    dashes = [None, "7 3", "2 3", "9 3 2 3"]
    curves = [Line([0.0, 100.0], [0.0, 100.0], MUTED, width=1, dash="3 3")]
    keys = []
    for index, run in enumerate(drawn):
        dash = dashes[index % len(dashes)]
        curves.append(Line(x, [100 * y for y in run.explanations["lorenz"]], run.colour, width=2.2, dash=dash))
        gini = run.explanations.get("gini")
        label = f"{run.title}, Gini {interval(gini)[0]}" if gini else run.title
        keys.append(Key(label, run.colour, None, dash))
    frame = Frame(
        "Lorenz curve of importance",
        "; ".join(key.label for key in keys),
        "Share of features, least important first (%)",
        "Share of importance that they hold (%)",
        keys,
        height=270,
        square=100.0,
    )
    note = (
        "On the dashed diagonal all features matter equally. The further a curve hangs below it, the fewer "
        "features carry the model; the Gini number is that distance on a scale from 0 to 1."
    )
    return [Figure("How concentrated the importance is.", [lines(frame, curves)], note)]


def _measures(record: Record, runs: list[Run]) -> list[Block]:
    entries = {
        run.name: {name: entry for name, entry in run.explanations.items() if name not in _SPECIAL} for run in runs
    }
    names = ordered({name for measures in entries.values() for name in measures})
    if not names:
        return []
    return [
        comparison_table(
            f"Measures of the explanations, on the {judged_rows(record['data'])}.", record, entries, names
        ),
        meanings(names, record["data"]),
        Figure("The same measures as a chart.", interval_panels(runs, entries, names), MARKS),
    ]
