"""Attributions and priors of several models over one batch that holds a block of rows for each of them.

The methods and priors are the models' own and see nothing but their block, so that they draw and penalise what they
would alone. Only the passes over the model, which cost the time, are made for all blocks at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rightly.attributions import Attribution
from rightly.attributions.base import Explanation
from rightly.attributions.problem import Points, Problem, Step
from rightly.core import autodiff
from rightly.core.annotation import Annotation
from rightly.core.errors import RightlyError
from rightly.core.types import View
from rightly.objectives.model_term import Batch
from rightly.objectives.weights import WeightTerm
from rightly.priors import Prior
from rightly.priors.base import Level
from rightly.spaces import Input


class UnstackableError(RightlyError, TypeError):
    """These models, or their trainings, cannot be made into one; train them one after the other."""


class _Asked(BaseException):
    """Ends a method where it needs a pass over the model, until the other blocks have come that far.

    No ``except Exception`` in a method may swallow it.
    """

    def __init__(self, what: Literal["average", "values"], function: Callable[..., Any], samples: int) -> None:
        super().__init__(what)
        self.what, self.function, self.samples = what, function, samples


class _BlockProblem(Problem):
    """A model's part of the question: its rows; passes over the model are answered once all blocks have asked."""

    joint: Problem
    answers: list[Tensor]
    rows: slice

    def average(self, step: Step, samples: int, *, curved: bool = False, against: Points | None = None) -> Tensor:
        """See ``Problem.average``; what is curved has been refused."""
        if against is not None:
            raise UnstackableError("slopes between two points are taken one model at a time")
        return self._answer("average", step, samples)

    def values(self, points: Points, samples: int) -> Tensor:
        """See ``Problem.values``."""
        return self._answer("values", points, samples)

    def own_outputs(self) -> Tensor:
        """See ``Problem.own_outputs``."""
        return self.joint.own_outputs()[self.rows]

    def _answer(self, what: Literal["average", "values"], function: Callable[..., Any], samples: int) -> Tensor:
        if not self.answers:
            raise _Asked(what, function, samples)
        return self.answers.pop(0)


def _part(joint: Problem, block: int, blocks: int, answers: Sequence[Tensor]) -> _BlockProblem:
    each = joint.batch // blocks
    rows = slice(block * each, (block + 1) * each)

    def rest(points: Tensor, index: Tensor) -> Tensor:
        raise UnstackableError("this attribution reads the model in a way of its own")

    view = View(joint.view.inputs[rows], joint.view.coordinates[rows], joint.view.encode, rest)  # type: ignore[index]
    labels = None if joint.labels is None else joint.labels[rows]
    part = _BlockProblem(view, labels, joint.output, joint.target, joint.create_graph)
    part.joint, part.rows, part.answers = joint, rows, list(answers)
    return part


class PerBlock(Attribution):
    """The models' own attributions, each on its block.

    Args:
        members: gives the attributions, one a block, alike but for what their references hold. In the input's space.
        draws: gives their generators, in the same state whenever it is asked at the same step.

    Raises:
        UnstackableError: the attributions differ, or live in another space.
    """

    def __init__(
        self, members: Callable[[], Sequence[Attribution]], draws: Callable[[], Sequence[torch.Generator]]
    ) -> None:
        first, *others = members()
        self.members, self.draws = members, draws
        if first.space != Input():
            raise UnstackableError("only the input's space is shared by all models", got=repr(first.space))
        if first.order > 1:
            raise UnstackableError("second derivatives are taken one model at a time", got=repr(first))
        if isinstance(first.target, Tensor):
            raise UnstackableError("a target given as a tensor counts the examples of one model")
        if any(_kind(other) != _kind(first) for other in others):
            raise UnstackableError("the models have different attributions", got=repr(first))
        super().__init__(first.space, first.output, first.target)

    def _explain(self, problem: Problem, generator: torch.Generator, diagnostics: bool) -> Explanation:
        members = self.members()
        blocks = len(members)
        answers: list[list[Tensor]] = [[] for _ in members]
        while True:
            found, asked = [], []
            # from the start again for every answer: drawing twice costs less than keeping M methods half-way
            for block, (member, draws) in enumerate(zip(members, self.draws(), strict=True)):
                try:
                    found.append(member._explain(_part(problem, block, blocks, answers[block]), draws, False))
                except _Asked as question:
                    asked.append(question)
            if not asked:
                return Explanation(torch.cat([explanation.attributions for explanation in found]))
            for known, answer in zip(answers, _answered(problem, asked).chunk(blocks), strict=True):
                known.append(answer)


