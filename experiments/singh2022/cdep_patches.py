"""Coloured patches on half of one class (Singh et al. 2022, table 5): CDEP against a shortcut in pictures.

Half of ISIC's benign skin lesions show a coloured patch, no malignant one does; CDEP penalises what the network gives
to the patch. ISIC cannot be shipped: with ``--dataset isic --data-dir FOLDER`` the recipe takes your copy
(``FOLDER/images/benign/*`` and ``FOLDER/images/malignant/*``; ``FOLDER/patches/benign/*``, a mask for every picture
that has a patch, white on it; torchvision's weights as ``FOLDER/vgg16.safetensors``). By default it is shown on a
stand-in: cats and dogs of CIFAR-10, patches of our own on half of the cats.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import rightly as rt
from rightly.evaluation import score, share_inside
from rightly.workflows.reason_study import (
    Contest,
    Found,
    Study,
    Way,
    claims,
    comparisons,
    paired,
    run_entries,
    run_study,
    table,
)
from rightly.workflows.reproduce import Outcome, Settings

R = rt.recipes
DATASETS = ("stand-in", "isic")
#: CIFAR-10's numbers of the class with patches and of the one without, which the F1 score is of
NUMBERS = (3, 5)
CLASSES = {"stand-in": ("cat", "dog"), "isic": ("benign", "malignant")}
#: a patch's side, and its colours
SIDE, COLOURS = 8, np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1]], np.float32)
#: height and width that ISIC's pictures are brought to, and the shares of its rows for training, validation and test
ISIC_SIZE, ISIC_SHARES = 160, (0.8, 0.1, 0.1)
#: pictures whose input gradients are looked at
EXPLAINED = 500
WHERE, ELSEWHERE = "where the patch is", "a place that means nothing"


def _cdep(**arguments: Any) -> Any:
    return lambda weight: [R.cdep("irrelevant", weight=weight, **arguments)]


WAYS = {
    "plain": Way("Plain"),
    "weight_decay": Way("Weight decay", "nothing", (1e-4, 1e-3, 1e-2), lambda w: [rt.WeightTerm("l2", weight=w)]),
    "filtered": Way("Plain, without the patched pictures", "which pictures have a patch", rows="filtered"),
    "right_reasons": Way(
        "Right reasons", WHERE, (1.0, 10.0, 100.0), lambda w: [R.right_for_the_right_reasons(w, output="log_prob")]
    ),
    "agreement": Way("Agreement, patch hidden", WHERE, (1.0, 10.0, 100.0), lambda w: [R.agreement(w)]),
    "cdep": Way("CDEP", WHERE, (1.0, 10.0, 100.0), _cdep()),
    "cdep_l1": Way("CDEP, L1", WHERE, (1.0, 3.0, 10.0), _cdep(loss="l1")),
    "cdep_shapley": Way("CDEP, L1, Shapley", WHERE, (1.0, 3.0, 10.0), _cdep(loss="l1", convention="shapley")),
    "cdep_reference": Way("CDEP, L1, from zero", WHERE, (1.0, 3.0, 10.0), _cdep(loss="l1", convention="reference")),
    "random": Way("CDEP, a random place", ELSEWHERE, (1.0, 10.0, 100.0), _cdep(), marks="elsewhere"),
}


class Part(NamedTuple):
    """Some rows: pictures (N, 3, H, W), labels (N,), and where the patch is, (N, 1, H, W), nowhere in most."""

    inputs: Tensor
    labels: Tensor
    patches: Tensor

    def take(self, index: Tensor) -> Part:
        """Some of them."""
        return Part(*(part[index] for part in self))

    @property
    def patched(self) -> Tensor:
        """(N,) whether there is a patch."""
        return self.patches.flatten(1).any(1)


class Parts(NamedTuple):
    """One seed's rows; the first of the tests is ``all``, like the training rows."""

    train: Part
    validation: Part
    tests: dict[str, Part]


