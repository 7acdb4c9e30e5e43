"""Attacks of the Adversarial Robustness Toolbox (MIT licence), in the room's own interface; the extra ``attacks``."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from rightly.core import seeding
from rightly.core.batch import Model, outputs_of
from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.extras import require
from rightly.perturbations.base import Perturbation, check_radius
from rightly.perturbations.gradient import Targeted

ApgdLoss = Literal["cross_entropy", "difference_logits_ratio"]


@dataclass(frozen=True, kw_only=True)
class LibraryAttack(Perturbation):
    """An attack that another library makes.

    It works on a copy of the model, in float32, and draws from NumPy's global state, which is put back afterwards.
    """

    @abstractmethod
    def _attack(self, classifier: Any) -> Any:
        """The library's attack on its own view of the model."""

    def _goal(self, labels: Tensor, classes: int) -> Tensor:
        return labels

    def _change(
        self, model: Model, inputs: Tensor, labels: Tensor | None, region: Tensor | None, draws: torch.Generator
    ) -> Tensor:
        if not isinstance(model, nn.Module) or labels is None:
            raise ArgumentError(
                "the library attacks a module, given labels",
                expected="model: torch.nn.Module, labels: (B,)",
                got=(type(model).__name__, None if labels is None else "labels"),
            )
        copied = _Scores(copy.deepcopy(model)).float().eval().requires_grad_(False)
        classes = copied(inputs[:1].float()).shape[1]
        estimators = require("art.estimators.classification")
        with seeding.guarded_everywhere(int(torch.randint(2**62, (), generator=draws))):
            classifier = estimators.PyTorchClassifier(
                copied,
                nn.CrossEntropyLoss(),
                input_shape=tuple(inputs.shape[1:]),
                nb_classes=classes,
                clip_values=self.clip,
                device_type="gpu" if inputs.is_cuda else "cpu",
            )
            given = self._goal(labels.long(), classes).cpu().numpy()
            points, found = inputs.float().cpu(), inputs.clone()
            for rows, known in _by_region(region, len(inputs)):
                made = self._attack(classifier).generate(points[rows].numpy(), given[rows.numpy()], **known)
                found[rows] = torch.from_numpy(made).to(inputs)
        return found


@dataclass(frozen=True)
class JSMA(LibraryAttack):
    """Jacobian-based saliency map attack (Papernot et al. 2016; Ross 2018, figure 3.7): few pixels, changed by much.

    Args:
        theta: what a pixel changes by at a step (the thesis: 1).
        gamma: the largest share of the pixels that may change (the thesis: 0.25).
        targeted: as in ``GradientStep``; always towards a class.
        clip: the pixels' range; needed.
    """

    theta: float = 1.0
    gamma: float = 0.25
    targeted: Targeted = "next"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_clip(self)
        if self.targeted is None:
            raise ArgumentError("this attack has a target", expected="'next' or a class number", got=None)

    def _goal(self, labels: Tensor, classes: int) -> Tensor:
        if isinstance(self.targeted, int):
            return torch.full_like(labels, self.targeted)
        return (labels + 1) % classes

    def _attack(self, classifier: Any) -> Any:
        made = require("art.attacks.evasion").SaliencyMapMethod
        return made(classifier, theta=self.theta, gamma=self.gamma, batch_size=64, verbose=False)


@dataclass(frozen=True)
class AutoPGD(LibraryAttack):
    """Projected gradient steps that choose their own length (Croce, Hein 2020), a part of AutoAttack.

    Args:
        eps: radius of the ball, by value (linf).
        loss: ``"difference_logits_ratio"`` knows no saturation.
        steps, restarts: how often.
        clip: the range of the data; needed.
    """

    eps: float
    loss: ApgdLoss = "cross_entropy"
    steps: int = 50
    restarts: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_clip(self)
        check_radius("eps", self.eps)
        check_count("steps", self.steps)
        check_count("restarts", self.restarts)
        if self.loss not in get_args(ApgdLoss):
            raise ArgumentError("unknown loss", expected=", ".join(get_args(ApgdLoss)), got=repr(self.loss))

    def _attack(self, classifier: Any) -> Any:
        return require("art.attacks.evasion").AutoProjectedGradientDescent(
            classifier,
            eps=self.eps,
            eps_step=self.eps / 4,
            max_iter=self.steps,
            nb_random_init=self.restarts,
            batch_size=256,
            loss_type=self.loss,
            verbose=False,
        )


@dataclass(frozen=True)
class Square(LibraryAttack):
    """Random squares, kept where they help (Andriushchenko et al. 2020): needs no gradient, so none can be masked.

    Args:
        eps: the change of every value (linf).
        steps: queries an example.
        clip: the range of the data; needed.
    """

    eps: float
    steps: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_clip(self)
        check_radius("eps", self.eps)
        check_count("steps", self.steps)

    def _attack(self, classifier: Any) -> Any:
        made = require("art.attacks.evasion").SquareAttack
        return made(classifier, eps=self.eps, max_iter=self.steps, batch_size=256, verbose=False)


class _Scores(nn.Module):
    """A model's class scores as one tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        scores = outputs_of(self.model(x))
        if scores.ndim != 2 or scores.shape[1] < 2:
            raise ShapeError("the library attacks class scores", expected="(B, K), K > 1", got=tuple(scores.shape))
        return scores


def _by_region(region: Tensor | None, count: int) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    """The rows that share a region, with the argument that tells the library: it takes one for a whole call only."""
    if region is None:
        yield torch.arange(count), {}
        return
    kinds, kind = region.cpu().unique(dim=0, return_inverse=True)
    for number, one in enumerate(kinds):
        yield (kind == number).nonzero()[:, 0], {"mask": one[None].float().numpy()}


def _check_clip(attack: Perturbation) -> None:
    if attack.clip is None:
        raise ArgumentError(
            f"{type(attack).__name__} needs the range of the data", expected="clip=(low, high)", got=None
        )
