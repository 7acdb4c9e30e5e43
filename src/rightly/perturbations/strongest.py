"""Several attacks as one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rightly.core.batch import Model, outputs_of
from rightly.core.errors import ArgumentError
from rightly.perturbations.base import Perturbation
from rightly.perturbations.gradient import PGD, answers, unsaturated
from rightly.perturbations.library import AutoPGD, Square


@dataclass(frozen=True)
class FirstToFool(Perturbation):
    """Each example as the first of several attacks left it that made the model wrong; else as the last left it.

    The accuracy under it is the share of examples that are right under every one of them, which is what robustness
    means (AutoAttack: Croce, Hein 2020).

    Args:
        attacks: in the order in which they are tried, the cheap ones first.
        clip: as in ``Perturbation``, beside their own.
    """

    attacks: tuple[Perturbation, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "attacks", tuple(self.attacks))
        if not self.attacks or not all(isinstance(attack, Perturbation) for attack in self.attacks):
            raise ArgumentError("attacks are perturbations", expected="at least one", got=self.attacks)

    def _change(
        self, model: Model, inputs: Tensor, labels: Tensor | None, region: Tensor | None, draws: torch.Generator
    ) -> Tensor:
        if labels is None:
            raise ArgumentError("wrong is what is not the label", expected="labels (B,)", got=None)
        moved = inputs.clone()
        left = torch.arange(len(inputs), device=inputs.device)
        for attack in self.attacks:
            if len(left) == 0:
                break
            inside = None if region is None else region[left]
            # judged as it will be given back
            found = self._clipped(
                attack(model, inputs[left], labels[left], inside=inside, generator=draws), inputs[left]
            )
            moved[left] = found
            with torch.no_grad():
                left = left[answers(outputs_of(model(found))) == labels[left].flatten()]
        return moved


def auto_attack(eps: float, clip: tuple[float, float], *, library: bool = True) -> FirstToFool:
    """An ensemble in the manner of AutoAttack (Croce, Hein 2020) in the ball of ``eps`` by value.

    Ours: projected steps on the loss from the input and on the unsaturated loss from a random start. With
    ``library`` (the extra ``attacks``) also APGD on cross-entropy and on the ratio of logit differences, and Square,
    which needs no gradient. AutoAttack's targeted FAB is not part of it.
    """
    own = [PGD(eps, steps=20, clip=clip), PGD(eps, steps=20, random_start=True, output=unsaturated, clip=clip)]
    further: list[Perturbation] = [
        AutoPGD(eps, clip=clip),
        AutoPGD(eps, "difference_logits_ratio", clip=clip),
        Square(eps, clip=clip),
    ]
    return FirstToFool((*own, *(further if library else ())))
