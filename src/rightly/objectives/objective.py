"""The loss that trains a model through its explanations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from rightly.core import autodiff, distributed, seeding
from rightly.core.annotation import Annotation
from rightly.core.batch import Inputs, call, outputs_of, rows, take
from rightly.core.checks import check_number
from rightly.core.errors import ArgumentError, NotConnectedError, ShapeError
from rightly.objectives.compiled import Compiled
from rightly.objectives.engines import Engines, class_numbers
from rightly.objectives.model_term import AnyTerm, Batch, ModelTerm, learned
from rightly.objectives.step import CompilationError, Passes, Step

Loss = Callable[[Tensor, Tensor], Tensor]
Part = Literal["both", "task", "prior"]


@dataclass(frozen=True)
class TermReport:
    """One term at one step: its penalty and its share of the total, both detached, and the weight in force.

    A term that rests (weight 0, or by its schedule) has no penalty and contributes zero.
    """

    penalty: Tensor | None
    contribution: Tensor | None
    weight: float


@dataclass(frozen=True)
class LossReport:
    """One evaluation of an objective.

    Attributes:
        total: what to call ``backward()`` on.
        task: the task loss, with its graph; None when only the prior was asked for.
        terms: by name.
        outputs: the model's outputs (B, ...) in its own mode, with their graph; None like ``task``.
    """

    total: Tensor
    task: Tensor | None
    terms: dict[str, TermReport]
    outputs: Tensor | None


class Objective(nn.Module):
    """Task loss + sum of terms, as one module: works in any loop, optimizer, scaler or parallel wrapper.

    The model's attributions are read with dropout off and batch norm frozen; the task loss sees the model in its
    own mode. Random draws come from generators seeded by ``seed`` and the step, so the global state stays untouched
    and a resumed run draws what the uninterrupted one would have drawn. ``state_dict`` carries the step and the
    weights that were settled.

    Wrap the objective, not the model, in ``DistributedDataParallel``: then the inner gradient is taken inside the
    wrapped forward, and batch-level priors see the global batch.

    Args:
        model: any module that maps inputs to outputs.
        loss: (outputs, labels) -> scalar, a mean over the batch.
        terms: what is expected of the explanations (``rt.Term``) and of the model itself (such as ``rt.WeightTerm``).
        seed: of the draws.
    """

    def __init__(self, model: nn.Module, loss: Loss, terms: Sequence[AnyTerm] = (), *, seed: int = 0) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise ArgumentError("an objective trains a module", expected="torch.nn.Module", got=type(model).__name__)
        if not callable(loss):
            raise ArgumentError("the loss is called", expected="loss(outputs, labels) -> scalar", got=repr(loss))
        if isinstance(terms, AnyTerm):
            raise ArgumentError("terms come in a list", expected="[rt.Term(...)]", got="a single rt.Term")
        if wrong := [term for term in terms if not isinstance(term, AnyTerm)]:
            raise ArgumentError("terms are rt.Term", expected="rt.Term(attribution, prior, weight)", got=wrong[0])
        names = [term.name for term in terms]
        if len(set(names)) < len(names):
            raise ArgumentError("two terms have one name", expected="Term(..., name=...)", got=names)
        if "task" in names:
            raise ArgumentError("the task itself has this name", expected="another name for the term", got="task")
        self.model, self.loss, self.terms, self.seed = model, loss, tuple(terms), seed
        #: what priors learn along with the model
        self.learned = nn.ModuleList(learned(self.terms, model))
        self.step = 0
        #: weight of each term; NaN until "balance" or "auto" is settled
        self.weights = {t.name: math.nan if isinstance(t.weight, str) else float(t.weight) for t in terms}
        self.engines = Engines(model)
        self._connected: set[str] = set()
        self._compiled: Compiled | None = None

    def compile(self, **arguments: Any) -> None:
        """Compile the whole step from here on: task loss, attributions, priors and all parameter gradients, one graph.

        Each kind of step (shapes, acting terms, modes) is taken eagerly when it first comes, and compiled at its
        second coming, which takes from seconds to minutes; more than eight kinds stay eager. The first two compiled
        steps of a kind are compared with the eager gradient. Draws, weights, schedules and ``state_dict`` are those
        of the eager objective; of the report only ``total`` can be differentiated. Python code that the model or the
        loss runs beside its tensor operations (printing, counting) runs no more.

        Args:
            arguments: of ``torch.compile``, such as ``backend`` and ``mode``.

        Raises:
            CompilationError: later, at a step that cannot be compiled or comes out with another gradient: half
                precision, several processes, code that reads numbers out of tensors, random draws other than
                dropout's on a processor, no compiler on the machine. The objective is eager again afterwards.
        """
        self._compiled = Compiled(arguments)

    def forward(
        self,
        inputs: Inputs,
        labels: Tensor,
        annotation: Annotation | None = None,
        generator: torch.Generator | None = None,
        part: Part = "both",
    ) -> LossReport:
        """Evaluate on a batch.

        Args:
            inputs: as the model takes them, B examples.
            labels: what the loss takes.
            annotation: what is known about these examples.
            generator: replaces the objective's own draws.
            part: only the task loss, or only the terms, for alternating updates.

        Raises:
            NotConnectedError: a term does not reach the parameters.
        """
        if part not in get_args(Part):
            raise ArgumentError("unknown part", expected=", ".join(get_args(Part)), got=repr(part))
        if not isinstance(labels, Tensor):
            raise ArgumentError("labels cannot be read", expected="a tensor, examples first", got=type(labels).__name__)
        self._follow_model()
        share = distributed.local_share(rows(inputs), labels.device)
        acting: list[AnyTerm] = []
        draws: list[torch.Generator] = []
        for position, term in enumerate(self.terms if part != "task" else ()):
            if self._acts(term):
                acting.append(term)
                seed = (self.seed, "step", self.step, "term", position, distributed.rank())
                draws.append(generator or seeding.generator(*seed))

        def passes() -> Passes:
            return self._passes(acting, inputs, labels, annotation, draws, part, share)

        total, found = self._compiled_total(passes, acting, inputs, labels, annotation, draws, part) or (None, passes())
        contributions = [] if found.task is None else [found.task]
        reports = {term.name: TermReport(None, None, 0.0) for term in self.terms if part != "task"}
        for term in acting:
            reports[term.name], value = self._term(term, found.penalties[term.name], found.task)
            contributions.append(value)
        if total is None and contributions:
            total = contributions[0]
            for value in contributions[1:]:
                total = total + value
        if total is None:
            # everything rests: a total that backward() accepts and that changes nothing
            total = torch.zeros((), device=labels.device, requires_grad=True)
        if self.training and part != "task":
            # the two halves of an alternating update are one step, or Schedule(every=2) would rest for ever
            self.step += 1
        return LossReport(total, found.task, reports, found.outputs)

    def _passes(
        self,
        acting: Sequence[AnyTerm],
        inputs: Inputs,
        labels: Tensor,
        annotation: Annotation | None,
        draws: Sequence[torch.Generator],
        part: Part,
        share: float,
    ) -> Passes:
        """Everything that is read off the model."""
        outputs = task = None
        penalties: dict[str, Tensor] = {}
        sharing = self._sharing(acting, inputs, labels) if part == "both" else None
        if part != "prior" and sharing is None:
            # before the terms: in training mode this pass moves batch norm's statistics, which they must find as
            # their gradients will find them
            outputs = outputs_of(call(self.model, inputs))
        for term, generator in zip(acting, draws, strict=True):
            penalty, came = self._penalty(term, inputs, labels, annotation, generator, term is sharing)
            penalties[term.name] = penalty * share if term.level == "example" else penalty
            outputs = came if term is sharing else outputs
        if part != "prior":
            if outputs is None:
                outputs = outputs_of(call(self.model, inputs))
            task = self._task_loss(outputs, labels) * share
        return Passes(outputs, task, penalties)

    def _compiled_total(
        self,
        passes: Callable[[], Passes],
        acting: Sequence[AnyTerm],
        inputs: Inputs,
        labels: Tensor,
        annotation: Annotation | None,
        draws: Sequence[torch.Generator],
        part: Part,
    ) -> tuple[Tensor, Passes] | None:
        """What the compiled step gives; None where this one has to be taken eagerly."""
        if self._compiled is None or not torch.is_grad_enabled() or (part == "prior" and not acting):
            return None
        weights = {term.name: self._weight(term) for term in acting}
        if any(map(math.isnan, weights.values())):
            return None  # settled by this step
        try:
            generators = [*draws, torch.default_generator]
            return self._compiled(Step(self, passes, inputs, labels, annotation, generators, weights, part))
        except CompilationError:
            self._compiled = None
            raise

    def _task_loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        loss = self.loss(outputs, labels)
        if not isinstance(loss, Tensor) or loss.ndim != 0:
            got = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ShapeError(
                "the loss must be one number",
                expected="a scalar tensor",
                got=got,
                mend="use reduction='mean'",
            )
        return loss

    def _acts(self, term: AnyTerm) -> bool:
        """Whether the term does not rest at this step."""
        return term.schedule.strength(self.step) != 0 and self.weights[term.name] != 0

    def _sharing(self, acting: Sequence[AnyTerm], inputs: Inputs, labels: Tensor) -> AnyTerm | None:
        """The term whose pass serves the task as well, if there is one."""
        if not torch.is_grad_enabled():
            return None
        return next((term for term in acting if self.engines.shares(term, inputs, labels)), None)

    def _term(self, term: AnyTerm, penalty: Tensor, task: Tensor | None) -> tuple[TermReport, Tensor]:
        if math.isnan(self.weights[term.name]):
            self._settle(term, task, penalty)
        weight = self._weight(term)
        weight = 0.0 if math.isnan(weight) else weight
        value = weight * penalty
        return TermReport(penalty.detach(), value.detach(), weight), value

    def _weight(self, term: AnyTerm) -> float:
        """The weight in force at this step; NaN until it is settled."""
        return self.weights[term.name] * term.schedule.strength(self.step)

    def penalty(
        self,
        term: AnyTerm,
        inputs: Inputs,
        labels: Tensor | None,
        annotation: Annotation | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The term's penalty on a batch, before its weight.

        Summed over features and averaged over examples; one on weights is their sum, whatever the batch.

        Keeps its graph unless called under ``torch.no_grad()``.
        """
        self._follow_model()
        return self._penalty(term, inputs, labels, annotation, generator, share=False)[0]

    def trained(self) -> nn.ModuleList:
        """What training changes: the model, and what priors learn."""
        return nn.ModuleList([self.model, *self.learned])

    def _follow_model(self) -> None:
        """Another model than before has to prove everything anew."""
        if self.engines.model is not self.model:
            self.engines = Engines(self.model)
            self._connected.clear()

    def _penalty(
        self,
        term: AnyTerm,
        inputs: Inputs,
        labels: Tensor | None,
        annotation: Annotation | None,
        generator: torch.Generator | None,
        share: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """The penalty, and with ``share`` the model's outputs if they came along."""
        outputs = None
        keep = torch.is_grad_enabled()
        if isinstance(term, ModelTerm):
            return self._model_penalty(term, Batch(inputs, labels, annotation, generator), keep)
        if keep and term.fraction < 1:
            share = False
            index = _some(rows(inputs), term.fraction, generator or seeding.generator("fraction"))
            labels = labels if labels is None else labels[index.to(labels.device)]
            inputs, annotation = take(inputs, index), annotation and annotation.take(index)
        if keep:
            found, outputs = self.engines.attributions(term, inputs, labels, generator, share=share)
        else:
            numbers = class_numbers(labels)
            found = term.attribution(self.model, inputs, numbers, diagnostics=False, generator=generator)
        value = term.prior(found.attributions, annotation, found.target)
        penalty = value.mean() if term.level == "example" else value
        if keep and term.name not in self._connected:
            self._prove_connected(term, penalty)
        return penalty, outputs

    def _model_penalty(self, term: ModelTerm, batch: Batch, keep: bool) -> tuple[Tensor, Tensor | None]:
        penalty, outputs = term.measured_with_outputs(self.model, batch)
        if keep and term.name not in self._connected:
            self._prove_connected(term, penalty)
        return penalty, outputs

    def _prove_connected(self, term: AnyTerm, penalty: Tensor) -> None:
        """Once a term: a penalty that reaches no parameter would train nothing, and say nothing."""
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if all(grad is None for grad in autodiff.parameter_gradient(penalty, parameters)):
            raise NotConnectedError(
                f"the term {term.name!r} does not reach the parameters: training with it would change nothing",
                expected="a penalty that depends on at least one trainable parameter",
                got=f"{len(parameters)} trainable parameters, none of them reached",
                mend="look for .detach(), torch.no_grad() or frozen parameters between the model and the penalty",
            )
        self._connected.add(term.name)

    def _settle(self, term: AnyTerm, task: Tensor | None, penalty: Tensor) -> None:
        if term.weight == "auto":
            raise ArgumentError(
                f"the weight of term {term.name!r} has not been chosen yet",
                expected="a number",
                got="'auto'",
                mend="train with rt.fit(..., validation=...), which chooses it, or give a number or 'balance'",
            )
        if task is None:
            raise ArgumentError(
                f"the weight of term {term.name!r} cannot be balanced without the task loss",
                expected="a number set by objective.set_weight(...), or part='both'",
                got="part='prior'",
            )
        self.weights[term.name] = _ratio(float(task.detach()), float(penalty.detach()), task.device)

    @torch.no_grad()
    def ratios(self, batches: Iterable[tuple[Any, ...]]) -> dict[str, float]:
        """Task loss over penalty for every term, averaged over ``batches``: the weights that would balance them now.

        Args:
            batches: of (inputs, labels) or (inputs, labels, annotation); a handful.
        """
        task, device = 0.0, torch.device("cpu")
        penalties = dict.fromkeys(self.weights, 0.0)
        for position, (inputs, labels, *rest) in enumerate(batches):
            with seeding.guarded(), autodiff.keeping_buffers(self.model):
                task += float(self._task_loss(outputs_of(call(self.model, inputs)), labels))
            with seeding.guarded(), autodiff.keeping_buffers(self.trained()):
                for term in self.terms:
                    draws = seeding.generator(self.seed, "balance", position)
                    penalties[term.name] += float(self.penalty(term, inputs, labels, rest[0] if rest else None, draws))
            device = labels.device
        return {name: _ratio(task, penalty, device) for name, penalty in penalties.items()}

    def set_weight(self, name: str, weight: float) -> None:
        """Settle or change a term's weight."""
        if name not in self.weights:
            raise ArgumentError("no such term", expected=", ".join(self.weights), got=name)
        self.weights[name] = float(check_number("weight", weight, positive=False))

    def get_extra_state(self) -> Tensor:
        """Step and weights, as a tensor so that safetensors can hold it."""
        return torch.tensor([float(self.step), *self.weights.values()], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """See ``get_extra_state``."""
        if len(state) != 1 + len(self.weights):
            raise ArgumentError("the saved objective has other terms", expected=len(self.weights), got=len(state) - 1)
        step, *weights = state.tolist()
        self.step = int(step)
        self.weights = dict(zip(self.weights, weights, strict=True))


def _some(batch: int, fraction: float, generator: torch.Generator) -> Tensor:
    """Numbers of a random part of the examples."""
    return torch.randperm(batch, generator=generator)[: math.ceil(fraction * batch)]


def _ratio(task: float, penalty: float, device: torch.device) -> float:
    """Task loss over penalty over all processes; NaN (not settled) when a penalty of zero gives no scale."""
    above, below = distributed.summed([task, penalty], device)
    return above / below if below > 0 else math.nan
