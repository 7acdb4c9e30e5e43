"""How things are measured: warmed up, interleaved in one process, medians with quartiles, never a single run."""

from __future__ import annotations

import gc
import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

Step = Callable[[], object]


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes:
        seconds: for all variants of a case together, warm-up not counted.
        least, most: repeats of each variant.
    """

    seconds: float = 40.0
    least: int = 5
    most: int = 200


@dataclass(frozen=True)
class Refused:
    """A variant that cannot run here, and why."""

    reason: str


Timings = dict[str, list[float] | Refused]


def measure(
    variants: Mapping[str, Callable[[], Step]], effort: Effort, device: torch.device
) -> tuple[Timings, dict[str, Step]]:
    """Seconds of every repeat of every variant.

    Each round runs every variant once, every second round in reverse, so that drift of the machine meets all alike.
    The clock is the process' CPU time; on an accelerator the time until it has finished.

    Args:
        variants: name -> a function that prepares the variant and returns what is timed. Raising means refusing.

    Returns:
        The timings, and what is timed, of the variants that run.
    """
    timings: Timings = {}
    steps: dict[str, Step] = {}
    once = 0.0
    for name, prepare in variants.items():
        try:
            step = prepare()
            step()
            once += timed(step, device)
            steps[name] = step
        except Exception as error:  # noqa: BLE001 (whatever a peer or an engine raises is its reason)
            timings[name] = Refused(reason(error))
    gc.collect()
    rounds = max(effort.least, min(effort.most, int(effort.seconds / max(once, 1e-9))))
    found: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds):
        for name in steps if turn % 2 == 0 else reversed(steps):
            found[name].append(timed(steps[name], device))
    return {name: timings.get(name, found.get(name, [])) for name in variants}, steps


def timed(step: Step, device: torch.device) -> float:
    """Seconds of one call."""
    if device.type == "cpu":
        began = time.process_time()
        step()
        return time.process_time() - began
    torch.cuda.synchronize(device)
    began = time.perf_counter()
    step()
    torch.cuda.synchronize(device)
    return time.perf_counter() - began


def peak_megabytes(step: Step, device: torch.device) -> float:
    """Largest sum of what one call holds beyond what was held before it, in 10^6 bytes, as the allocator counts.

    On the CPU from the profiler's allocator events: scratch memory that libraries take for themselves is not seen.
    """
    if device.type != "cpu":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        step()
    events = [event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 1e6


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {name: float(f"{v:.{digits}g}") for name, v in (("median", median), ("low", low), ("high", high))}


def ratios(values: Sequence[float], base: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of value / base, round by round."""
    return spread([v / b for v, b in zip(values, base, strict=True)])


def reason(error: BaseException) -> str:
    """An exception in a line."""
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text}"[:300]


def metadata(device: torch.device) -> dict[str, Any]:
    """What the numbers depend on, as far as it can be read off."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device.type,
        "processor": _processor(),
        "accelerator": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "cores": cores,
        "threads": torch.get_num_threads(),
        "memory": "kept by the process" if "MALLOC_TRIM_THRESHOLD_" in os.environ else "as the system gives it",
        "clock": "process CPU time" if device.type == "cpu" else "time until the device has finished",
    }


def stamp() -> dict[str, str]:
    """When, and of which sources."""
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return {"date": datetime.now(UTC).strftime("%Y-%m-%d"), "commit": answer.stdout.strip() or "unknown"}


def _processor() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        found = None
    return found.group(1) if found else platform.processor() or platform.machine()
