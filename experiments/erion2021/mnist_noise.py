"""MNIST under noise (Erion et al. 2021, figure 2): smooth attributions make a network robust to noise it never saw.

The paper's convolutional network is trained plainly and with the total variation of its attributions as a penalty:
expected gradients (k = 1), their single-reference variant, integrated gradients in a few steps, input gradients. Then
noise is added to the test images: Gaussian as in the article, black and white pixels as in the paper of 2019 and in the
authors' code. The article gives curves, without numbers; what can be compared is their order.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import rightly as rt
from rightly.workflows.noise_report import Statement, claims, comparisons, figures, run_entries
from rightly.workflows.noise_study import Arm, Parts, Study, mistakes, run_study
from rightly.workflows.reproduce import Outcome, Settings

LOW, HIGH = -0.5, 0.5
NOISE = {
    "gaussian": [0.1, 0.15, 0.2, 0.25, 0.3, 0.4],
    "salt_and_pepper": [0.05, 0.1, 0.2, 0.3],
}
BLACK = rt.references.Constant(LOW)
ARMS = {
    "plain": Arm("Plain"),
    "eg": Arm("Smooth EG", rt.ExpectedGradients(rt.references.InBatch()), "expected gradients, k = 1, other images"),
    "eg_black": Arm("Smooth EG, black", rt.ExpectedGradients(BLACK), "expected gradients, k = 1, black"),
    "ig": Arm("Smooth IG", rt.IntegratedGradients(BLACK, n_steps=3), "integrated gradients, 3 steps, black"),
    "gradient": Arm("Smooth gradient", rt.Gradient(), "input gradients of the label's logit"),
}
#: figure 2b and supplementary figures 10 and 11 (2021); figure 1 (2019)
STATEMENTS = [
    Statement("plain", "eg", "gaussian", "greatly (figure 2b)", 0.02),
    Statement("gradient", "eg", "gaussian", "greatly (figure 2b)", 0.02),
    Statement("ig", "eg", "gaussian", "outperformed"),
    Statement("ig", "eg_black", "gaussian", "much more robust"),
    Statement("plain", "gradient", "gaussian", "not stated"),
    Statement("plain", "eg", "salt_and_pepper", "at every level; at 0.1 from below 50 % to above 90 %", 0.02),
]
PAIRS = [("plain", "eg"), ("gradient", "eg"), ("ig", "eg"), ("eg_black", "eg"), ("ig", "eg_black")]


class Sizes(NamedTuple):
    """Images and epochs; filters and hidden units; images explained and references for each of them."""

    train: int = 55_000
    validation: int = 5000
    test: int = 10_000
    epochs: int = 60
    filters: tuple[int, int] = (32, 64)
    width: int = 1024
    explained: int = 100
    samples: int = 100


def run(settings: Settings) -> Outcome:
    """Choose each prior's weight with the first seed, then train every arm with every seed."""
    sizes = settings.sized(
        smoke=Sizes(60, 40, 40, 1, (4, 4), 8, 2, 2),
        reduced=Sizes(5000, 2000, 1000, 8, (16, 32), 256, 50, 50),
        full=Sizes(),
    )
    device = "cuda" if settings.size == "full" and torch.cuda.is_available() else "cpu"
    study = Study(
        arms=ARMS,
        weights=settings.sized(
            smoke=[1.0], reduced=[1e-4, 3e-4, 1e-3, 3e-3], full=[10.0 ** (e / 2) for e in range(-10, -2)]
        ),
        seeds=list(range(settings.seed, settings.seed + settings.sized(smoke=2, reduced=5, full=5))),
        allowed=0.01,
        noise=NOISE,
        span=(LOW, HIGH),
        parts=lambda: _parts(settings, sizes),
        model=lambda seed: rt.models.paper_cnn(filters=sizes.filters, width=sizes.width, seed=seed).to(device),
        fit=lambda objective, parts, seed, checkpoint: _fit(objective, parts, seed, checkpoint, sizes.epochs),
        explained=sizes.explained,
        samples=sizes.samples,
        classes=[str(digit) for digit in range(10)],
    )
    found = run_study(study, settings)
    return Outcome(
        title="MNIST under noise: smooth attributions",
        question="Does training for smooth expected gradients make a network robust to noise it never saw?",
        reduction=_reduction(settings, sizes, len(study.seeds)),
        data={
            "name": "MNIST",
            "source": "LeCun, Cortes and Burges",
            "kind": "images",
            "rows": sum(sizes[:3]),
            "features": 784,
            "label": "digit",
            "task": "classification",
            "split": dict(zip(("train", "validation", "test"), sizes[:3], strict=True)),
            "licence": "CC BY-SA 3.0",
        },
        runs=run_entries(study, found),
        comparison=comparisons(found, "eg"),
        claims=claims(study, found, STATEMENTS, "eg", "chosen so; 2019: 99.52 % against 99.55 %"),
        notes=_NOTES,
        figures=figures(study, found, PAIRS),
    )


