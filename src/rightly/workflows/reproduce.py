"""Published results, ours beside the paper's: finds a recipe in the checkout's experiments folder and runs it.

A recipe is a file ``experiments/<paper>/<name>.py`` with a function ``run(settings) -> Outcome``. It trains through
``settings.trials``, which writes each finished trial as a line of ``trials.jsonl``: a killed run goes on with
``resume`` and repeats nothing. What a recipe returns becomes ``record.json``, ``figures.json`` and ``report.html``.
"""

from __future__ import annotations

import ast
import importlib.util
import math
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError, RightlyError
from rightly.data.noted import noted
from rightly.evaluation import Comparison, adjust, compare, interval
from rightly.objectives.term import EngineName
from rightly.report import read_record, write_record, write_report
from rightly.workflows.resumable import Row as Row
from rightly.workflows.resumable import Trials as Trials
from rightly.workflows.summary import engines_of

Size = Literal["smoke", "reduced", "full"]

#: a source checkout's recipes; an installed copy has none
EXPERIMENTS = Path(__file__).resolve().parents[3] / "experiments"


#: what stands in the place of the paper's number or words for a statement that the paper does not make
OURS = frozenset(
    {
        "-",
        "ours alone",
        "not in the paper",
        "not published",
        "not stated",
        "not told",
        "not given",
        "not given here",
        "not tested",
        "not measured",
        "not claimed: its steps call the model",
        "no number among our sources",
        "a needed control (VisFIS 2022)",
    }
)


def is_published(paper: str) -> bool:
    """Whether a claim is the paper's, by what stands beside it; records of before ``published`` tell it so too."""
    return paper not in OURS


@dataclass(frozen=True)
class Claim:
    """A statement, the paper's or ours, and what a run says of it.

    Attributes:
        claim: in words.
        paper: its number or words; one of ``OURS`` for a statement that is not the paper's.
        ours: what was found.
        holds: None where this run neither shows nor refutes it.
    """

    claim: str
    paper: str
    ours: str
    holds: bool | None

    @property
    def published(self) -> bool:
        """Whether the paper makes it."""
        return is_published(self.paper)

    @property
    def verdict(self) -> str:
        """``holds``, ``does not hold`` or ``not shown``."""
        return {True: "holds", False: "does not hold", None: "not shown"}[self.holds]


@dataclass(frozen=True)
class Outcome:
    """What a recipe found.

    Attributes:
        title, question: of the report.
        reduction: what is smaller than in the paper, in one sentence.
        data, runs, comparison: as in the record (schema 1).
        claims: the paper's, judged.
        notes: what else differs from the paper, and why.
        figures: maps, curves and tables of the report.
    """

    title: str
    question: str
    reduction: str
    data: Row
    runs: dict[str, Row]
    comparison: dict[str, Row]
    claims: Sequence[Claim]
    notes: Sequence[str] = ()
    figures: Row = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """How a recipe is to run.

    Attributes:
        size: ``full`` as in the paper, ``reduced`` to minutes, ``smoke`` to seconds (for tests; shows nothing).
        seed: of everything.
        data_dir: where to look for data first.
        dataset: one of the recipe's ``DATASETS``.
        engine: of every term.
        trials: where to train.
    """

    size: Size
    seed: int
    data_dir: Path | None
    dataset: str | None
    engine: EngineName
    trials: Trials

    def sized(self, **sizes: Any) -> Any:
        """The entry of this size: ``settings.sized(smoke=1, reduced=12, full=64)``."""
        return sizes[self.size]


def names() -> dict[str, str]:
    """Every reproduction with the first line of its description; empty where there is no source checkout."""
    return {name: _first_line(path) for name, path in _files().items()}


