"""Several trainings as one: each ends where ``rt.fit`` would have brought it alone, up to rounding.

M equal models become one model over M blocks of rows (``rightly.training.stacked``), and M objectives one ordinary
``Objective`` whose loss, draws and priors are taken block by block. Its passes over the model, which cost the time,
are made once for all blocks; optimizers by name work weight by weight, so one step on all weights is M steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from rightly.core import autodiff, distributed, seeding
from rightly.core.annotation import Annotation
from rightly.core.batch import call
from rightly.core.frozen.stack import fits
from rightly.core.stacked import Streams
from rightly.objectives import Objective, Term, WeightTerm
from rightly.objectives.blocks import PerBlock, PerBlockPrior, PerModelWeights, UnstackableError
from rightly.objectives.engines import EngineChoice
from rightly.objectives.model_term import AnyTerm, ModelTerm
from rightly.training.batches import Batch, Batches
from rightly.training.loop import DivergedError, Loop, diverged, wide_outputs
from rightly.training.run import Run
from rightly.training.settings import Settings
from rightly.training.stacked import shrink, stack, weights_of

#: bytes; just below the largest size that glibc keeps (mallopt, M_MMAP_THRESHOLD); never touched, so it costs nothing
_LARGE = 2**25 - 2**16

Watch = Callable[[int, dict[str, Any]], bool]


@dataclass
class Member:
    """One of the trainings.

    Attributes:
        objective: trained in place; its weights are numbers.
        settings, train, validation: as ``rt.fit`` makes them.
        watch: called with (epoch, history entry); True ends the training there.
        run: what happened.
        failure: why it broke down, if it did.
        weights, steps: of the best epoch so far, or at the end; taken over by the objective when all have ended.
    """

    objective: Objective
    settings: Settings
    train: Batches
    validation: Batches | None = None
    watch: Watch | None = None
    run: Run = field(default_factory=Run)
    failure: DivergedError | None = None
    weights: dict[str, Tensor] = field(default_factory=dict)
    steps: int = 0

    @property
    def ended(self) -> bool:
        """Whether it needs no further epoch."""
        done = len(self.run.history) >= self.settings.epochs
        return done or self.run.stopped != "epochs" or self.failure is not None


def train_together(members: Sequence[Member]) -> None:
    """Train all members; their models, runs and failures are filled in.

    Args:
        members: with equal models, terms, settings (but for the seed) and sizes of data.

    Raises:
        UnstackableError: they cannot be trained as one; nothing was changed.
    """
    together = Together(members)
    with seeding.guarded("together"):
        for epoch in range(members[0].settings.epochs):
            together.advance_all(epoch)
            if not together.members:
                break
    for member in members:
        member.objective.model.load_state_dict(member.weights)
        member.objective.step = member.steps
        member.run.weights = dict(member.objective.weights)
        member.run.note_engines(together.objective.engines.choices)


class Together(Loop):
    """The loop of several trainings; see ``train_together``."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)
        _check_alike(self.members)
        first = members[0].objective
        self.streams = Streams()
        model = stack([member.objective.model for member in members], self.streams)
        self.priors = [PerBlockPrior() for _ in first.terms]
        self.tasks = torch.empty(0)
        terms = [self._joint_term(position, term) for position, term in enumerate(first.terms)]
        objective = Objective(model, self._loss, terms)
        objective.step = first.step
        for name, choice in _engines(members[0]).items():
            # a plain stack of the models' layers may be none of the stacked ones (dropout)
            kept = not choice.stack or fits(model)
            objective.engines.choices[name] = replace(
                choice, stack=choice.stack and kept, shared=choice.shared and kept
            )
        super().__init__(objective, members[0].settings)
        if isinstance(self.scheduler, ReduceLROnPlateau):
            raise UnstackableError("a scheduler that waits for a plateau has one learning rate for every model")
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["fused"] = True  # the weights of many models do not fit the cache: one pass over them
        if next(model.parameters()).device.type == "cpu":
            # glibc hands blocks of this size back to the system at every step until it has seen a large one freed
            torch.empty(_LARGE, dtype=torch.uint8)
        self._settle()

    def _joint_term(self, position: int, term: AnyTerm) -> AnyTerm:
        """The members' terms as one, which adds up theirs with their weights."""
        # a term that rests in one of them rests in all
        weight = float(self.members[0].objective.weights[term.name] != 0)
        joint = self.priors[position]
        if isinstance(term, WeightTerm):
            return PerModelWeights(term.penalty, term.layers, weight, term.name, term.schedule, joint)
        if isinstance(term, ModelTerm):
            raise UnstackableError("of the penalties on models only those on weights are taken for many at once")
        attribution = PerBlock(partial(self._attributions, position), partial(self._draws, position))
        return replace(term, attribution=attribution, prior=joint, weight=weight)

    def advance_all(self, epoch: int) -> None:
        """Train every member for one epoch and let those go that have ended."""
        start = time.monotonic()
        self.start(epoch)
        steps = [self.joint_step(batches) for batches in self.batches(epoch)]
        sizes = torch.tensor([size for size, _ in steps], dtype=torch.float64)
        names = list(steps[0][1])
        means = {
            name: (torch.stack([found[name] for _, found in steps]).cpu().double() * sizes[:, None]).sum(0)
            / sizes.sum()
            for name in names
        }
        numbers = self._validate()
        self.advance(math.nan)
        seconds = (time.monotonic() - start) / len(self.members)
        for position, member in enumerate(self.members):
            task, *terms = (float(means[name][position]) for name in names)
            entry = {"epoch": epoch, "task": task, "terms": dict(zip(names[1:], terms, strict=True))}
            self._end(position, member, entry | {"validation": numbers[position]}, seconds)
        self._keep([position for position, member in enumerate(self.members) if not member.ended])

    def start(self, epoch: int) -> None:
        """Training mode, and every member's dropout where its epoch begins."""
        self.objective.train()
        self.streams.start([member.settings.seed for member in self.members], epoch)

    def _end(self, position: int, member: Member, entry: dict[str, Any], seconds: float) -> None:
        """What ``rt.fit`` does after an epoch."""
        member.run.seconds += seconds
        if not all(map(math.isfinite, (entry["task"], *entry["terms"].values()))):
            member.failure = diverged(f" in epoch {entry['epoch']}", entry)
        elif entry["validation"] is not None and math.isnan(entry["validation"]):
            member.failure = DivergedError("the monitored number on the validation data is NaN")
        else:
            settings = member.settings
            if member.run.add(entry, settings.patience) and entry["validation"] is not None and settings.restore_best:
                member.weights = weights_of(self.objective.model, position)
            if member.watch is not None and member.watch(entry["epoch"], entry) and not member.ended:
                member.run.stopped = "pruned"
        if member.ended:
            member.weights = member.weights or weights_of(self.objective.model, position)
            member.steps = self.objective.step

    def _keep(self, positions: list[int]) -> None:
        """Take the others out of the weights and of the optimizer's state."""
        if len(positions) == len(self.members):
            return
        kept = shrink(self.objective.model, positions)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["params"] = [kept[parameter] for parameter in group["params"]]
            for parameter, new in kept.items():
                state = optimizer.state.pop(parameter, {})
                whole = [key for key, value in state.items() if getattr(value, "shape", None) == parameter.shape]
                optimizer.state[new] = {**state, **{key: state[key][positions] for key in whole}}
        self.members = [self.members[position] for position in positions]
        self._settle()

    def _settle(self) -> None:
        """Hand the priors the members' own, with their weights."""
        for position, prior in enumerate(self.priors):
            terms = [member.objective.terms[position] for member in self.members]
            weights = [member.objective.weights[term.name] for member, term in zip(self.members, terms, strict=True)]
            prior.priors = [term.prior for term in terms if isinstance(term, Term)]
            prior.weights = torch.tensor(weights, dtype=torch.float64)

    def _attributions(self, position: int) -> list[Any]:
        terms = [member.objective.terms[position] for member in self.members]
        return [term.attribution for term in terms if isinstance(term, Term)]

    def _draws(self, position: int) -> list[torch.Generator]:
        """The generators that the objectives would use alone."""
        step, rank = self.objective.step, distributed.rank()
        return [
            seeding.generator(member.objective.seed, "step", step, "term", position, rank) for member in self.members
        ]

    def _loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        blocks = zip(self.members, outputs.chunk(len(self.members)), labels.chunk(len(self.members)), strict=True)
        losses = torch.stack([member.objective.loss(own, truth) for member, own, truth in blocks])
        if losses.ndim != 1:
            raise UnstackableError("the loss must be one number", got=tuple(losses.shape[1:]))
        self.tasks = losses.detach()
        return losses.sum()

    def batches(self, epoch: int) -> Iterator[tuple[Batch, ...]]:
        """The batches that the members see at the same step."""
        return zip(*(member.train.epoch(epoch) for member in self.members), strict=True)

    def joint_step(self, batches: tuple[Batch, ...]) -> tuple[int, dict[str, Tensor]]:
        """One step; examples of each member, and its task loss and weighted penalties (M,)."""
        inputs = torch.cat([cast(Tensor, batch[0]) for batch in batches])
        labels = torch.cat([batch[1] for batch in batches])
        annotations: list[Annotation | None] = [batch[2] for batch in batches]
        for prior in self.priors:
            prior.annotations = annotations
        report = self._step(0, lambda: self.objective(inputs, labels))
        found = {"task": self.tasks}
        for prior, (name, term) in zip(self.priors, report.terms.items(), strict=True):
            resting = term.penalty is None
            found[name] = torch.zeros_like(self.tasks) if resting else term.weight * prior.contributions
        return len(batches[0][1]), found

    @torch.no_grad()
    def _validate(self) -> list[float | None]:
        """The monitored number of every member."""
        if self.members[0].validation is None:
            return [None] * len(self.members)
        outputs, labels = [], []
        with autodiff.reading(self.objective.model, trainable=False), torch.no_grad():
            for batches in zip(*(m.validation.epoch(0) for m in self.members if m.validation), strict=True):
                joint = torch.cat([cast(Tensor, batch[0]) for batch in batches])
                outputs.append(wide_outputs(call(self.objective.model, joint)).chunk(len(batches)))
                labels.append([batch[1] for batch in batches])
        numbers: list[float | None] = []
        for member, own, truth in zip(self.members, zip(*outputs, strict=True), zip(*labels, strict=True), strict=True):
            judge = member.settings.monitor or member.objective.loss
            numbers.append(float(judge(torch.cat(own), torch.cat(truth))))
        return numbers


