"""docs/benchmarks.md from the committed results: ``python -m benchmarks.page > docs/benchmarks.md``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.schema import validate
from benchmarks.targets import Row, rows

RESULTS = Path(__file__).parent / "results"

_HEAD = """\
# Speed and memory

This page is made from `benchmarks/results/*.json`: `python -m benchmarks.page > docs/benchmarks.md`.

    ./run bench --list                     # the cases
    ./run bench                            # all of them: about 25 minutes of one core
    ./run bench --quick --only cnn         # a look, not a measurement
    taskset -c 0 ./run bench --threads 1 --peer pytorch_ops.py --out benchmarks/results/one-core.json

A run that was stopped goes on where it was: finished cases stay in the file; `--only` measures a case anew. The suite
uses a GPU when there is one.

**Method.** All variants of a case run in one process, in turn, forwards and backwards, after a warm-up; the numbers
are medians with quartiles over the rounds, a ratio being taken round by round. The clock is the process' CPU time,
on a GPU the time until it has finished. Every step includes its optimizer (Adam, fused). Memory is the largest sum
of what the allocator holds during one step beyond what it held before; scratch memory that libraries take for
themselves is not seen on a CPU. `gradient error` is the distance of an engine's prior gradient from double
backward's in float32, same weights, same draws; in float64 the tests hold the exact engines to 1e-10. Inputs and
weights are random. Variants:

- `plain`: the task loss alone. `by hand`: double backward as one writes it today, the k references folded into the
  batch.
- `auto`, `double-backward`, ...: `rt.Objective` with `Term(engine=...)`. What an engine refuses is listed with its
  words.
- `attributionpriors`: the authors' `pytorch_ops.py`, unmodified, with its own loader, where `--peer` names the file
  (the package of that name on the package index holds the TensorFlow part only). `captum`, `shap`, `acd`: where they
  are installed; `acd` 0.0.2 is told of the processor and of `np.int` from outside (`benchmarks/decomposition.py`).

**Floor.** With F multiply-adds in a forward pass and k references, a plain step is 3F. An exact prior step is at
least 3F + 4kF on a piecewise linear net (2.33 plain steps for k = 1) and 3F + 6kF on a smooth one (3.0). At the
training point itself, where the task's forward pass serves the prior too, it is 6F (2.0). Memory traffic, optimizer
and dispatch are not counted, so a measured ratio can fall below.
"""


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole page, from result files by name."""
    parts = [_HEAD]
    if not results:
        parts.append("No results are committed yet.\n")
    for name, found in results.items():
        parts.append("\n".join(_section(name, found)) + "\n")
    return "\n".join(parts)


def committed() -> dict[str, dict[str, Any]]:
    """The result files of the repository, checked."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))}
    for results in found.values():
        validate(results)
    return found


def target_table(results: Mapping[str, Any]) -> list[str]:
    """The table of what the project wants to reach."""
    lines = [_target_line(row) for row in rows(results)]
    return _table(("case", "measured", "by hand", "peer", "rightly", "target", "met"), lines)


def _target_line(row: Row) -> list[str]:
    measured = row.measured if isinstance(row.measured, str) else f"**{row.measured:.2f}**"
    met = {True: "yes", False: "**no**", None: "not measured"}[row.met]
    return [
        row.case,
        row.quantity,
        _two(row.by_hand),
        _two(row.peer),
        measured,
        row.target.replace("<=", "≤").replace(">=", "≥"),
        met,
    ]


def _section(name: str, results: Mapping[str, Any]) -> Iterator[str]:
    machine, cases = results["machine"], results["cases"]
    yield f"## {name}"
    yield ""
    what = machine["accelerator"] or machine["processor"]
    yield (
        f"{what}, {machine['cores']} core{'s' * (machine['cores'] > 1)}, {machine['threads']} "
        f"thread{'s' * (machine['threads'] > 1)}, torch {machine['torch']}, Python {machine['python']}; "
        f"clock: {machine['clock']}; peers: "
        + (", ".join(f"{peer} {version}" for peer, version in results["peers"].items() if version) or "none")
        + f"; measured {_together(case['date'] for case in cases.values())} "
        f"at {_together(case['commit'] for case in cases.values())}."
        + (" **A quick run: no measurement.**" if results["quick"] else "")
    )
    yield ""
    yield from target_table(results)
    for case in cases.values():
        yield ""
        yield f"### {case['title']}"
        yield ""
        yield from _CASES[case["kind"]](case)
        if picked := case["variants"].get("auto", {}).get("picked"):
            yield ""
            yield f"`auto` picks {picked}."
        refused = [
            f"- `{variant}` refuses: {found['refused']}"
            for variant, found in case["variants"].items()
            if "refused" in found
        ]
        if refused:
            yield ""
            yield from refused


def _steps(case: Mapping[str, Any]) -> Iterator[str]:
    yield f"Batch of {case['batch']}; the floor is {case['floor']:.2f}."
    yield ""
    head = ("variant", "ms a step", "ratio to plain", "quartiles", "to the floor", "MB", "gradient error", "repeats")
    lines = []
    for name, found in _running(case):
        ratio = found["ratio"]
        error = found.get("gradient_error")
        to_floor = "" if name.startswith("plain") else f"{ratio['median'] / case['floor']:.2f}"
        lines.append([
            f"`{name}`", f"{found['milliseconds']['median']:.3g}", f"{ratio['median']:.2f}",
            f"{ratio['low']:.2f} to {ratio['high']:.2f}", to_floor,
            f"{found['megabytes']:.3g}", "" if error is None else f"{error:.1e}", str(found["repeats"]),
        ])  # fmt: skip
    yield from _table(head, lines)


def _errors(case: Mapping[str, Any]) -> Iterator[str]:
    ladder = sorted({n for _, found in _running(case) for n in found["evaluations"]})
    yield "Root mean square error over that of the truth, at so many gradient evaluations an example."
    yield ""
    lines = []
    for name, found in _running(case):
        known = dict(zip(found["evaluations"], found["error"], strict=True))
        lines.append([f"`{name}`", *(f"{known[n]:.3f}" if n in known else "" for n in ladder)])
    yield from _table(("method", *map(str, ladder)), lines)


def _rates(case: Mapping[str, Any]) -> Iterator[str]:
    lines = [
        [f"`{name}`", f"{found['rate']['median']:.3g}", f"{found['rate']['low']:.3g} to {found['rate']['high']:.3g}",
         str(found.get("evaluations", "")), f"{found['error']:.3f}" if "error" in found else ""]
        for name, found in _running(case)
    ]  # fmt: skip
    yield from _table(("variant", case["unit"], "quartiles", "evaluations an example", "error"), lines)


def _ratios(case: Mapping[str, Any]) -> Iterator[str]:
    lines = [
        [f"`{name}`", f"{found['milliseconds']['median']:.3g}", f"{found['ratio']['median']:.3g}",
         f"{found['ratio']['low']:.3g} to {found['ratio']['high']:.3g}",
         f"{found['megabytes']:.3g}" if "megabytes" in found else "", str(found["repeats"])]
        for name, found in _running(case)
    ]  # fmt: skip
    yield from _table(("variant", "ms", f"ratio to `{case['base']}`", "quartiles", "MB", "repeats"), lines)


_CASES = {"steps": _steps, "error": _errors, "bulk": _rates, "sweep": _rates, "ratios": _ratios}


def _running(case: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield from ((name, found) for name, found in case["variants"].items() if "refused" not in found)


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *escaped)]


def _together(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values))) or "never"


def _two(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    sys.stdout.write(page(committed()))
