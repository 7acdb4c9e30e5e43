"""CIFAR-10 under noise (Erion et al. 2021, figure 3): smooth attributions and robustness of a VGG16 on photographs.

The paper's VGG16 is trained from scratch, plainly and with the total variation of its attributions as a penalty, each
map standardised before; then noise is added to the test pictures. The weight may cost up to 10 points of validation
accuracy, as in the paper.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

import rightly as rt
from rightly.workflows.noise_report import Statement, claims, comparisons, figures, run_entries
from rightly.workflows.noise_study import Arm, Parts, Study, mistakes, run_study
from rightly.workflows.reproduce import Outcome, Settings

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
NOISE = {"gaussian": [0.05, 0.1, 0.15, 0.2, 0.3, 0.4], "salt_and_pepper": [0.02, 0.05, 0.1]}
#: figure 3b, supplementary figures 10 and 11
STATEMENTS = [
    Statement("plain", "eg", "gaussian", "more than double at high noise (figure 3b)", 0.02),
    Statement("gradient", "eg", "gaussian", "not achievable by gradients (figure 3b)", 0.02),
    Statement("ig", "eg", "gaussian", "outperformed"),
    Statement("ig", "eg_black", "gaussian", "much more robust"),
    Statement("plain", "eg", "salt_and_pepper", "not stated"),
]
PAIRS = [("plain", "eg"), ("gradient", "eg"), ("ig", "eg"), ("eg_black", "eg"), ("ig", "eg_black")]


class Sizes(NamedTuple):
    """Pictures, epochs, batch and rate; filters of the first block and whether there is dropout; maps."""

    train: int = 45_000
    validation: int = 5000
    test: int = 10_000
    epochs: int = 100
    batch: int = 128
    lr: float = 0.1
    width: int = 64
    dropout: bool = True
    explained: int = 100
    samples: int = 100


def run(settings: Settings) -> Outcome:
    """Choose each prior's weight with the first seed, then train every arm with every seed."""
    sizes = settings.sized(
        smoke=Sizes(60, 40, 40, 1, 16, 1e-3, 2, False, 2, 2),
        reduced=Sizes(4000, 1000, 1000, 6, 64, 0.02, 8, False, 20, 20),
        full=Sizes(),
    )
    device = "cuda" if settings.size == "full" and torch.cuda.is_available() else "cpu"
    parts, span = _parts(settings, sizes)
    black = rt.references.Constant(span[0])
    study = Study(
        arms={
            "plain": Arm("Plain"),
            "eg": Arm("Smooth EG", rt.ExpectedGradients(rt.references.InBatch()), "expected gradients, k = 1"),
            "eg_black": Arm("Smooth EG, black", rt.ExpectedGradients(black), "expected gradients, k = 1, black"),
            "ig": Arm("Smooth IG", rt.IntegratedGradients(black, n_steps=3), "integrated gradients, 3 steps, black"),
            "gradient": Arm("Smooth gradient", rt.Gradient(), "input gradients of the label's logit"),
        },
        weights=settings.sized(smoke=[1.0], reduced=[1e-4, 5e-4, 2e-3], full=[1e-5, 1e-4, 3e-4, 1e-3, 3e-3]),
        seeds=list(range(settings.seed, settings.seed + settings.sized(smoke=2, reduced=3, full=5))),
        allowed=0.10,
        noise=NOISE,
        span=span,
        parts=lambda: parts,
        model=lambda seed: rt.models.vgg16(width=sizes.width, dropout=sizes.dropout, seed=seed).to(device),
        fit=lambda objective, parts, seed, checkpoint: _fit(objective, parts, seed, checkpoint, sizes),
        explained=sizes.explained,
        samples=sizes.samples,
        classes=CLASSES,
    )
    found = run_study(study, settings)
    return Outcome(
        title="CIFAR-10 under noise: smooth attributions",
        question="Does training for smooth expected gradients make a network for photographs robust to noise?",
        reduction=_reduction(settings, sizes, len(study.seeds)),
        data={
            "name": "CIFAR-10, a copy that went through JPEG",
            "source": "Krizhevsky 2009, re-encoded",
            "kind": "images",
            "rows": sum(sizes[:3]),
            "features": 3072,
            "label": "object",
            "task": "classification",
            "classes": CLASSES,
            "split": dict(zip(("train", "validation", "test"), sizes[:3], strict=True)),
        },
        runs=run_entries(study, found),
        comparison=comparisons(found, "eg"),
        claims=claims(study, found, STATEMENTS, "eg", "0.85 ± 0.003 against 0.93 ± 0.002"),
        notes=_NOTES,
        figures=figures(study, found, PAIRS),
    )