def reproduce(
    name: str,
    *,
    full: bool = False,
    out: str | Path | None = None,
    seed: int = 0,
    data_dir: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    dataset: str | None = None,
    engine: EngineName = "auto",
    workers: int = 1,
    smoke: bool = False,
) -> Path:
    """Run a reproduction and write its folder: trials.jsonl, record.json, figures.json, report.html.

    Args:
        name: one of ``names()``.
        full: the paper's size instead of minutes.
        out: the folder; by default ``runs/reproduce-<name>`` here.
        seed: of everything.
        data_dir: a folder to look for data in first.
        resume: go on with the trials of a run that was killed.
        progress: show a bar with the time left.
        dataset: for recipes that know several; by default the paper's.
        engine: how the terms' input gradients are taken (see ``rt.Term``).
        workers: processes that share the trials; they change no result. A trial has one thread, whatever their number.
        smoke: seconds instead of minutes: whether it runs, not what it shows.

    Returns:
        The folder.

    Raises:
        RightlyError: there is no source checkout.
        ArgumentError: an unknown name, data set or engine, or the folder holds an earlier run.
        CheckpointError: the folder's trials belong to other settings, or to other data.
        DataError: the data set is not here.
    """
    path = _find(name)
    recipe = _load(path)
    chosen = _dataset(name, recipe, dataset)
    if engine not in get_args(EngineName):
        raise ArgumentError("unknown engine", expected=", ".join(get_args(EngineName)), got=repr(engine))
    size: Size = "full" if full else "smoke" if smoke else "reduced"
    folder = Path("runs") / f"reproduce-{name}" if out is None else Path(out)
    identity = {"name": name, "size": size, "seed": seed, "dataset": chosen, "engine": engine}
    check_count("workers", workers)
    trials = Trials(folder / "trials.jsonl", identity, resume=resume, progress=progress, workers=workers)
    settings = Settings(size, seed, None if data_dir is None else Path(data_dir), chosen, engine, trials)
    with noted():
        outcome: Outcome = recipe.run(settings)
        trials.check_data()
    flags = [f"--dataset {chosen}"] if dataset is not None else []
    flags += [f"--engine {engine}"] if engine != "auto" else []
    flags += {"full": ["--full"], "smoke": ["--smoke"], "reduced": []}[size]
    command = " ".join(["rightly reproduce", name, *flags, f"--seed {seed}"])
    record, figures = _record(outcome, command, _first_line(path).partition(":")[0])
    write_record(folder, record, figures)
    write_report(folder, record, figures)
    return folder


def summary(folder: str | Path) -> str:
    """The claims of a finished reproduction as a table to print, the reduction under it."""
    record = read_record(folder)
    head = {"claim": "claim", "paper": "paper", "ours": "ours", "verdict": ""}
    rows = [head, *record["claims"]]
    widths = {key: max(len(row[key]) for row in rows) for key in ("claim", "paper", "ours")}
    lines = ["  ".join([*(row[key].ljust(wide) for key, wide in widths.items()), row["verdict"]]) for row in rows]
    return "\n".join([record["title"], "", *(line.rstrip() for line in lines), "", record["reduction"]])


def run_entry(
    rows: Sequence[Row],
    metrics: Mapping[str, str],
    explanations: Mapping[str, str] | None = None,
    *,
    weight: float | None = None,
    **further: Any,
) -> Row:
    """A run of the record from its trials, one a seed.

    Args:
        rows: of ``Trials.run``; each has a ``seed``.
        metrics, explanations: name in the record -> name in the rows.
        weight: the term's.
        **further: ``title``, ``prior``, ``weight_choice``, ``history``.
    """
    entry = {
        "seeds": [row["seed"] for row in rows],
        "weight": weight,
        "metrics": {"test": {name: over(rows, key) for name, key in metrics.items()}},
        "explanations": {name: over(rows, key) for name, key in (explanations or {}).items()},
        "seconds": sum(row["seconds"] for row in rows),
        "engines": engines_of([row.get("engines", {}) for row in rows]),
    }
    return {**entry, **further}


def shown(found: Comparison) -> bool | None:
    """Whether the second is larger (True) or smaller (False) than the first, or neither is shown: p of 0.05 or more."""
    return found.difference > 0 if found.p is not None and found.p < 0.05 else None


def bounded(found: Row, *, least: float = -math.inf, most: float = math.inf) -> bool | None:
    """Whether what was measured (an interval's ``low`` and ``high``) lies between bounds, outside, or neither.

    Neither, too, where it was measured once: an interval without width says nothing of chance.
    """
    if found["low"] == found["high"] and len(found.get("values", ())) < 2:
        return None
    if least <= found["low"] and found["high"] <= most:
        return True
    return False if found["high"] < least or found["low"] > most else None


