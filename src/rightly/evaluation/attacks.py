"""How a classifier stands up to attacks: accuracy against their strength, and who is fooled by whose examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rightly.core import autodiff, seeding
from rightly.core.batch import Model, outputs_of
from rightly.core.checks import check_count, check_number
from rightly.core.errors import ArgumentError
from rightly.core.scalar import Output, explained
from rightly.evaluation.explainer import features, read
from rightly.evaluation.robustness import Curve
from rightly.evaluation.statistics import Interval, proportion
from rightly.perturbations import Perturbation, answers

#: examples a pass of an attack
_BATCH = 256


def attacked(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    perturbation: Perturbation,
    *,
    inside: Tensor | None = None,
    batch_size: int = _BATCH,
    seed: int = 0,
) -> Tensor:
    """The changed inputs (N, *F), made batch by batch.

    Args:
        model: any classifier; nothing of it changes.
        inputs, labels: (N, *F), (N,).
        perturbation: such as ``rt.perturbations.PGD(0.1, clip=(0, 1))``.
        inside: where inputs may change, (N, ...) or (1, ...).
        batch_size: examples a pass; memory only, but for what draws or takes a mean over the batch.
        seed: of the draws.
    """
    check_count("batch_size", batch_size)
    draws, found = seeding.generator("attack", seed), []
    for part in torch.arange(len(features(inputs))).split(batch_size):
        region = inside if inside is None or len(inside) == 1 else inside[part]
        found.append(perturbation(model, inputs[part], labels[part], inside=region, generator=draws))
    return torch.cat(found)


def answered_right(model: Model, inputs: Tensor, labels: Tensor) -> Tensor:
    """Which examples get their label for an answer, (N,) boolean."""
    return answers(read(model, inputs)) == labels.flatten().to(inputs.device)


def attack_curve(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    attack: Callable[[float], Perturbation],
    strengths: Sequence[float],
    *,
    batch_size: int = _BATCH,
    seed: int = 0,
) -> Curve:
    """Accuracy against an attack's strength, with exact 95 % intervals over examples (Clopper, Pearson).

    Args:
        attack: strength -> perturbation, such as ``lambda eps: FGSM(eps, clip=(0, 1))``.
        strengths: (S,), 0 for clean inputs.
        model, inputs, labels, batch_size, seed: as in ``attacked``.
    """
    found = []
    for strength in strengths:
        check_number("strength", strength, positive=False)
        changed = attacked(model, inputs, labels, attack(strength), batch_size=batch_size, seed=seed)
        found.append(_share(answered_right(model, changed, labels)))
    return Curve(tuple(map(float, strengths)), tuple(found))


def gradient_norms(
    model: Model, inputs: Tensor, labels: Tensor | None, *, output: Output = "loss", batch_size: int = _BATCH
) -> Tensor:
    """Euclidean length (N,) of each example's input gradient (Ross 2018, figure 3.6), in the inputs' precision.

    Args:
        output: of which number; with ``"loss"``, the successors of the labels give the targeted attack's.
        model, inputs, labels, batch_size: as in ``attacked``.
    """
    flat = slopes(model, inputs, labels, output=output, batch_size=batch_size).flatten(1)
    lengths: Tensor = torch.linalg.vector_norm(flat, dim=1)
    return lengths


def slopes(
    model: Model, inputs: Tensor, labels: Tensor | None, *, output: Output = "loss", batch_size: int = _BATCH
) -> Tensor:
    """Input gradients (N, *F) as attacks see them: see ``gradient_norms``."""
    check_count("batch_size", batch_size)
    found = []
    with autodiff.reading(model, trainable=False):
        for part in torch.arange(len(features(inputs))).split(batch_size):
            points = autodiff.recordable(inputs[part].detach()).requires_grad_()
            known = None if labels is None else labels[part]
            values = explained(outputs_of(model(points)), known, None, output)
            found.append(autodiff.gradient(values, points, create_graph=False))
    return torch.cat(found)


@dataclass(frozen=True)
class Transfer:
    """Every model on the examples that were made for each.

    Attributes:
        sources: S names, of the models that were attacked.
        targets: T names, of the models that answered.
        right: (S, T, N) boolean: whether target t is right on source s's version of example n.
        clean: (T, N), on the examples as they were.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    right: Tensor
    clean: Tensor

    def accuracy(self, source: str, target: str) -> Interval:
        """With its exact 95 % interval over examples."""
        return _share(self._of(source, target))

    def fooled_by(self, target: str) -> dict[str, Tensor]:
        """By source, which examples (N,) the target got right before and wrong now: the sets of figure 3.3."""
        before = self.clean[self.targets.index(target)]
        return {source: before & ~self._of(source, target) for source in self.sources}

    def _of(self, source: str, target: str) -> Tensor:
        for name, known in ((source, self.sources), (target, self.targets)):
            if name not in known:
                raise ArgumentError("no such model", expected=", ".join(known), got=name)
        return self.right[self.sources.index(source), self.targets.index(target)]


def transfer_matrix(
    models: Mapping[str, Model],
    inputs: Tensor,
    labels: Tensor,
    perturbation: Perturbation,
    *,
    sources: Mapping[str, Model] | None = None,
    batch_size: int = _BATCH,
    seed: int = 0,
) -> Transfer:
    """Attack each model, and ask all of them (Ross 2018, figures 3.1, 3.3, 3.5).

    Args:
        models: by name, which answer.
        sources: which are attacked; by default the same, so that the diagonal is the white-box accuracy.
        inputs, labels, perturbation, batch_size, seed: as in ``attacked``.
    """
    attackers = models if sources is None else sources
    if not models or not attackers:
        raise ArgumentError("nothing is compared", expected="at least one model", got={})
    rows = []
    for source in attackers.values():
        changed = attacked(source, inputs, labels, perturbation, batch_size=batch_size, seed=seed)
        rows.append(torch.stack([answered_right(model, changed, labels) for model in models.values()]))
    clean = torch.stack([answered_right(model, inputs, labels) for model in models.values()])
    return Transfer(tuple(attackers), tuple(models), torch.stack(rows), clean)


def targeted_grid(
    model: Model, inputs: Tensor, attack: Callable[[int], Perturbation], classes: int
) -> tuple[Tensor, Tensor]:
    """Each example driven towards every class: what figure 3.8 shows.

    Args:
        model, inputs: as in ``attacked``.
        attack: class -> perturbation, such as ``lambda k: iterated_tgsm(0.1, 15, targeted=k, clip=(0, 1))``.
        classes: K.

    Returns:
        The changed inputs (N, K, *F), and the class that the model gives each of them (N, K).
    """
    check_count("classes", classes, least=2)
    columns = []
    for number in range(classes):
        goal = torch.full((len(inputs),), number, device=inputs.device)
        columns.append(attacked(model, inputs, goal, attack(number)))
    return torch.stack(columns, 1), torch.stack([answers(read(model, column)) for column in columns], 1)


def _share(hits: Tensor) -> Interval:
    return proportion(int(hits.sum()), len(hits))
