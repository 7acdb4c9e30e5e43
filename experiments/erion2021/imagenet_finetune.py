"""Fine-tuning for smooth attributions (Erion et al. 2019, supplement 6): a trained network, your folder of ImageNet.

The paper fine-tunes a trained VGG16 with the total variation of its expected gradients for one epoch, which costs one
point of accuracy and makes maps smoother. ImageNet cannot be shipped: with ``--dataset imagenet --data-dir FOLDER``
the recipe takes your copy (``FOLDER/train/<class>/*``, ``FOLDER/val/<class>/*`` and torchvision's weights as
``FOLDER/vgg16.safetensors``). By default it is shown on a stand-in: a folder of the same layout, made of CIFAR-10's
pictures, and a trained ResNet-20.
"""

from __future__ import annotations

import os
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import nn
from torch.utils.data import Subset

import rightly as rt
from rightly.workflows.noise_report import Statement, claims, comparisons, figures, run_entries
from rightly.workflows.noise_study import Arm, Parts, Study, mistakes, run_study
from rightly.workflows.reproduce import Outcome, Settings

DATASETS = ("stand-in", "imagenet")
NAMES = {"stand-in": "CIFAR-10 in a folder (stand-in for ImageNet)", "imagenet": "ImageNet"}
CIFAR = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
NOISE = {"gaussian": [0.05, 0.1, 0.15, 0.2], "salt_and_pepper": [0.02, 0.05]}
ARMS = {
    "before": Arm("Before", trained=False),
    "plain": Arm("Plain fine-tuning"),
    "eg": Arm("Smooth EG", rt.ExpectedGradients(rt.references.InBatch()), "expected gradients, k = 1"),
    "gradient": Arm("Smooth gradient", rt.Gradient(), "input gradients of the label's logit"),
}
STATEMENTS = [
    Statement("before", "eg", "gaussian", "not stated"),
    Statement("plain", "eg", "gaussian", "not stated"),
    Statement("gradient", "eg", "gaussian", "not stated"),
    Statement("plain", "eg", "salt_and_pepper", "not stated"),
]
PAIRS = [("before", "eg"), ("plain", "eg"), ("gradient", "eg"), ("before", "plain")]


class Sizes(NamedTuple):
    """Pictures (at most), epochs, batch, learning rate; references; maps."""

    train: int
    validation: int
    test: int
    epochs: int
    batch: int
    lr: float
    references: int
    explained: int
    samples: int


SIZES = {
    "stand-in": {
        "smoke": Sizes(50, 20, 30, 1, 16, 1e-3, 10, 2, 2),
        "reduced": Sizes(1500, 500, 500, 2, 16, 1e-3, 200, 10, 20),
        "full": Sizes(10_000, 1000, 1000, 10, 16, 1e-3, 500, 100, 100),
    },
    "imagenet": {
        "smoke": Sizes(40, 20, 20, 1, 16, 1e-5, 10, 2, 2),
        "reduced": Sizes(2000, 200, 200, 1, 16, 1e-5, 50, 5, 10),
        "full": Sizes(10**9, 1000, 2000, 1, 16, 1e-5, 500, 50, 100),
    },
}
#: the paper: 1e-5 for one epoch, then twice that
WEIGHTS = {"stand-in": [1e-3, 1e-4], "imagenet": [1e-5, 2e-5]}


def run(settings: Settings) -> Outcome:
    """Choose each prior's weight with the first seed, then fine-tune every arm with every seed."""
    data = str(settings.dataset)
    sizes: Sizes = settings.sized(**SIZES[data])
    device = "cuda" if torch.cuda.is_available() and settings.size == "full" else "cpu"
    folder = _stand_in(settings, sizes) if data == "stand-in" else settings.data_dir or Path("imagenet")
    pixels = {"size": 32} if data == "stand-in" else {"size": 224, "resize": 256}
    train, plain, validation = rt.data.picture_folders(folder, **pixels)
    sizes = sizes._replace(train=min(sizes.train, len(train)))
    before = _network(settings, folder).to(device)
    study = Study(
        arms=ARMS,
        weights=WEIGHTS[data][: settings.sized(smoke=1, reduced=2, full=2)],
        seeds=list(range(settings.seed, settings.seed + settings.sized(smoke=2, reduced=3, full=3))),
        allowed=0.01,
        noise=NOISE,
        span=(0.0, 1.0),
        parts=lambda: _parts(train, plain, validation, sizes, settings.seed),
        model=lambda seed: deepcopy(before),
        fit=lambda objective, parts, seed, checkpoint: _fit(objective, parts, seed, checkpoint, sizes),
        explained=sizes.explained,
        samples=sizes.samples,
        classes=train.classes,
    )
    found = run_study(study, settings)
    return Outcome(
        title="Fine-tuning for smooth attributions",
        question="Can a trained network be made to look at pictures more smoothly, and is it more robust then?",
        reduction=_reduction(settings, data, sizes, len(study.seeds)),
        data={
            "name": NAMES[data],
            "source": "Krizhevsky 2009, re-encoded" if data == "stand-in" else "Russakovsky et al. 2015, your copy",
            "kind": "images",
            "rows": sizes.train + sizes.validation + sizes.test,
            "label": "object",
            "task": "classification",
            "split": {"train": sizes.train, "validation": sizes.validation, "test": sizes.test},
            "notes": [*train.notes, *validation.notes],
        },
        runs=run_entries(study, found),
        comparison=comparisons(found, "eg"),
        claims=claims(study, found, STATEMENTS, "eg", "69.9 % against 70.9 % before (ImageNet, 2019)"),
        notes=_NOTES,
        figures=figures(study, found, PAIRS),
    )