def _kind(attribution: Attribution) -> tuple[Any, ...]:
    reference = getattr(attribution, "reference", None)
    plain = {k: v for k, v in vars(attribution).items() if k != "reference" and not isinstance(v, Tensor)}
    return type(attribution), type(reference), plain


def _answered(problem: Problem, asked: Sequence[_Asked]) -> Tensor:
    """One pass over the stacked model for what the blocks asked."""
    blocks, each = len(asked), problem.batch // len(asked)
    (samples,) = {question.samples for question in asked}

    def parts(rows: Tensor, index: Tensor) -> Iterator[tuple[_Asked, Tensor, Tensor]]:
        if len(rows) != problem.batch * samples:
            raise UnstackableError("a pass in chunks does not hold a block of every model")
        split = zip(asked, rows.chunk(blocks), index.chunk(blocks), strict=True)
        for block, (question, own, sample) in enumerate(split):
            yield question, own - block * each, sample

    def points(rows: Tensor, index: Tensor) -> Tensor:
        return torch.cat([question.function(own, sample) for question, own, sample in parts(rows, index)])

    def step(rows: Tensor, index: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        made = [question.function(own, sample) for question, own, sample in parts(rows, index)]
        sizes = [len(own) for own, _ in made]

        def weigh(gradient: Tensor) -> Tensor:
            return torch.cat([own(part) for (_, own), part in zip(made, gradient.split(sizes), strict=True)])

        return torch.cat([own for own, _ in made]), weigh

    return problem.average(step, samples) if asked[0].what == "average" else problem.values(points, samples)


class PerBlockPrior(Prior):
    """The sum over models of weight times penalty, each on its block; what was found stays to be read.

    Attributes:
        priors, weights: of the models, the weights (M,).
        annotations: of each model's examples; set before every call.
        contributions: (M,) weighted penalties of the last call, detached.
    """

    level: Level = "batch"

    def __init__(self) -> None:
        self.priors: Sequence[Prior] = ()
        self.weights = self.contributions = torch.empty(0)
        self.annotations: Sequence[Annotation | None] = ()

    def penalty(self, attributions: Tensor, annotation: Annotation | None, target: Tensor | None) -> Tensor:
        """()."""
        blocks = len(self.priors)
        if target is None and not any(self.annotations) and _alike(self.priors):
            first = self.priors[0]
            each = attributions.unflatten(0, (blocks, -1))
            penalties = autodiff.over_blocks(lambda own: first.penalty(own, None, None).mean(), each)
        else:
            targets = [None] * blocks if target is None else target.chunk(blocks)
            parts = zip(self.priors, attributions.chunk(blocks), self.annotations, targets, strict=True)
            penalties = torch.stack([prior(own, known, classes).mean() for prior, own, known, classes in parts])
        return self.weighted(penalties)

    def weighted(self, penalties: Tensor) -> Tensor:
        """The sum (), from the models' penalties (M,)."""
        contributions = self.weights.to(penalties) * penalties
        self.contributions = contributions.detach()
        return contributions.sum()


@dataclass(frozen=True)
class PerModelWeights(WeightTerm):
    """The same sum for a penalty on the models' weights."""

    joint: PerBlockPrior = field(default_factory=PerBlockPrior)

    def of(self, model: nn.Module, batch: Batch | None = None) -> Tensor:
        """()."""
        return self.joint.weighted(super().of(model, batch))


def _alike(priors: Sequence[Prior]) -> bool:
    """Whether one prior stands for all: those of the library's own kind with the same plain settings."""
    first = priors[0]
    plain = not any(isinstance(value, Tensor) for value in vars(first).values())
    own = type(first).__module__.startswith("rightly.priors") and not first.needs
    return plain and own and all(type(p) is type(first) and vars(p) == vars(first) for p in priors)
