"""Frogs and horses with a coloured patch: the ladder where both groups are in training, half of the rows annotated.

A task of our own, after the thesis' decoys (Ross 2018) and Waterbirds (Sagawa et al. 2020): colour pictures of
CIFAR-10, a magenta patch in a random place on nearly all horses and hardly any frogs. Groups are class and patch; the
test has as many of each. Unlike in decoy MNIST, GroupDRO and last-layer retraining have rows to learn from.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

import rightly as rt
from rightly.evaluation import compare, others_regions
from rightly.workflows.group_report import KNOWN, comparisons, ladder, paired, percent, run_entries
from rightly.workflows.group_study import Arm, Found, Part, Parts, Study, filled_in, run_study
from rightly.workflows.reproduce import Claim, Outcome, Settings, adjusted, over, shown

R = rt.recipes
CLASSES = ("frog", "horse")
#: CIFAR-10's numbers of them, the patch's side and colour, and the share of each class that has it in training
NUMBERS, SIDE, COLOUR, SHARES = (6, 7), 6, (1.0, 0.0, 1.0), (0.03, 0.97)
HALF, ALL = "where the patch is, for half of the rows", "where every patch is, in the test too"
OF_ALL, HELD = "the group of every training row", "800 rows in which the patch tells nothing, with groups"


def _reasons(weight: float) -> Any:
    return [R.right_for_the_right_reasons(weight, output="log_prob")]


#: what learns from where the patch is
PRIORS = {
    "right_reasons": Arm("Right reasons", HALF, (0.1, 1.0, 10.0), _reasons),
    "grad_cam": Arm("Right reasons on Grad-CAM", HALF, (0.01, 0.1, 1.0), lambda w: [R.grad_cam_reasons("3", w)]),
    "energy": Arm("Energy", HALF, (1.0, 10.0), lambda w: [R.energy_guidance(w)]),
    "masked_noise": Arm("Masked noise", HALF, (1.0, 3.0), lambda w: [R.masked_noise(w, scale=0.5, clip=(0, 1))]),
    "agreement": Arm("Agreement, patch hidden", HALF, (1.0, 10.0), lambda w: [R.agreement(w)]),
}
ARMS = {
    "plain": Arm("Plain"),
    "weight_decay": Arm("Weight decay", "nothing", (1e-3, 1e-2), lambda w: [rt.WeightTerm("l2", weight=w)]),
    "random": Arm(
        "Right reasons, another row's patch",
        "places that mean nothing",
        (0.1, 1.0, 10.0),
        _reasons,
        annotated=lambda regions, seed: others_regions(regions, seed=seed),
    ),
    "dropped": Arm("Patch replaced by the mean", ALL, changed=filled_in),
    "upweighted": Arm("Groups upweighted", OF_ALL, dro=True),
    "group_dro": Arm("GroupDRO", OF_ALL, (0.01, 0.1), dro=True),
    "dfr": Arm("Last layer retrained (DFR)", HELD, (0.003, 0.01, 0.03), retrained=True),
    **PRIORS,
}
COLUMNS = {"worst group": "test_worst", "average": "test"}


def convolutions(seed: int) -> nn.Module:
    """Two convolutions and a linear layer."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        first, second = nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.Conv2d(16, 32, 5, stride=2, padding=2)
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(32 * 64, len(CLASSES)))


def run(settings: Settings) -> Outcome:
    """All arms."""

    @cache
    def pictures(part: str) -> tuple[np.ndarray, np.ndarray]:
        arrays = rt.data.load_arrays("cifar10_full_jpeg", data_dir=settings.data_dir)
        images, labels = rt.data.cifar10_images(arrays, part)
        kept = np.isin(labels, NUMBERS)
        return images[kept].astype(np.float32) / 255, (labels[kept] == NUMBERS[1]).astype(np.int64)

    study = Study(
        name="ladder",
        groupings={"class and patch": (0, 1)},
        arms=ARMS,
        parts=lambda seed: rows_of(pictures("train"), pictures("test"), seed, settings),
        networks={"main": convolutions},
        seeds=list(range(settings.seed, settings.seed + settings.sized(smoke=2, reduced=5, full=10))),
        tried=settings.sized(smoke=1, reduced=1, full=2),
        fit={"epochs": settings.sized(smoke=2, reduced=10, full=30), "batch_size": 128, "lr": 1e-3},
    )
    return _outcome(settings, study, run_study(study, settings))


def rows_of(train: Any, test: Any, seed: int, settings: Settings) -> Parts:
    """One seed's rows: a tenth to choose by, a tenth of them with groups, 800 held out, the others to train on."""
    draws = np.random.Generator(np.random.PCG64(seed))
    order = draws.permutation(len(train[1]))
    some = settings.sized(smoke=4, reduced=800, full=800)
    most = settings.sized(smoke=8, reduced=2500, full=len(order))
    cuts = np.cumsum([some, some, some])
    validation, grouped, held, rest = np.split(order, cuts)

    def part(source: Any, rows: np.ndarray, shares: tuple[float, float]) -> Part:
        images, labels = source[0][rows], source[1][rows]
        patched = draws.random(len(rows)) < np.where(labels == 1, shares[1], shares[0])
        return _patched(images, labels, patched, draws)

    even = (0.5, 0.5)
    rows = part(train, rest[:most], SHARES)
    return Parts(
        train=rows,
        annotated=torch.from_numpy(draws.random(len(rows.labels)) < 0.5),
        held_out=part(train, held, even),
        validation=part(train, validation, SHARES),
        grouped=part(train, grouped, even),
        tests={"test": part(test, np.arange(len(test[1])), even)},
    )


