"""What a discovery returns: models with accuracies, how alike their reasons are, and how many there seem to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from rightly.training import Run


@dataclass(frozen=True)
class Finding:
    """One model.

    Attributes:
        model: trained.
        run: as ``rt.fit`` returns it; models that were trained at once share it.
        weight: of the penalty that it was trained with; 0 for the first of a sequence.
        train, validation: its score (see ``find_another_explanation``); None without validation data.
        marked: share of the components that its mask of largest gradients marks.
        repeated: share of that mask which earlier models had marked already (sequential, from the second model on).
        better: whether it is better than one answer for everybody, the most frequent class or the mean of the training
            labels, by more than chance (two standard errors, on the data of ``score``); None where a score of one's
            own was given. Without validation data learning by heart looks better too.
    """

    model: nn.Module
    run: Run
    weight: float
    train: float
    validation: float | None
    marked: float
    repeated: float | None = None
    better: bool | None = None

    @property
    def score(self) -> float:
        """On the validation data; on the training data without any."""
        return self.train if self.validation is None else self.validation


@dataclass(frozen=True)
class Discovery:
    """What ``find_another_explanation`` found.

    Attributes:
        findings: in the order of training, the one included that made a sequence stop.
        similarity: (M, M), mean absolute cosine of the models' gradients (see ``gradient_similarity``).
        overlap: (M, M), how much their masks of largest gradients share (see ``mask_overlap``).
        distinct: numbers of the models that are accurate and different: see ``redundancy``.
        stopped: why there is no further model, in words.
    """

    findings: tuple[Finding, ...]
    similarity: Tensor
    overlap: Tensor
    distinct: tuple[int, ...]
    stopped: str

    @property
    def models(self) -> list[nn.Module]:
        """In the order of training."""
        return [finding.model for finding in self.findings]

    @property
    def redundancy(self) -> int:
        """How many times over the data hold what is needed: the number of accurate models for different reasons.

        A model counts if its score is within the tolerance of the best one's, if it is better than one answer for
        everybody (``Finding.better``), and if its gradients are less alike to those of each model that counts already
        than the threshold ``alike``; of models that know nothing, chance passes about one in thirty. A lower bound,
        and a rough one: what another penalty or a longer training would find is not known (Ross 2018, 2.2.2 and its
        footnote 2).
        """
        return len(self.distinct)


def distinct(findings: Sequence[Finding], similarity: Tensor, tolerance: float, alike: float) -> tuple[int, ...]:
    """Numbers of the models that count, taken in their order: see ``Discovery.redundancy``."""
    best = max(finding.score for finding in findings)
    chosen: list[int] = []
    for number, found in enumerate(findings):
        accurate = found.score >= best - tolerance and found.better is not False
        if accurate and all(float(similarity[number, other]) < alike for other in chosen):
            chosen.append(number)
    return tuple(chosen)
