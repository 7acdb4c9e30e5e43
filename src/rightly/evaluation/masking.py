"""Whether a model resists attacks, or only hides the gradient that they follow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rightly.core import seeding
from rightly.core.batch import Model
from rightly.core.checks import check_number
from rightly.evaluation.attacks import answered_right, attacked, slopes
from rightly.evaluation.explainer import read
from rightly.evaluation.statistics import binomial, proportion
from rightly.perturbations import FGSM, PGD, Perturbation, unsaturated

#: of examples whose gradient vanishes, before that is called more than a few
ZERO_SHARE = 0.05
#: of the one-sided sign test that one attack beats another
LEVEL = 0.01


@dataclass(frozen=True)
class Masking:
    """What speaks against reading a model's accuracy under attack as robustness.

    Attributes:
        reasons: what was found, with its numbers; empty where nothing was.
        accuracy: by attack: ``"clean"``, ``"fgsm"``, ``"pgd"``, ``"unsaturated fgsm"``, ``"unsaturated pgd"``,
            ``"random signs"``, ``"unbounded"`` and one for each of the examples that were handed over.
        worst: share of the examples that are right under all of them but ``"unbounded"``: an upper bound of the
            robust accuracy, and what to report in place of ``accuracy["fgsm"]``.
        zero_gradients: share of the examples whose loss gradient is zero at every value.
    """

    reasons: tuple[str, ...]
    accuracy: dict[str, float]
    worst: float
    zero_gradients: float

    @property
    def masked(self) -> bool:
        """Whether accuracy under gradient attacks must not be counted as robustness."""
        return bool(self.reasons)


def gradient_masking(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    eps: float,
    *,
    clip: tuple[float, float],
    transferred: Mapping[str, Tensor] | None = None,
    steps: int = 10,
    seed: int = 0,
) -> Masking:
    """Look for the signs of masked gradients (Athalye, Carlini, Wagner 2018; Ross 2018, 3.4.1).

    1. The loss gradient is zero at every value of more than a few examples that the model gets right (saturated
       probabilities, rounded away).
    2. The loss without its saturation (``rt.perturbations.unsaturated``: the same direction) attacks better.
    3. Random signs of the same size, or examples made for other models (``transferred``), fool it more often than
       the single gradient step does.
    4. A single step fools it more often than many small ones.
    5. An attack without a bound does not bring the accuracy down to chance.

    Comparisons are one-sided sign tests over the examples on which two attacks differ, at the level 0.01.

    Args:
        model: any classifier; nothing of it changes.
        inputs, labels: (N, *F), (N,); some hundred examples.
        eps: the attacks' size.
        clip: the range of the data.
        transferred: by name, examples (N, *F) that an attack of the same kind and size made for another model.
        steps: of the iterated attacks.
        seed: of the draws.
    """
    check_number("eps", eps, positive=True)
    attacks: dict[str, Perturbation] = {
        "fgsm": FGSM(eps, clip=clip),
        "pgd": PGD(eps, steps=steps, clip=clip),
        "unsaturated fgsm": FGSM(eps, output=unsaturated, clip=clip),
        "unsaturated pgd": PGD(eps, steps=steps, random_start=True, output=unsaturated, clip=clip),
    }
    size = clip[1] - clip[0]
    changed = {name: attacked(model, inputs, labels, attack, seed=seed) for name, attack in attacks.items()}
    signs = torch.rand(inputs.shape, generator=seeding.generator("signs", seed)).to(inputs) - 0.5
    changed |= {"random signs": (inputs + eps * signs.sign()).clamp(*clip), **(transferred or {})}
    # steps of a tenth of the range reach any corner of it
    free = attacked(model, inputs, labels, PGD(math.inf, size / 10, 2 * steps, clip=clip), seed=seed)
    hits = {"clean": answered_right(model, inputs, labels)} | {
        name: answered_right(model, points, labels) for name, points in changed.items()
    }
    unbounded = answered_right(model, free, labels)
    flat = slopes(model, inputs, labels).flatten(1)
    vanished = (flat == 0).all(1)
    reasons = _reasons(hits, vanished, unbounded, read(model, inputs), tuple(transferred or ()))
    accuracy = {name: float(found.double().mean()) for name, found in (hits | {"unbounded": unbounded}).items()}
    worst = float(torch.stack(list(hits.values())).all(0).double().mean())
    return Masking(tuple(reasons), accuracy, worst, float(vanished.double().mean()))


def _reasons(
    hits: Mapping[str, Tensor], vanished: Tensor, unbounded: Tensor, outputs: Tensor, others: tuple[str, ...]
) -> list[str]:
    found = []
    known = hits["clean"]
    count = int(vanished[known].sum())
    if known.any() and count > ZERO_SHARE * int(known.sum()):
        found.append(
            f"the loss gradient is zero at every value of {count} of {int(known.sum())} examples it gets right"
        )
    for weaker, stronger in (("fgsm", "unsaturated fgsm"), ("pgd", "unsaturated pgd")):
        if _beats(hits[stronger], hits[weaker]):
            found.append(f"{_told(hits, stronger, weaker)}: the loss saturates")
    for name in ("random signs", *others):
        if _beats(hits[name], hits["fgsm"]):
            found.append(f"{_told(hits, name, 'fgsm')}: what does not know the gradient does better")
    if _beats(hits["fgsm"], hits["pgd"]):
        found.append(f"{_told(hits, 'fgsm', 'pgd')}: many small steps do worse than one")
    classes = 2 if outputs.ndim == 1 or outputs.shape[1] == 1 else outputs.shape[1]
    left = proportion(int(unbounded.sum()), len(unbounded))
    if left.low > 1 / classes:
        found.append(f"an attack without a bound leaves {left.mean:.1%} right, above chance ({1 / classes:.1%})")
    return found


def _beats(stronger: Tensor, weaker: Tensor) -> bool:
    """Whether fewer examples survive one attack than the other, by more than chance."""
    only, other = int((weaker & ~stronger).sum()), int((stronger & ~weaker).sum())
    return only > other and binomial(only, only + other) < LEVEL


def _told(hits: Mapping[str, Tensor], stronger: str, weaker: str) -> str:
    return f"{stronger} leaves {hits[stronger].double().mean():.1%} right, {weaker} {hits[weaker].double().mean():.1%}"