def run(settings: Settings) -> Outcome:
    """All ways."""
    own = settings.dataset == "isic"
    folder = settings.data_dir or Path("isic")

    @lru_cache(1)
    def pictures() -> Any:
        return _lesions(folder, settings) if own else _animals(settings)

    @lru_cache(1)
    def parts(seed: int) -> Parts:
        return (_isic_rows if own else _rows)(pictures(), seed, settings)

    fit = {
        "epochs": settings.sized(smoke=2, reduced=12, full=40),
        "batch_size": settings.sized(smoke=32, reduced=128, full=128),
        "lr": 1e-4 if own else 1e-3,
    }
    study = Study(
        ways=WAYS,
        work=lambda way, terms, seed: _trial(way, terms, seed, parts(seed), partial(_network, settings, folder), fit),
        seeds=list(range(settings.seed, settings.seed + settings.sized(smoke=2, reduced=5, full=5))),
        tried=settings.sized(smoke=1, reduced=1, full=2),
        rule="validation_pasted",
        told="AUC on validation pictures without a patch, half of them with another's pasted in",
        test_share=ISIC_SHARES[2] / (ISIC_SHARES[0] + ISIC_SHARES[2]) if own else None,
    )
    return _outcome(settings, study, run_study(study, settings), parts(settings.seed), fit)


# ---------------------------------------------------------------------------------------------------------- the rows


def _animals(settings: Settings) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    arrays = rt.data.load_arrays("cifar10_full_jpeg", data_dir=settings.data_dir)
    most = settings.sized(smoke=60, reduced=None, full=None)
    found = {}
    for part in ("train", "test"):
        images, labels = rt.data.cifar10_images(arrays, part, classes=NUMBERS, most=most)
        found[part] = images.astype(np.float32) / 255, (labels == NUMBERS[1]).astype(np.int64)
    return found


