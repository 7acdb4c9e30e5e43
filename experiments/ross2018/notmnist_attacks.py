"""notMNIST under attack (Ross 2018, figures 3.1 and 3.5): small input gradients against attacks, on letters.

The study of ``mnist-attacks`` on the letters A to J in many typefaces (Bulatov 2011), which cannot be had here: with
``--dataset notmnist --data-dir FOLDER`` the recipe takes your copy (``FOLDER/A/*.png`` to ``FOLDER/J/*.png``, such as
notMNIST_small). By default it is shown on a stand-in of the same shape, MNIST, whose numbers say nothing of letters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import rightly as rt
from rightly.workflows.attack_thesis import SIZES, outcome, rows_of
from rightly.workflows.reproduce import Outcome, Settings

DATASETS = ("stand-in", "notmnist")
_NAMES = ("plain", "distilled", "adversarial", "certainty", "double")
#: at eps 0.1 / 0.2 / 0.3
PUBLISHED = {
    ("clean", ""): dict(zip(_NAMES, (".971", ".967", ".975", ".973", ".968"), strict=True)),
    ("fgsm", "own"): dict(
        zip(_NAMES, (".43/.22/.14", ".92/.92/.92", ".93/.93/.92", ".91/.77/.46", ".92/.83/.59"), strict=True)
    ),
}


def run(settings: Settings) -> Outcome:
    """All defences, all attacks."""
    own = settings.dataset == "notmnist"
    images, labels, notes = _letters(settings) if own else _digits(settings)
    sizes = settings.sized(**SIZES)
    few = min(sizes.validation, len(labels) // 10), min(sizes.test, len(labels) // 10)
    sizes = sizes._replace(train=min(sizes.train, len(labels) - sum(few)), validation=few[0], test=few[1])
    return outcome(
        settings,
        sizes,
        lambda: rows_of(images, labels, sizes, settings.seed),
        name="notMNIST" if own else "MNIST (stand-in for notMNIST)",
        data={
            "name": "notMNIST" if own else "MNIST (stand-in for notMNIST)",
            "source": "Bulatov 2011, your copy" if own else "LeCun, Cortes and Burges",
            "kind": "images",
            "label": "letter" if own else "digit",
        },
        published=PUBLISHED if own else {},
        notes=[
            *notes,
            "Training, validation and test rows are drawn from one folder; the thesis has 200000 and 10000.",
        ],
    )


def _letters(settings: Settings) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    found = rt.data.read_notmnist(settings.data_dir or Path("notMNIST_small"))
    return torch.from_numpy(found.inputs), torch.from_numpy(found.labels), list(found.notes)


def _digits(settings: Settings) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    mnist: Any = rt.data.load_arrays("mnist", data_dir=settings.data_dir)
    images = torch.from_numpy(mnist["x_train"])[:, None] / 255
    return images, torch.from_numpy(mnist["y_train"]).long(), ["notMNIST cannot be had here: these are digits."]
