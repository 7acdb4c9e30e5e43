"""The 18 ablation metrics: explanations a second, all of them and by how features are replaced."""

from __future__ import annotations

from typing import Any

import torch

import rightly as rt
from benchmarks.harness import Effort, Refused, Step, measure, spread
from rightly.evaluation import ABLATION_METRICS, ablation


def run_ablation(quick: bool, device: torch.device) -> dict[str, Any]:
    """Explanations of a network 60-32-20-20-1 against a background of 900 rows."""
    count = 20 if quick else 1000
    draws = torch.Generator().manual_seed(0)
    rows, phi = (torch.randn(count, 60, generator=draws).to(device) for _ in range(2))
    background = torch.randn(900, 60, generator=draws).to(device)
    model = rt.models.mlp(60, (32, 20, 20), 1, seed=0).to(device)

    def step(metrics: list[str]) -> Step:
        return lambda: ablation(model, rows, phi, background, rows.sum(1), metrics=metrics)

    chosen = {"all 18": list(ABLATION_METRICS)}
    for how in ("mask", "resample", "impute"):
        chosen[f"the 6 by {how}"] = [metric for metric in ABLATION_METRICS if metric.endswith(how)]
    effort = Effort(seconds=1.0, least=2, most=3) if quick else Effort(seconds=30.0, least=3, most=10)
    timings, _ = measure(
        {name: lambda metrics=metrics: step(metrics) for name, metrics in chosen.items()}, effort, device
    )
    variants = {
        name: {"refused": seconds.reason}
        if isinstance(seconds, Refused)
        else {"rate": spread([count / s for s in seconds])}
        for name, seconds in timings.items()
    }
    title = f"ablation metrics of {count:,} explanations of 60 features"
    return {"kind": "bulk", "title": title, "unit": "explanations/s", "variants": variants}
