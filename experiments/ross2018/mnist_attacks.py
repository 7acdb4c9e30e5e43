"""MNIST under attack (Ross 2018, figures 3.1 to 3.9): small input gradients against adversarial examples.

The thesis' network is trained plainly and with each defence: distillation, adversarial training, small input
gradients of the loss (double backpropagation) or of the certainty, and two at once. Each is attacked by FGSM and TGSM,
all answer everybody's examples, and what only hides its gradients is flagged. Numbers beside ours: the thesis' figures
as the authors' notebooks give them, for 256 test pictures.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import rightly as rt
from rightly.workflows.attack_thesis import SIZES, outcome, rows_of
from rightly.workflows.reproduce import Outcome, Settings

_NAMES = ("plain", "distilled", "adversarial", "certainty", "double")
#: at eps 0.1 / 0.2 / 0.3
PUBLISHED = {
    key: dict(zip(_NAMES, told.split(), strict=True))
    for key, told in {
        ("clean", ""): ".993 .994 .992 .994 .994",
        ("fgsm", "own"): ".73/.28/.11 .99/.99/.99 1.0/.99/.96 .95/.55/.11 .92/.65/.28",
        ("fgsm", "plain"): ".73/.28/.11 .95/.58/.21 .98/.97/.86 .98/.93/.74 .98/.92/.80",
        ("fgsm", "double"): ".95/.76/.34 .92/.34/.08 .98/.93/.63 .97/.78/.43 .92/.65/.28",
        ("tgsm", "own"): ".81/.25/.07 .57/.04/.02 .99/.99/.96 .97/.78/.24 .97/.79/.29",
    }.items()
}


def run(settings: Settings) -> Outcome:
    """All defences, all attacks."""
    sizes = settings.sized(**SIZES)

    def parts() -> Any:
        mnist = rt.data.load_arrays("mnist", data_dir=settings.data_dir)
        images, labels = _tensors(mnist["x_train"], mnist["y_train"])
        return rows_of(images, labels, sizes, settings.seed, _tensors(mnist["x_test"], mnist["y_test"]))

    return outcome(
        settings,
        sizes,
        parts,
        name="MNIST",
        data={
            "name": "MNIST",
            "source": "LeCun, Cortes and Burges",
            "kind": "images",
            "label": "digit",
            "licence": "CC BY-SA 3.0",
        },
        published=PUBLISHED,
    )


def _tensors(images: Any, labels: Any) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(images)[:, None] / 255, torch.from_numpy(labels).long()