def adjusted(found: Sequence[Comparison]) -> list[Comparison]:
    """Comparisons that claims are judged by together, their p corrected for how many they are (Benjamini, Hochberg)."""
    return [replace(test, p=p) for test, p in zip(found, adjust([test.p for test in found]), strict=True)]


def over(rows: Sequence[Row], key: str) -> Row:
    """Mean and 95 % interval of a result over trials, with its values."""
    return interval([row[key] for row in rows]).as_dict()


def compared(rows: Sequence[Row], first: str, second: str, *, test_share: float | None = None) -> Comparison:
    """Of two results of the same trials, the second less the first; ``test_share`` as in ``compare``."""
    return compare([row[first] for row in rows], [row[second] for row in rows], test_share=test_share)


def _files() -> dict[str, Path]:
    if not (EXPERIMENTS.parent / "pyproject.toml").is_file():
        return {}
    return {path.stem.replace("_", "-"): path for path in sorted(EXPERIMENTS.glob("*/*.py"))}


def _find(name: str) -> Path:
    files = _files()
    if not files:
        raise RightlyError(
            "reproductions run from a source checkout",
            expected=f"the recipes in {EXPERIMENTS}",
            got="an installed copy without them",
            mend="clone the repository, run 'pip install -e .' in it, and try again",
        )
    if name not in files:
        raise ArgumentError(f"there is no reproduction '{name}'", expected=", ".join(files), got=repr(name))
    return files[name]


def _first_line(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def _load(path: Path) -> ModuleType:
    """The recipe as a module of its own: nothing can import it by name."""
    spec = importlib.util.spec_from_file_location(f"rightly-experiment {path.stem}", path)
    if spec is None or spec.loader is None:
        raise RightlyError(f"the recipe {path} cannot be read")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _dataset(name: str, recipe: ModuleType, dataset: str | None) -> str | None:
    known: tuple[str, ...] = getattr(recipe, "DATASETS", ())
    if dataset is None:
        return known[0] if known else None
    if dataset not in known:
        expected = ", ".join(known) or "none: it has a data set of its own"
        raise ArgumentError(f"'{name}' cannot run on this data set", expected=expected, got=repr(dataset))
    return dataset


def _record(outcome: Outcome, command: str, source: str) -> tuple[Row, Row]:
    """Record and figures of an outcome; the claims come first, in words and as a table."""
    claims = [{**vars(claim), "published": claim.published, "verdict": claim.verdict} for claim in outcome.claims]
    record = {
        "schema": 1,
        "command": "reproduce",
        "title": outcome.title,
        "question": outcome.question,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "rerun": command,
        "source": source,
        "versions": _versions(),
        "data": outcome.data,
        "runs": outcome.runs,
        "comparison": outcome.comparison,
        "conclusion": _conclusion(outcome),
        "notes": [outcome.reduction, *outcome.notes],
        "reduction": outcome.reduction,
        "claims": claims,
    }
    table = {
        "title": "The paper's claims and what we found.",
        "columns": ["Claim", "Paper", "Ours", "Verdict"],
        "rows": [[c["claim"], c["paper"], c["ours"], c["verdict"]] for c in claims],
    }
    return record, {**outcome.figures, "tables": [table, *outcome.figures.get("tables", [])]}


def _conclusion(outcome: Outcome) -> list[str]:
    """How many claims hold, then each."""
    told = []
    for c in outcome.claims:
        found = f"{c.paper} in the paper, {c.ours} here." if c.published else f"{c.ours}."
        told.append(f"{c.verdict.capitalize()}. {c.claim}: {found}")
    counted = []
    for published, name in ((True, "published claims"), (False, "claims that are ours alone")):
        if holds := [c.holds is True for c in outcome.claims if c.published is published]:
            counted.append(f"{sum(holds)} of {len(holds)} {name}")
    held = ", ".join(counted)
    return [f"{held} hold here. {outcome.reduction}", *told]


def _versions() -> dict[str, str]:
    return {
        "rightly": version("rightly"),
        "torch": str(sys.modules["torch"].__version__),
        "python": platform.python_version(),
    }