def _fit(objective: rt.Objective, parts: Parts, seed: int, checkpoint: Path | None, sizes: Sizes) -> rt.Run:
    return rt.fit(
        objective,
        parts["train"],
        parts["validation"],
        epochs=sizes.epochs,
        batch_size=sizes.batch,
        optimizer=lambda weights: torch.optim.SGD(weights, lr=sizes.lr, momentum=0.9, weight_decay=5e-4),
        monitor=mistakes,
        restore_best=False,
        device=next(objective.parameters()).device,
        seed=seed,
        checkpoint=checkpoint,
        resume=checkpoint is not None,
    )


def _parts(
    train: rt.data.PictureFolder,
    plain: rt.data.PictureFolder,
    validation: rt.data.PictureFolder,
    sizes: Sizes,
    seed: int,
) -> Parts:
    """Rows at random: training pictures stay on disk, the others are read."""
    draws = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(train), generator=draws)[: sizes.train].tolist()
    others = torch.randperm(len(validation), generator=draws).tolist()
    return {
        "train": Subset(train, rows),
        "validation": validation.tensors(others[: sizes.validation]),
        "test": validation.tensors(others[sizes.validation : sizes.validation + sizes.test]),
        "references": plain.tensors(rows[: sizes.references])[0],
    }


def _network(settings: Settings, folder: Path) -> nn.Module:
    if settings.dataset == "stand-in":
        return rt.models.cifar_resnet20(rt.data.load_arrays("cifar10_resnet20", data_dir=settings.data_dir))
    return rt.models.imagenet_vgg16(folder / "vgg16.safetensors")


def _stand_in(settings: Settings, sizes: Sizes) -> Path:
    """A folder laid out like ImageNet with as many of CIFAR-10's pictures of each class as are needed, made once."""
    folder = settings.trials.path.parent / "stand-in"
    if folder.is_dir():
        return folder
    arrays = rt.data.load_arrays("cifar10_10k_2k_jpeg", data_dir=settings.data_dir)
    aside = folder.with_name("stand-in.part")
    needed = {"train": ("train", sizes.train), "val": ("test", sizes.validation + sizes.test)}
    for name, (part, rows) in needed.items():
        images, labels = rt.data.cifar10_images(arrays, part)
        for label, title in enumerate(CIFAR):
            (aside / name / title).mkdir(parents=True, exist_ok=True)
            for i, image in enumerate(images[labels == label][: rows // len(CIFAR)]):
                Image.fromarray(image.transpose(1, 2, 0)).save(aside / name / title / f"{i:04d}.png")
    os.replace(aside, folder)
    return folder


_NOTES = [
    "Plain fine-tuning, with the same pictures and steps but no prior, is the control that the paper does not have.",
    "One joint loss, as in the paper; stochastic gradient descent with momentum 0.9, weight decay 0.0005, batches of "
    "16. Squares are cut out at random and mirrored. For ImageNet the learning rate is the paper's 0.00001, for the "
    "stand-in 0.001. The paper's shorter sides vary from 256 to 512 pixels in training, here it is 256.",
    "The paper's second weight (0.00002 for a further quarter of an epoch) is tried as a weight of its own.",
    "The stand-in's network was trained by others on all of CIFAR-10, so that its training pictures are not new to it; "
    "validation and test pictures are from CIFAR-10's test set.",
    "The networks of all seeds start from the same weights; seeds differ in order, cuts and draws.",
]


def _reduction(settings: Settings, data: str, sizes: Sizes, seeds: int) -> str:
    told = (
        f"{NAMES[data]}: {sizes.train:,} training, {sizes.validation:,} validation and {sizes.test:,} test pictures, "
        f"{sizes.epochs} epochs, {seeds} seeds"
    )
    return f"{settings.size.capitalize()} size. {told} (the paper: 1,281,167 pictures of ImageNet, one epoch)."
