"""The main job in its smallest form, from Python, and what of a record must not change from run to run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rightly.workflows.commands import job_for
from rightly.workflows.job import run_job
from rightly.workflows.request import Request


def fit(source: str | Path, out: Path, *, resume: bool = False, **arguments: Any) -> dict[str, Any]:
    """``rightly fit SOURCE``: two seeds, three epochs and weight 1 unless said otherwise; returns the record."""
    given = {"seeds": 2, "epochs": 3} | ({} if ":" in str(source) else {"weight": "1"}) | arguments
    job, _ = job_for(Request(str(source), **given))
    return run_job(replace(job, threads=1), out, resume=resume, progress=False)


def lasting(record: Any) -> Any:
    """A record without its date and its times."""
    if isinstance(record, dict):
        return {key: lasting(value) for key, value in record.items() if key not in ("created", "seconds")}
    return [lasting(value) for value in record] if isinstance(record, list) else record
