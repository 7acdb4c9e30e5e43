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
from rightly.core.batch import Inputs, call, outputs_of, rows
from rightly.core.checks import check_number
from rightly.core.errors import ArgumentError, NotConnectedError, ShapeError
from rightly.objectives.term import Term

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
        terms: what is expected of the explanations.
        seed: of the draws.
    """

    def __init__(self, model: nn.Module, loss: Loss, terms: Sequence[Term] = (), *, seed: int = 0) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise ArgumentError("an objective trains a module", expected="torch.nn.Module", got=type(model).__name__)
        if not callable(loss):
            raise ArgumentError("the loss is called", expected="loss(outputs, labels) -> scalar", got=repr(loss))
        if isinstance(terms, Term):
            raise ArgumentError("terms come in a list", expected="[rt.Term(...)]", got="a single rt.Term")
        if wrong := [term for term in terms if not isinstance(term, Term)]:
            raise ArgumentError("terms are rt.Term", expected="rt.Term(attribution, prior, weight)", got=wrong[0])
        names = [term.name for term in terms]
        if len(set(names)) < len(names):
            raise ArgumentError("two terms have one name", expected="Term(..., name=...)", got=names)
        self.model, self.loss, self.terms, self.seed = model, loss, tuple(terms), seed
        self.step = 0
        #: weight of each term; NaN until "balance" or "auto" is settled
        self.weights = {t.name: math.nan if isinstance(t.weight, str) else float(t.weight) for t in terms}
        self._connected: set[str] = set()

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
        share = distributed.local_share(rows(inputs), labels.device)
        outputs = task = None
        if part != "prior":
            outputs = outputs_of(call(self.model, inputs))
            task = self._task_loss(outputs, labels) * share
        total = task
        reports = {}
        for position, term in enumerate(self.terms if part != "task" else ()):
            strength = term.schedule.strength(self.step)
            draws = generator or seeding.generator(self.seed, "step", self.step, "term", position, distributed.rank())
            report, value = self._term(term, strength, inputs, labels, annotation, draws, task, share)
            reports[term.name] = report
            if value is not None:
                total = value if total is None else total + value
        if total is None:
            # everything rests: a total that backward() accepts and that changes nothing
            total = torch.zeros((), device=labels.device, requires_grad=True)
        if self.training and part != "task":
            # the two halves of an alternating update are one step, or Schedule(every=2) would rest for ever
            self.step += 1
        return LossReport(total, task, reports, outputs)

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

    def _term(
        self,
        term: Term,
        strength: float,
        inputs: Inputs,
        labels: Tensor,
        annotation: Annotation | None,
        draws: torch.Generator,
        task: Tensor | None,
        share: float,
    ) -> tuple[TermReport, Tensor | None]:
        if strength == 0 or self.weights[term.name] == 0:
            return TermReport(None, None, 0.0), None
        penalty = self.penalty(term, inputs, labels, annotation, draws)
        if term.prior.level == "example":
            penalty = penalty * share
        if math.isnan(self.weights[term.name]):
            self._settle(term, task, penalty)
        weight = self.weights[term.name]
        weight = 0.0 if math.isnan(weight) else weight * strength
        value = weight * penalty
        return TermReport(penalty.detach(), value.detach(), weight), value

    def penalty(
        self,
        term: Term,
        inputs: Inputs,
        labels: Tensor | None,
        annotation: Annotation | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The term's penalty on a batch, before its weight: summed over features, averaged over examples.

        Keeps its graph unless called under ``torch.no_grad()``.
        """
        keep = torch.is_grad_enabled()
        found = term.attribution(
            self.model,
            inputs,
            _class_numbers(labels),
            create_graph=keep,
            diagnostics=False,
            generator=generator,
        )
        value = term.prior(found.attributions, annotation, found.target)
        penalty = value.mean() if term.prior.level == "example" else value
        if keep and term.name not in self._connected:
            self._prove_connected(term, penalty)
        return penalty

    def _prove_connected(self, term: Term, penalty: Tensor) -> None:
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

    def _settle(self, term: Term, task: Tensor | None, penalty: Tensor) -> None:
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
        self.weights[term.name] = _ratio(float(task.detach()), float(penalty.detach()))

    @torch.no_grad()
    def ratios(self, batches: Iterable[tuple[Any, ...]]) -> dict[str, float]:
        """Task loss over penalty for every term, averaged over ``batches``: the weights that would balance them now.

        Args:
            batches: of (inputs, labels) or (inputs, labels, annotation); a handful.
        """
        task = 0.0
        penalties = dict.fromkeys(self.weights, 0.0)
        for position, (inputs, labels, *rest) in enumerate(batches):
            with seeding.guarded(), autodiff.keeping_buffers(self.model):
                task += float(self._task_loss(outputs_of(call(self.model, inputs)), labels))
            for term in self.terms:
                draws = seeding.generator(self.seed, "balance", position)
                penalties[term.name] += float(self.penalty(term, inputs, labels, rest[0] if rest else None, draws))
        return {name: _ratio(task, penalty) for name, penalty in penalties.items()}

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


def _ratio(task: float, penalty: float) -> float:
    """Task loss over penalty over all processes; NaN (not settled) when a penalty of zero gives no scale."""
    sums = distributed.global_sum(torch.tensor([task, penalty], dtype=torch.float64))
    return float(sums[0] / sums[1]) if sums[1] > 0 else math.nan


def _class_numbers(labels: Tensor | None) -> Tensor | None:
    """Labels (B, 1) are flattened, so that what a loss accepts an attribution accepts."""
    if labels is not None and labels.ndim == 2 and labels.shape[1] == 1:
        return labels[:, 0]
    return labels