def _fit(objective: rt.Objective, parts: Parts, seed: int, checkpoint: Path | None, epochs: int) -> rt.Run:
    return rt.fit(
        objective,
        parts["train"],
        parts["validation"],
        epochs=epochs,
        batch_size=50,
        lr=1e-4,
        scheduler=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.95),
        monitor=mistakes,
        device=next(objective.parameters()).device,
        seed=seed,
        checkpoint=checkpoint,
        resume=checkpoint is not None,
    )


def _parts(settings: Settings, sizes: Sizes) -> Parts:
    """Training, validation and test rows; pixels in [-0.5, 0.5]."""
    mnist = rt.data.load_arrays("mnist", data_dir=settings.data_dir)
    order = torch.randperm(len(mnist["y_train"]), generator=torch.Generator().manual_seed(settings.seed)).numpy()
    rows = {"train": order[: sizes.train], "validation": order[-sizes.validation :], "test": np.arange(sizes.test)}
    found = {}
    for name, index in rows.items():
        part = "test" if name == "test" else "train"
        images, labels = mnist[f"x_{part}"][index], mnist[f"y_{part}"][index]
        found[name] = (torch.from_numpy(images)[:, None] / 255 + LOW, torch.from_numpy(labels).long())
    return {**found, "references": found["train"][0]}


_NOTES = [
    "One joint loss. The authors' code steps on the prior with an Adam of its own, in which λ acts only through Adam's "
    "epsilon: its λ (5e-11) is a plain gradient step of size learning rate x λ / epsilon and cannot be compared with "
    "ours.",
    "Each map is shifted to mean 0 and divided by its standard deviation before its total variation is taken, with the "
    "authors' floor of 1 / sqrt(pixels).",
    "No augmentation. The authors' code for MNIST rotates and shifts the images; the paper's text for MNIST does not "
    "mention it.",
    "Batch norm as in the authors' code. The model of the epoch with the best validation accuracy is kept.",
    "Gaussian noise is not clipped. Accuracy under a kind of noise is the mean over its levels.",
    "Maps explain the output of the picture's label, not the network's answer; for one picture every output. They "
    "and the roughness of maps are of expected gradients, whatever the arm was trained with.",
    "The weight was chosen with the first seed alone, on validation rows; that seed's models are part of the results.",
    "Network, rows, epochs and the grid of weights of the reduced size were settled on validation rows of another "
    "split, with another seed.",
]


def _reduction(settings: Settings, sizes: Sizes, seeds: int) -> str:
    images = f"{sizes.train:,} training, {sizes.validation:,} validation and {sizes.test:,} test images"
    told = f"{images}, {sizes.epochs} epochs, {seeds} seeds"
    if settings.size == "full":
        return f"Full size: {told}, as in the paper."
    network = f"{sizes.filters[0]} and {sizes.filters[1]} filters and {sizes.width} hidden units"
    paper = "60,000 images for training, 10,000 for the test, 60 epochs, 5 seeds; 32 and 64 filters, 1,024 units"
    return f"Reduced: {told}, a network of {network} (the paper: {paper})."