def _fit(objective: rt.Objective, parts: Parts, seed: int, checkpoint: Path | None, sizes: Sizes) -> rt.Run:
    # the paper halves the rate every 20 epochs; a shorter training does so in proportion
    every = max(1, sizes.epochs // 5)
    return rt.fit(
        objective,
        rt.data.Moved(*parts["train"], shift=3, rotation=15),
        parts["validation"],
        epochs=sizes.epochs,
        batch_size=sizes.batch,
        optimizer=lambda weights: torch.optim.SGD(weights, lr=sizes.lr, momentum=0.9, weight_decay=5e-4),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, every, 0.5),
        monitor=mistakes,
        device=next(objective.parameters()).device,
        seed=seed,
        checkpoint=checkpoint,
        resume=checkpoint is not None,
    )


def _parts(settings: Settings, sizes: Sizes) -> tuple[Parts, tuple[float, float]]:
    """Training, validation and test pictures, standardised by the training pictures; what black and white became."""
    name = "cifar10_full_jpeg" if settings.size == "full" else "cifar10_10k_2k_jpeg"
    arrays = rt.data.load_arrays(name, data_dir=settings.data_dir)
    found = {}
    for part in ("train", "test"):
        images, labels = rt.data.cifar10_images(arrays, part)
        # the copy is ordered by class
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(settings.seed))
        found[part] = (torch.from_numpy(images)[order], torch.from_numpy(labels)[order])
    rows = {"train": found["train"], "validation": found["train"], "test": found["test"]}
    slices = {
        "train": slice(sizes.train),
        "validation": slice(-sizes.validation, None),
        "test": slice(sizes.test),
    }
    cut = {part: tuple(tensor[slices[part]] for tensor in rows[part]) for part in rows}
    pixels = cut["train"][0].numpy() / np.float32(255)
    mean, deviation = float(pixels.mean(dtype=np.float64)), float(pixels.std(dtype=np.float64))

    def standard(part: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        return (part[0].float() / 255 - mean) / deviation, part[1]

    span = (-mean / deviation, (1 - mean) / deviation)
    parts = {part: standard(both) for part, both in cut.items()}
    return {**parts, "references": parts["train"][0]}, span


_NOTES = [
    "The pictures are a copy of CIFAR-10 that went through JPEG: methods are compared on it, accuracies are not those "
    "of the paper.",
    "The paper refers for its VGG16 to Liu and Deng (2015) and gives neither dropout, weight decay nor epochs: dropout "
    "0.3 to 0.5, weight decay 0.0005 and 100 epochs are ours, after that reference.",
    "As in the paper: stochastic gradient descent with rate 0.1 and momentum 0.9, halved every 20 epochs (a fifth of "
    "the training in the reduced size), shifts of up to 3 pixels, rotations of up to 15 degrees, one mean and one "
    "variance for all inputs, k = 1, maps divided by their standard deviation.",
    "One joint loss. The weight was chosen with the first seed alone, on validation rows; that seed's models are part "
    "of the results. The model of the epoch with the best validation accuracy is kept.",
    "Maps explain the output of the picture's label, not the network's answer; for one picture every output. They "
    "and the roughness of maps are of expected gradients, whatever the arm was trained with.",
    "Noise levels are in units of black to white, before standardising; noise is not clipped.",
]


def _reduction(settings: Settings, sizes: Sizes, seeds: int) -> str:
    images = f"{sizes.train:,} training, {sizes.validation:,} validation and {sizes.test:,} test pictures"
    told = f"{images}, {sizes.epochs} epochs, {seeds} seeds"
    if settings.size == "full":
        return f"Full size: {told}."
    network = f"{sizes.width} filters instead of 64 in the first block and no dropout, batches of {sizes.batch}, "
    network += f"learning rate {sizes.lr:g}"
    return f"Reduced: {told}, {network} (the paper: 60,000 pictures, 5 seeds, batches of 128, rate 0.1)."
