"""Explaining trained networks: error against number of gradient evaluations, and throughput at equal error."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rightly as rt
from benchmarks import networks
from benchmarks.harness import Effort, Refused, Step, measure, reason, spread

#: quadrature nodes a reference for the truth; all references are used, so its only error is along the path
_NODES = 32
_LADDER = (16, 24, 32, 48, 64, 96, 128, 192, 256)

#: (model, inputs, background, evaluations an example, seed) -> attributions of the single output
Method = Callable[[nn.Module, Tensor, Tensor, int, int], Tensor]


@dataclass(frozen=True)
class Trained:
    """A fresh network with a single output, fresh inputs, and what they are compared with."""

    model: nn.Module
    inputs: Tensor
    background: Tensor


def _captum(model: nn.Module, inputs: Tensor, background: Tensor, n: int, seed: int) -> Tensor:
    from captum.attr import GradientShap

    np.random.seed(seed)  # noqa: NPY002 (captum draws from the global state)
    torch.manual_seed(seed)
    return GradientShap(model).attribute(inputs, baselines=background, n_samples=n, stdevs=0.0)


def _shap(model: nn.Module, inputs: Tensor, background: Tensor, n: int, seed: int) -> Tensor:
    import shap

    found = shap.GradientExplainer(model, background).shap_values(inputs, nsamples=n, rseed=seed)
    return torch.as_tensor(np.asarray(found)).reshape(inputs.shape)


def _rightly(
    model: nn.Module, inputs: Tensor, background: Tensor, n: int, seed: int, *, plain: bool = False, **arguments: Any
) -> Any:
    """``rt.attribute`` as it comes, or ``plain``: Monte Carlo, as the peers do it."""
    if plain:
        arguments |= {"design": "independent", "recentred": False}
    reference = rt.references.Sample(background, replacement=plain)
    found = rt.attribute(model, inputs, reference=reference, n_samples=n, seed=seed, diagnostics=False, **arguments)
    return found.attributions


METHODS: dict[str, Method] = {
    "rightly": _rightly,
    "rightly, lattice": partial(_rightly, design="lattice"),
    "rightly, plain Monte Carlo": partial(_rightly, plain=True),
    "captum": _captum,
    "shap": _shap,
}


def _tabular(seed: int, activation: Callable[[], nn.Module]) -> Trained:
    """Rows of 118 features, an outcome that depends on a tenth of them with interactions."""
    draws = torch.Generator().manual_seed(seed)
    mixing = torch.randn(118, 118, generator=draws) / 118**0.5
    rows = torch.randn(2200, 118, generator=draws) @ (mixing + 0.7 * torch.eye(118))
    hidden = rows[:, :12] @ torch.randn(12, 6, generator=draws) / 3
    outcome = (hidden.tanh().sum(1) + hidden[:, 0] * hidden[:, 1] > 0).float()
    model = networks.seeded(
        lambda: nn.Sequential(
            nn.Linear(118, 512), activation(), nn.Linear(512, 128), activation(),
            nn.Linear(128, 32), activation(), nn.Linear(32, 1),
        ),
        seed,
    )  # fmt: skip
    _train(
        model,
        rows[:2000],
        lambda outputs, rows: F.binary_cross_entropy_with_logits(outputs[:, 0], rows),
        outcome[:2000],
    )
    return Trained(model.eval(), rows[2100:2112], rows[:100])


def _digits(seed: int) -> Trained:
    """Scikit-learn's digits at 28 x 28, the paper's network, the score of the digit 8."""
    from sklearn.datasets import load_digits

    bundle = load_digits()
    images = torch.tensor(bundle.images, dtype=torch.float32)[:, None] / 16
    images = F.interpolate(images, size=(28, 28), mode="bilinear", align_corners=False)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    images, labels = images[order], torch.as_tensor(bundle.target)[order]
    model = networks.plain_cnn(seed, width=256)
    _train(model, images[:1500], F.cross_entropy, labels[:1500], epochs=2)
    return Trained(nn.Sequential(model, _Column(8)).eval(), images[1500:1504], images[:100])


class _Column(nn.Module):
    def __init__(self, column: int) -> None:
        super().__init__()
        self.column = column

    def forward(self, outputs: Tensor) -> Tensor:
        return outputs[:, self.column : self.column + 1]


def _train(model: nn.Module, inputs: Tensor, loss: Any, labels: Tensor, epochs: int = 10) -> None:
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    for epoch in range(epochs):
        order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(epoch))
        for index in order.split(50):
            optimizer.zero_grad(set_to_none=True)
            loss(model(inputs[index]), labels[index]).backward()
            optimizer.step()


#: seed -> a network that nothing was chosen on: the seeds belong to the suite alone
MODELS: dict[str, Callable[[int], Trained]] = {
    "mlp": lambda seed: _tabular(seed, nn.ReLU),
    "softplus": lambda seed: _tabular(seed, nn.Softplus),
    "cnn": _digits,
}
_SEEDS = (9001, 9002)


def truth(trained: Trained) -> Tensor:
    """Expected gradients over all references, by quadrature along every path."""
    nodes, masses = np.polynomial.legendre.leggauss(_NODES)
    total = torch.zeros_like(trained.inputs, dtype=torch.float64)
    for row, x in enumerate(trained.inputs):
        for node, mass in zip((nodes + 1) / 2, masses / 2, strict=True):
            delta = x - trained.background
            points = (trained.background + float(node) * delta).requires_grad_()
            (gradient,) = torch.autograd.grad(trained.model(points).sum(), points)
            total[row] += float(mass) * (delta * gradient).double().mean(0)
    return total


def error(found: Tensor, true: Tensor) -> float:
    """Root mean square error relative to the root mean square of the truth."""
    return float((found.double().cpu() - true.cpu()).norm() / true.norm())


def run_error(which: str, quick: bool, device: torch.device) -> dict[str, Any]:
    """Error of every method at every number of evaluations, over fresh networks, inputs and draws."""
    # at 1024 the truth of the picture network would have to be better than it is
    full = (16, 64, 256) if which == "cnn" else (16, 64, 256, 1024)
    seeds, ladder, repeats = (_SEEDS[:1], (16, 64), 1) if quick else (_SEEDS, full, 3)
    errors: dict[str, dict[int, list[float]]] = {name: {n: [] for n in ladder} for name in METHODS}
    refused: dict[str, str] = {}
    for seed in seeds:
        trained = _on(MODELS[which](seed), device, few=quick)
        true = truth(trained)
        for name, method in METHODS.items():
            for n in ladder:
                for repeat in range(repeats):
                    if name not in refused:
                        try:
                            found = method(trained.model, trained.inputs, trained.background, n, repeat)
                            errors[name][n].append(error(found, true))
                        except Exception as problem:  # noqa: BLE001 (a peer that is not installed, say)
                            refused[name] = reason(problem)
    methods: dict[str, Any] = {}
    for name, values in errors.items():
        if name in refused:
            methods[name] = {"refused": refused[name]}
        else:
            means = [float(f"{statistics.fmean(values[n]):.4g}") for n in ladder]
            methods[name] = {"evaluations": list(ladder), "error": means}
    return {"kind": "error", "title": f"error of expected gradients, {which}", "variants": methods}


def run_bulk(which: str, quick: bool, device: torch.device) -> dict[str, Any]:
    """Examples a second, each method with as few evaluations as reach the error that captum has with 256."""
    asked, ladder = (32, _LADDER[:2]) if quick else (256, _LADDER)
    trained = _on(MODELS[which](_SEEDS[0]), device, few=quick)
    true = truth(trained)
    needed: dict[str, int] = {}
    errors: dict[str, float] = {}
    variants: dict[str, Any] = {}
    try:
        wanted = _mean_error("captum", trained, true, asked)
    except ImportError as problem:
        # without captum the error to reach is that of plain Monte Carlo, which is what captum makes
        variants["captum"] = {"refused": reason(problem)}
        wanted = _mean_error("rightly, plain Monte Carlo", trained, true, asked)
    for name in METHODS:
        try:
            for n in ladder if name in ("rightly", "rightly, lattice") else (asked,):
                needed[name], errors[name] = n, _mean_error(name, trained, true, n)
                if errors[name] <= wanted:
                    break
        except Exception as problem:  # noqa: BLE001 (a peer that is not installed, say)
            variants[name] = {"refused": reason(problem)}
    count = 8 if quick else 64 if trained.inputs.ndim == 2 else 16
    rows = trained.inputs.repeat(16, *(1,) * (trained.inputs.ndim - 1))[:count]
    prepared = {name: partial(_bulk, name, trained, rows, n) for name, n in needed.items() if name not in variants}
    timings, _ = measure(prepared, Effort(seconds=1.0 if quick else 30.0, least=2 if quick else 3, most=20), device)
    for name, seconds in timings.items():
        if isinstance(seconds, Refused):
            variants[name] = {"refused": seconds.reason}
        else:
            rate = spread([len(rows) / s for s in seconds])
            variants[name] = {"rate": rate, "evaluations": needed[name], "error": float(f"{errors[name]:.4g}")}
    return {"kind": "bulk", "title": f"bulk explanation, {which}", "unit": "examples/s", "variants": variants}


def _bulk(name: str, trained: Trained, rows: Tensor, n: int) -> Step:
    """What is timed: rightly into a folder, the others as they are used, in the calls that suit them best."""
    if not name.startswith("rightly"):
        parts = rows.split(1)  # measured: captum takes 1.15 times a plain loop so, 1.8 times with ten rows a call
        return lambda: [METHODS[name](trained.model, part, trained.background, n, 0) for part in parts]

    def step() -> None:
        with tempfile.TemporaryDirectory() as folder:
            method: Any = METHODS[name]
            method(trained.model, rows, trained.background, n, 0, out=Path(folder) / "out")

    return step


def _mean_error(name: str, trained: Trained, true: Tensor, n: int, repeats: int = 5) -> float:
    call = partial(METHODS[name], trained.model, trained.inputs, trained.background, n)
    return statistics.fmean(error(call(repeat), true) for repeat in range(repeats))


def _on(trained: Trained, device: torch.device, *, few: bool) -> Trained:
    rows = 2 if few else len(trained.inputs)
    references = 20 if few else len(trained.background)
    return Trained(
        trained.model.to(device), trained.inputs[:rows].to(device), trained.background[:references].to(device)
    )
