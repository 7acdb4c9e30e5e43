"""Many small trainings: ``rt.fit_many`` against one after the other, ours and the peer's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import TensorDataset

import rightly as rt
from benchmarks import networks
from benchmarks.harness import Effort, Refused, Step, measure, spread
from benchmarks.steps import peer_code

_WEIGHT = 0.1


def run_sweep(quick: bool, device: torch.device, peer: Path | None) -> dict[str, Any]:
    """Models a second, the mortality network on 100 rows as in the article, k = 1, one step an epoch."""
    models, epochs = (4, 3) if quick else (32, 100)
    draws = torch.Generator().manual_seed(0)
    inputs = torch.randn(100, 118, generator=draws).to(device)
    labels = (inputs[:, 0] > 0).to(inputs)[:, None]

    def ours(**arguments: Any) -> Step:
        def step() -> None:
            rt.fit_many(
                networks.mlp,
                F.binary_cross_entropy_with_logits,
                [rt.Term(rt.ExpectedGradients(rt.references.Sample(inputs)), rt.priors.Sparsity(), _WEIGHT)],
                (inputs, labels),
                seeds=range(models),
                epochs=epochs,
                batch_size=100,
                device=device,
                keep_models=False,
                **arguments,
            )

        return step

    variants = {
        "rightly": ours,
        "rightly, one after the other": lambda: ours(at_once=1),
        "attributionpriors": lambda: _peer(peer, inputs, labels, models, epochs),
    }
    effort = Effort(seconds=1.0, least=2, most=3) if quick else Effort(seconds=40.0, least=3, most=3)
    timings, _ = measure(variants, effort, device)
    rows = {
        name: {"refused": seconds.reason}
        if isinstance(seconds, Refused)
        else {"rate": spread([models / s for s in seconds])}
        for name, seconds in timings.items()
    }
    title = f"sweep of {models} networks 118-512-128-32-1, k = 1, {epochs} steps each"
    return {"kind": "sweep", "title": title, "unit": "models/s", "variants": rows}


def _peer(path: Path | None, inputs: Tensor, labels: Tensor, models: int, epochs: int) -> Step:
    """The authors' code as its examples use it, with the fused optimizer that they could have had."""
    explain = peer_code(path).AttributionPriorExplainer
    dataset = TensorDataset(inputs.cpu())

    def step() -> None:
        for seed in range(models):
            model = networks.mlp(seed).to(inputs.device)
            optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
            explainer = explain(dataset, len(inputs), k=1)
            for _ in range(epochs):
                optimizer.zero_grad(set_to_none=True)
                penalty = rt.functional.sparsity(explainer.shap_values(model, inputs))
                (F.binary_cross_entropy_with_logits(model(inputs), labels) + _WEIGHT * penalty).backward()
                optimizer.step()

    return step