def _patched(images: np.ndarray, labels: np.ndarray, patched: np.ndarray, draws: np.random.Generator) -> Part:
    """Patches in random places; groups are the class, and whether there is a patch."""
    size = images.shape[-1]
    top, left = draws.integers(0, size - SIDE + 1, (2, len(images), 1))
    inside = [(np.arange(size) >= start) & (np.arange(size) < start + SIDE) for start in (top, left)]
    region = (inside[0][:, :, None] & inside[1][:, None, :] & patched[:, None, None])[:, None]
    inputs = np.where(region, np.asarray(COLOUR, np.float32)[:, None, None], images)
    arrays = inputs, labels, np.stack([labels, patched], 1), region
    return Part(*map(torch.from_numpy, arrays))


# ---------------------------------------------------------------------------------------------------- what is reported


def _outcome(settings: Settings, study: Study, found: Found) -> Outcome:
    best = max(PRIORS, key=lambda name: over(found.rows[KNOWN][name], KNOWN)["mean"])
    parts = study.parts(settings.seed)
    sizes = {name: len(getattr(parts, name).labels) for name in ("train", "held_out", "validation", "grouped")}
    sizes["test"] = len(parts.tests["test"].labels)
    size = "Full size" if settings.size == "full" else "Reduced"
    return Outcome(
        title="Frogs and horses: a patch on nearly all horses",
        question="Where both groups are in training, what are annotations of half of the rows worth beside groups?",
        reduction=f"{size}: {sizes['train']} training rows, {study.fit['epochs']} epochs, {len(study.seeds)} seeds, "
        f"strengths chosen by {study.tried} of them. There is no published number: the task is ours.",
        data={
            "name": "CIFAR-10, frogs and horses with patches",
            "source": "CIFAR-10 (Krizhevsky 2009), a JPEG copy, with patches of our own",
            "kind": "images",
            "rows": sum(sizes.values()),
            "features": 3 * 32 * 32,
            "label": "animal",
            "classes": list(CLASSES),
            "task": "classification",
            "split": sizes,
            "notes": [
                "A magenta patch of 6 x 6 pixels on 97 % of the horses and 3 % of the frogs; in the test on half."
            ],
        },
        runs=run_entries(study, found, "test"),
        comparison=comparisons(found, best, "test"),
        claims=_claims(found, best),
        notes=_NOTES,
        figures={
            "tables": [
                ladder(study, found, "The ladder: test accuracy, means over seeds with 95 % intervals.", COLUMNS),
                paired(study, found, "test_worst", "Worst group: paired tests over seeds.", {"main": "plain"}),
            ]
        },
    )


_NOTES = [
    "The four groups are class and patch; the worst is the one with the lowest test accuracy of its seed. In training, "
    "frogs with a patch and horses without one are 3 % of their class.",
    "Half of the training rows are annotated; a row without a patch is annotated as having nothing irrelevant. What is "
    "compared is not equal in what it is told: the table says what that is.",
    "In the validation rows that choose strengths where groups are known, and in those that the last layer is trained "
    "on, half of each class has a patch. Where groups are not known, the strength is the best by accuracy on rows like "
    "the training rows; of equals the strongest.",
    "Replacing the patch by the mean of the training rows needs to know where it is in the test as well.",
]


def _claims(found: Found, best: str) -> list[Claim]:
    rows = found.rows[KNOWN]

    title = ARMS[best].title
    asked = [
        ("GroupDRO above plain", "Waterbirds 91.4 % against 74.9 %", "plain", "group_dro"),
        ("DFR above plain", "Waterbirds 92.9 % against 74.9 %", "plain", "dfr"),
        (f"the best annotation prior ({title}) above plain", "not published", "plain", best),
        ("right reasons with true above random places", "a needed control (VisFIS 2022)", "random", "right_reasons"),
        (f"the best annotation prior ({title}) above GroupDRO", "not published", "group_dro", best),
    ]
    tests = adjusted([compare(*([row["test_worst"] for row in rows[arm]] for arm in pair)) for _, _, *pair in asked])
    claims = []
    for (claim, paper, first, second), test in zip(asked, tests, strict=True):
        means = " against ".join(percent(rows[arm], "test_worst") for arm in (second, first))
        told = f"{100 * test.difference:+.1f} points, {100 * test.low:+.1f} to {100 * test.high:+.1f}"
        p = "" if test.p is None else f", corrected p = {test.p:.2g}"
        claims.append(Claim(f"Worst group: {claim}", paper, f"{means} ({told}{p})", shown(test)))
    return claims
