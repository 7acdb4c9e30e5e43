"""What is measured: a name for each case, and how it is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import ablation, decomposition, networks, posthoc, sweep
from benchmarks.harness import Effort, Refused, measure, peak_megabytes, ratios, reason, spread
from benchmarks.steps import ENGINES, Bench, Case


def piecewise(k: int, every: int = 1) -> float:
    """Floor of a piecewise linear net: 3F + 4kF over 3F, at every m-th step."""
    return 1 + 4 * k / 3 / every


def smooth(k: int) -> float:
    """Floor of a smooth net: 3F + 6kF over 3F."""
    return 1 + 2.0 * k


def _images(title: str, network: Callable[[int], Any], **changes: Any) -> Case:
    arguments = {"shape": (1, 28, 28), "batch": 50, "prior": "total variation", "floor": piecewise(1)}
    return Case(title, network, **{**arguments, **changes})


def _mlp(k: int) -> Case:
    title = f"MLP 118-512-128-32-1, k = {k}"
    return Case(title, networks.mlp, shape=(118,), batch=100, prior="sparsity", floor=piecewise(k), k=k)


_RIGHT_REASONS = {"prior": "irrelevant", "floor": 2.0, "k": 0}
_FOURTH = {"every": 4, "floor": piecewise(1, every=4)}

#: training steps; right-reasons shares the forward pass of the task where no dropout tells the two apart
STEPS: dict[str, Case] = {
    "cnn": _images("CNN, k = 1", networks.plain_cnn),
    "cnn-bn": _images("CNN with batch norm and dropout, k = 1", networks.paper_cnn),
    "mlp-1": _mlp(1),
    "mlp-10": _mlp(10),
    "mlp-100": _mlp(100),
    "resnet": _images("ResNet-18 with batch norm, k = 1", lambda seed: networks.seeded(networks.ResNet18, seed),
                      shape=(3, 32, 32), batch=8),
    "transformer": Case("transformer encoder, k = 1", lambda seed: networks.seeded(networks.Encoder, seed),
                        shape=(32, 128), batch=32, prior="l2", floor=smooth(1)),
    "lstm": Case("LSTM, k = 1", lambda seed: networks.seeded(networks.Recurrent, seed),
                 shape=(32, 64), batch=32, prior="l2", floor=smooth(1)),
    "vit": _images("small ViT, k = 1", lambda seed: networks.seeded(networks.ViT, seed),
                   shape=(3, 32, 32), batch=16, floor=smooth(1)),
    "right-reasons": _images("right reasons on the CNN", networks.plain_cnn, **_RIGHT_REASONS),
    "right-reasons-bn": _images("right reasons on the CNN with batch norm and dropout", networks.paper_cnn,
                                prior="irrelevant", floor=piecewise(1), k=0),
    "fourth": _images("prior every 4th step, CNN", networks.plain_cnn, **_FOURTH),
    "fourth-bn": _images("prior every 4th step, CNN with batch norm and dropout", networks.paper_cnn, **_FOURTH),
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """How the suite is run: quickly or not, where, with which peer code."""

    quick: bool
    device: torch.device
    options: bool = False
    peer: Path | None = None


def names() -> list[str]:
    """Every case, in the order in which the suite runs them."""
    return [
        *STEPS,
        *(f"error-{name}" for name in posthoc.MODELS),
        *(f"bulk-{name}" for name in posthoc.MODELS),
        "sweep",
        "ablation",
        *(f"decomposition-{name}" for name in decomposition.CASES),
    ]


def run(name: str, settings: Settings) -> dict[str, Any]:
    """The result of one case, as it goes into the file."""
    if name in STEPS:
        return run_steps(STEPS[name], settings)
    kind, _, which = name.partition("-")
    if kind == "error":
        return posthoc.run_error(which, settings.quick, settings.device)
    if kind == "bulk":
        return posthoc.run_bulk(which, settings.quick, settings.device)
    if kind == "decomposition":
        return decomposition.run_decomposition(which, settings.quick, settings.device)
    if kind == "ablation":
        return ablation.run_ablation(settings.quick, settings.device)
    return sweep.run_sweep(settings.quick, settings.device, settings.peer)


def run_steps(case: Case, settings: Settings) -> dict[str, Any]:
    """Time, memory and gradient error of every variant of a training step."""
    bench = Bench(case, settings.device, settings.peer)
    effort = Effort(seconds=2.0, least=2, most=5) if settings.quick else Effort()
    timings, steps = measure(bench.variants(settings.options), effort, settings.device)
    base = timings["plain"]
    if isinstance(base, Refused):
        raise RuntimeError(f"the plain step itself does not run: {base.reason}")
    variants: dict[str, Any] = {}
    for name, seconds in timings.items():
        if isinstance(seconds, Refused):
            variants[name] = {"refused": seconds.reason}
            continue
        variants[name] = {
            "milliseconds": spread([1e3 * s / case.every for s in seconds]),
            "ratio": ratios(seconds, base),
            "megabytes": round(peak_megabytes(steps[name], settings.device), 2),
            "repeats": len(seconds),
        }
        if name in ENGINES:
            variants[name] |= _agreement(bench, name)
    return {
        "kind": "steps",
        "title": case.title,
        "batch": case.batch,
        "k": case.k,
        "floor": case.floor,
        "variants": variants,
    }


def _agreement(bench: Bench, engine: str) -> dict[str, Any]:
    picked = {"picked": bench.picked(engine)} if engine == "auto" else {}
    try:
        return {**picked, "gradient_error": float(f"{bench.gradient_error(engine):.2g}")}
    except Exception as error:  # noqa: BLE001 (an engine may be there where double backward is not)
        return {**picked, "gradient_error": None, "note": reason(error)}