def _check_alike(members: Sequence[Member]) -> None:
    """Raise ``UnstackableError`` for trainings that cannot be one, beyond what the stacked model refuses."""
    first = members[0]
    settings = first.settings
    if settings.schedule != "joint" or settings.precision != "float32":
        raise UnstackableError("only joint steps without autocast are shared", got=f"{settings.schedule} steps")
    if not isinstance(settings.optimizer, str):
        raise UnstackableError("an optimizer of one's own may look at all weights at once")
    if distributed.world_size() > 1:
        raise UnstackableError("every process trains its own share of one model")
    for member in members:
        if member.settings != replace(settings, seed=member.settings.seed):
            raise UnstackableError("the trainings have different settings")
        if _sizes(member) != _sizes(first):
            raise UnstackableError("the trainings have data of different sizes")
        if [_kind(member, term) for term in member.objective.terms] != [_kind(first, t) for t in first.objective.terms]:
            raise UnstackableError("the trainings have different terms")
        if any(isinstance(term, Term) and term.fraction < 1 for term in member.objective.terms):
            raise UnstackableError("a term that is shown a part of a batch draws that part for each model")
        if len(member.objective.learned) > 0:
            raise UnstackableError("a prior learns along with its model")
        if member.objective.step != first.objective.step:
            raise UnstackableError("the trainings have come to different steps")