def _rows(pictures: Any, seed: int, settings: Settings) -> Parts:
    """Some training pictures of each class to choose by, others to train on; in the test, patches both ways."""
    draws = np.random.Generator(np.random.PCG64(seed))
    order = draws.permutation(len(pictures["train"][1]))
    labels, held = pictures["train"][1][order], settings.sized(smoke=2, reduced=500, full=500)
    few = np.concatenate([order[labels == label][:held] for label in (0, 1)])
    rest = order[~np.isin(order, few)][: settings.sized(smoke=60, reduced=5000, full=None)]

    def part(name: str, rows: np.ndarray, label: int) -> Part:
        """Half of the class ``label`` gets a patch."""
        images, labels = (array[rows] for array in pictures[name])
        of_it = draws.permutation(np.flatnonzero(labels == label))
        which = np.isin(np.arange(len(rows)), of_it[: len(of_it) // 2])
        return _patched(images, labels, which, draws)

    train, validation = part("train", rest, 0), part("train", few, 0)
    every = np.arange(len(pictures["test"][1]))
    test, swapped = part("test", every, 0), part("test", every, 1)
    return Parts(train, validation, {"all": test, "bare": test.take(~test.patched), "swapped": swapped})


def _patched(images: np.ndarray, labels: np.ndarray, which: np.ndarray, draws: np.random.Generator) -> Part:
    """A square of one of six colours in a random place of the pictures ``which``."""
    size = images.shape[-1]
    top, left = draws.integers(0, size - SIDE + 1, (2, len(images), 1))
    inside = [(np.arange(size) >= start) & (np.arange(size) < start + SIDE) for start in (top, left)]
    patches = (inside[0][:, :, None] & inside[1][:, None, :] & which[:, None, None])[:, None]
    colours = COLOURS[draws.integers(0, len(COLOURS), len(images))][:, :, None, None]
    return Part(*map(torch.from_numpy, (np.where(patches, colours, images), labels, patches)))


def _lesions(folder: Path, settings: Settings) -> Part:
    found = rt.data.read_isic(folder, size=settings.sized(smoke=32, reduced=ISIC_SIZE, full=ISIC_SIZE))
    patches = torch.from_numpy(np.nan_to_num(found.annotation)) > 0
    return Part(torch.from_numpy(found.inputs), torch.from_numpy(found.labels), patches)


def _isic_rows(pictures: Part, seed: int, settings: Settings) -> Parts:
    """80 / 10 / 10 of each class with and without patches: the run's validation rows, the others split by the seed."""
    kinds = (2 * pictures.labels + pictures.patched).numpy()
    rows = rt.data.split_indices(
        len(kinds), fractions=ISIC_SHARES, seed=seed, labels=kinds, validation_seed=settings.seed
    )
    train, validation, test = (pictures.take(torch.from_numpy(part)) for part in rows)
    return Parts(train, validation, {"all": test, "bare": test.take(~test.patched)})


def elsewhere(patches: Tensor, seed: int) -> Tensor:
    """Every patch moved round the picture to where it does not overlap itself.

    Where every move overlaps, one of the least, and of it only what does not.
    """
    draws = torch.Generator().manual_seed(seed)
    return torch.stack([_moved(patch, draws) for patch in patches])


def _moved(patch: Tensor, draws: torch.Generator) -> Tensor:
    """One of (1, H, W), by a move at random of those with the least overlap: the spectrum tells that of all moves."""
    if not patch.any():
        return patch
    overlaps = torch.fft.irfft2(torch.fft.rfft2(patch[0].double()).abs() ** 2, s=patch.shape[1:]).round()
    least = (overlaps == overlaps.min()).nonzero()
    move = least[torch.randint(len(least), (), generator=draws)]
    return patch.roll(move.tolist(), (-2, -1)) & ~patch


def pasted(part: Part, seed: int) -> Part:
    """The pictures without a patch, every other one, whatever its class, with that of another picture."""
    draws = torch.Generator().manual_seed(seed)
    bare, donors = part.take(~part.patched), part.take(part.patched)
    drawn = donors.take(torch.randint(len(donors.labels), bare.labels.shape, generator=draws))
    chosen = torch.rand(len(bare.labels), generator=draws) < 0.5
    patches = drawn.patches & chosen[:, None, None, None]
    return Part(torch.where(patches, drawn.inputs, bare.inputs), bare.labels, patches)


# --------------------------------------------------------------------------------------------------------- one network


def _network(settings: Settings, folder: Path, seed: int) -> nn.Module:
    """Small convolutions from scratch; for ISIC the paper's VGG16, whose convolutions stay as they are."""
    lesions = settings.dataset == "isic" and settings.size != "smoke"
    vgg: Any = rt.models.imagenet_vgg16(folder / "vgg16.safetensors").requires_grad_(False) if lesions else None
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if lesions:
            end = nn.Linear(512 * (ISIC_SIZE // 32) ** 2, 512), nn.ReLU(), nn.Linear(512, 2)
            return nn.Sequential(vgg.standardised, vgg.features, nn.Flatten(), *end)
        first, second = nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.Conv2d(16, 32, 5, stride=2, padding=2)
        end = nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(32 * 64, 2)
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), *end)


def _trial(
    way: Way, terms: Sequence[Any], seed: int, parts: Parts, network: Any, fit: dict[str, Any]
) -> dict[str, Any]:
    """Train one network and test it. Pictures without a patch are not annotated, and count in no term."""
    train = parts.train.take(~parts.train.patched) if way.rows == "filtered" else parts.train
    regions = elsewhere(train.patches, seed) if way.marks == "elsewhere" else train.patches
    known = torch.where(train.patched[:, None, None, None], regions.float(), torch.nan)
    counts = torch.bincount(train.labels, minlength=2)
    loss = partial(cross_entropy, weight=len(train.labels) / (2 * counts))
    model = network(seed)
    objective = rt.Objective(model, loss, terms, seed=seed)
    run = rt.fit(objective, (train.inputs, train.labels, rt.Annotation(irrelevant=known)), seed=seed, **fit)
    validation = {"validation": parts.validation, "validation_pasted": pasted(parts.validation, seed)}
    found = {name: _tested(model, part)[0] for name, part in validation.items()}
    for name, part in parts.tests.items():
        found |= dict(zip((f"auc_{name}", f"f1_{name}"), _tested(model, part), strict=True))
    return found | {"inside": _inside(model, parts.tests["all"]), "engines": run.engines}


def _tested(model: nn.Module, part: Part) -> tuple[float, float]:
    """AUC, and F1 score of class 1 where its probability is above a half."""
    model.eval()
    with torch.no_grad():
        outputs = torch.cat([model(rows) for rows in part.inputs.split(256)])
    labels, probabilities = part.labels.numpy(), outputs.double().softmax(1).numpy()
    called = probabilities[:, 1] > 0.5
    f1 = 2 * int((called & (labels == 1)).sum()) / int(called.sum() + (labels == 1).sum())
    return score(labels, probabilities, ["auc"])["auc"], f1


def _inside(model: nn.Module, test: Part) -> float:
    """Share of the input gradient that lies inside the patch."""
    few = test.take(test.patched.nonzero()[:EXPLAINED, 0])
    explained = rt.attribute(model, few.inputs, "gradient", labels=few.labels, output="log_prob").attributions
    return float(share_inside(explained, few.patches.expand_as(explained)).mean())


# ---------------------------------------------------------------------------------------------------- what is reported


def _outcome(settings: Settings, study: Study, found: Found, parts: Parts, fit: dict[str, Any]) -> Outcome:
    data = str(settings.dataset)
    tests = {"all": "as in training", "bare": "no patches", "swapped": "on the other class"}
    metrics = {f"{metric}_{name}": f"{metric}_{name}" for metric in ("auc", "f1") for name in parts.tests}
    columns = {f"{key.split('_')[0].upper()} ({tests[key.split('_')[1]]})": key for key in metrics}
    sizes = {"train": len(parts.train.labels), "validation": len(parts.validation.labels)}
    sizes["test"] = len(parts.tests["all"].labels)
    about = {
        "stand-in": ("CIFAR-10, cats and dogs with patches (stand-in for ISIC)", "Krizhevsky 2009, a JPEG copy"),
        "isic": ("ISIC, skin lesions with patches", "Codella et al. 2019, your copy"),
    }[data]
    judged = "auc_swapped" if "swapped" in parts.tests else "auc_bare"
    return Outcome(
        title="Coloured patches on half of one class",
        question="Does CDEP keep a network from leaning on patches, and what is it worth beside simpler means?",
        reduction=f"{settings.size.capitalize()} size. {about[0]}: {sizes['train']:,} training pictures, "
        f"{fit['epochs']} epochs, {len(study.seeds)} seeds, strengths chosen by {study.tried} of them "
        "(the paper: ISIC, VGG16, three runs).",
        data={
            "name": about[0],
            "source": about[1],
            "kind": "images",
            "rows": sum(sizes.values()),
            "features": parts.train.inputs[0].numel(),
            "label": "class",
            "classes": list(CLASSES[data]),
            "task": "classification",
            "split": sizes,
            "notes": [f"{int(parts.train.patched.sum()):,} of the training pictures have a patch."],
        },
        runs=run_entries(study, found, metrics, {"inside": "inside"}),
        comparison=comparisons(study, found, "cdep", metrics),
        claims=claims(study, found, _contests(parts)),
        notes=_NOTES + _MORE[data],
        figures={
            "tables": [
                table(study, found, "Test pictures: means over seeds with 95 % intervals.", columns),
                paired(study, found, judged, f"Paired tests over seeds against plain: {judged.replace('_', ', ')}."),
                _published(),
            ]
        },
    )


def _published() -> dict[str, Any]:
    body = [
        ["Plain", 0.93, 0.67, 0.96, 0.67],
        ["Right reasons", 0.76, 0.45, 0.87, 0.45],
        ["CDEP", 0.95, 0.73, 0.97, 0.73],
    ]
    columns = ["Way", "AUC (no patches)", "F1 (no patches)", "AUC (all)", "F1 (all)"]
    return {"title": "As published (table 5): ISIC, means of three runs.", "columns": columns, "rows": body}


def _contests(parts: Parts) -> list[Contest]:
    ours = "not published"
    swapped = "AUC (patches on the other class)"
    own = [
        Contest(swapped, ours, "auc_swapped", "cdep"),
        Contest(swapped, ours, "auc_swapped", "cdep", "random"),
        Contest(swapped, ours, "auc_swapped", "cdep", "right_reasons"),
        Contest(swapped, ours, "auc_swapped", "cdep", "agreement"),
        Contest(swapped, ours, "auc_swapped", "cdep_l1", "cdep"),
        Contest(swapped, ours, "auc_swapped", "cdep_shapley", "cdep"),
        Contest(swapped, ours, "auc_swapped", "cdep_shapley", "right_reasons"),
        Contest(swapped, ours, "auc_swapped", "cdep_shapley", "agreement"),
        *(
            Contest(swapped, ours, "auc_swapped", "cdep_reference", other)
            for other in ("cdep", "right_reasons", "agreement")
        ),
    ]
    return [
        Contest("AUC (no patches)", "0.95 against 0.93", "auc_bare", "cdep"),
        Contest("F1 (no patches)", "0.73 against 0.67", "f1_bare", "cdep"),
        Contest("AUC (all)", "0.97 against 0.96", "auc_all", "cdep"),
        Contest("F1 (all)", "0.73 against 0.67", "f1_all", "cdep"),
        Contest("AUC (no patches)", "0.95 against 0.76", "auc_bare", "cdep", "right_reasons"),
        Contest("F1 (no patches)", "0.73 against 0.45", "f1_bare", "cdep", "right_reasons"),
        Contest("AUC (no patches)", "0.89 against 0.88 (the authors' code)", "auc_bare", "cdep", "filtered"),
        *(own if "swapped" in parts.tests else []),
    ]


_NOTES = [
    "'No patches' are those test pictures that have none, as in the paper; 'all' has patches as the training pictures.",
    "The F1 score is of the class without patches (malignant; dog), at a probability of one half. Classes weigh alike "
    "in the loss, as in the published code.",
    "Strengths are chosen by the AUC on validation pictures without a patch, half of which, of either class, get one "
    "that was cut out of another picture: whoever knows where patches are can do so. Networks train for a fixed number "
    "of epochs, without early stopping.",
    "A picture without a patch is not annotated and counts in no term.",
    "CDEP is as the code that was published: softmax over the part of the patch and the rest, of all classes. 'L1' is "
    "the loss as it is printed (eq. 10), 'Shapley' shares what patch and rest do together between them, which the "
    "published rules give to the rest. 'A random place' is CDEP on the patch's shape, moved round the same picture to "
    "where it does not overlap the patch.",
    "Every way with a strength has three to choose from. Plain training and leaving pictures out have none: they are "
    "trained once a seed, and gain nothing from a choice.",
    "The softmax only asks that the patch's part of every class score be below the rest's: parts that are equally low "
    "for both classes satisfy it, whatever their difference says.",
    "'Without the patched pictures' leaves out half of one class (lambda -1 in the authors' code).",
]
_MORE = {
    "stand-in": [
        "Not skin lesions: cats stand for benign, dogs for malignant. Squares of 8 x 8 pixels of six colours, in a "
        "random place of half of the cats. 'On the other class' has them on half of the dogs instead: no row is like "
        "that in training. Strengths are chosen, for all ways alike, on validation rows with patches on either class.",
        "A network of two convolutions from scratch; the paper trains the classifier of a pretrained VGG16.",
    ],
    "isic": [
        f"Pictures are brought to {ISIC_SIZE} x {ISIC_SIZE} pixels; VGG16's convolutions stay as they are, two new "
        "layers follow them. The published code widens every mask by 20 pixels: do so in your masks.",
        "10 % of the rows are validation rows of all seeds, so that no seed tests on what chose the strengths; each "
        "seed splits the others anew, 80 / 10. The tests are corrected for that (Nadeau and Bengio 2003).",
        "Where a patch is so large that every place overlaps it, what does not is marked, where that is most.",
    ],
}
