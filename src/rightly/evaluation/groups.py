"""Accuracy by groups: what a model that found a shortcut hides in its average."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.groups import Groups, group_numbers, group_sums
from rightly.core.scalar import single
from rightly.evaluation.statistics import LEVEL, Interval, mean_of, proportion


@dataclass(frozen=True)
class GroupAccuracy:
    """Accuracy in each group and over them, each with its 95 % interval over the examples of one test set.

    Attributes:
        groups: the entries of each group's columns, in order.
        counts: examples of each.
        accuracies: of each.
        worst: the accuracy of the group that is worst off. Which one that is depends on chance, so its interval comes
            from intervals that hold for all groups at once (Bonferroni): the lowest of their lower and the lowest of
            their upper ends.
        group_average: mean over groups, each counting the same; of independent groups (Zou, Donner 2008).
        average: over examples.
    """

    groups: tuple[tuple[int, ...], ...]
    counts: tuple[int, ...]
    accuracies: tuple[Interval, ...]
    worst: Interval
    group_average: Interval
    average: Interval

    @property
    def worst_group(self) -> tuple[int, ...]:
        """The entries of the group that is worst off; of equals the first."""
        means = [found.mean for found in self.accuracies]
        return self.groups[means.index(min(means))]

    def table(self, title: str = "Accuracy by group.", names: tuple[str, ...] = ()) -> dict[str, Any]:
        """For a report: a row a group.

        Args:
            names: of the columns that make the groups.
        """
        columns = [*(names or (f"Group {k + 1}" for k in range(len(self.groups[0])))), "Rows", "Accuracy"]
        body = [
            [*group, count, found.mean, found.low, found.high]
            for group, count, found in zip(self.groups, self.counts, self.accuracies, strict=True)
        ]
        if len(columns) != len(self.groups[0]) + 2:
            raise ArgumentError("every column has a name", expected=len(self.groups[0]), got=list(names))
        return {"title": title, "columns": [*columns, "95% from", "to"], "rows": body}


def group_accuracy(outputs: Tensor, labels: Tensor, groups: Groups) -> GroupAccuracy:
    """Accuracy of a classifier by groups, averaged, and of the worst group.

    Args:
        outputs: (N, C) scores or probabilities, or (N,) or (N, 1) logits of the class 1.
        labels: (N,) class numbers.
        groups: whole numbers (N,), columns (N, K), or a list of K columns (N,), such as ``[labels, attribute]``: rows
            with equal entries are one group.

    Raises:
        ArgumentError, ShapeError: they do not fit each other, or hold NaN.
    """
    shaped = outputs.ndim in (1, 2) and outputs.shape[:1] == labels.shape
    if labels.ndim != 1 or labels.is_floating_point() or not shaped or len(labels) == 0:
        raise ShapeError(
            "accuracy compares answers with labels",
            expected="outputs (N, C) or (N,) and whole numbers (N,)",
            got=f"outputs {tuple(outputs.shape)} and labels {labels.dtype} {tuple(labels.shape)}",
        )
    if bool(outputs.isnan().any()):
        raise ArgumentError("outputs must be numbers", expected="no NaN", got=f"{int(outputs.isnan().sum())} NaN")
    answers = (outputs.reshape(-1) > 0).long() if single(outputs) else outputs.argmax(1)
    numbers, entries = group_numbers(groups, len(labels))
    right = (answers.cpu() == labels.cpu()).double()
    sums, sizes = (part.long().tolist() for part in group_sums(right, numbers.cpu(), len(entries)))
    found = [proportion(hits, size) for hits, size in zip(sums, sizes, strict=True)]
    wide = [proportion(hits, size, level=1 - (1 - LEVEL) / len(sizes)) for hits, size in zip(sums, sizes, strict=True)]
    worst = min(each.mean for each in found)
    return GroupAccuracy(
        groups=tuple(tuple(row) for row in entries.tolist()),
        counts=tuple(sizes),
        accuracies=tuple(found),
        worst=Interval(worst, min(each.low for each in wide), min(each.high for each in wide), (worst,)),
        group_average=mean_of(found),
        average=proportion(sum(sums), sum(sizes)),
    )


def worst_group_error(outputs: Tensor, labels: Tensor) -> float:
    """Share of mistakes in the worst group, for ``rt.fit(..., monitor=...)``; labels carry groups (B, 2)."""
    return 1 - group_accuracy(outputs, labels[:, 0], labels[:, 1]).worst.mean