def _engines(member: Member) -> dict[str, EngineChoice]:
    """The engines of the terms, picked and proved on one of the models: all have the same operators and sizes."""
    objective = member.objective
    inputs, labels, annotation = next(member.train.epoch(0))
    for term in objective.terms:
        if objective.weights[term.name] != 0:
            objective.penalty(term, inputs, labels, annotation)
    for choice in objective.engines.choices.values():
        if choice.name not in ("double-backward", "frozen-masks"):
            raise UnstackableError(f"the engine {choice.name} takes passes of its own")
    return objective.engines.choices


def _sizes(member: Member) -> list[tuple[object, ...] | None]:
    return [None if part is None else shapes_of(part.memory) for part in (member.train, member.validation)]


def shapes_of(data: object) -> tuple[object, ...]:
    """Shapes and types of inputs and labels that are tensors in memory.

    Raises:
        UnstackableError: the data are something else.
    """
    if not isinstance(data, tuple) or not all(isinstance(part, Tensor) for part in data[:2]):
        raise UnstackableError("only data that are one tensor in memory are shared")
    return tuple((tuple(part.shape), str(part.dtype)) for part in data[:2])


def _kind(member: Member, term: AnyTerm) -> tuple[object, ...]:
    weight = member.objective.weights[term.name]
    if math.isnan(weight):
        raise UnstackableError("a weight is still open", got=f"{term.name}: {term.weight}")
    return term.name, term.about, term.schedule, weight != 0
