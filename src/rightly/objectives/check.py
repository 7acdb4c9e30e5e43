"""The preflight: does every term reach the parameters, with the right gradient, and at what price?"""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rightly.core import autodiff, seeding
from rightly.core.annotation import Annotation
from rightly.core.batch import Inputs, convert, take
from rightly.core.errors import ArgumentError, DoubleBackwardError, NotConnectedError, RightlyError
from rightly.core.intercept import Unsupported
from rightly.objectives.engines import Engines
from rightly.objectives.objective import Objective
from rightly.objectives.term import EngineName, Term

#: finite differences agree with the gradient to this, where the net has no kink on the way
TOLERANCE = 1e-4
#: steps tried; the best is kept, since too long crosses kinks and too short drowns in rounding
_STEPS = (1e-4, 1e-5, 1e-6, 1e-7)
_NOTHING = 1e-6
_EXAMPLES = 16


@dataclass(frozen=True)
class EngineCheck:
    """One engine on one term.

    Attributes:
        name: the engine's; with ``", bfloat16"`` when it ran under autocast.
        chosen: whether the term uses it.
        cost: time of a step with this term alone over a plain step; NaN where the engine refuses.
        error: relative difference of its parameter gradient from that of double backward in the same precision
            (for bfloat16 from that in full precision).
        note: why it was chosen, or why it refuses.
    """

    name: str
    chosen: bool
    cost: float
    error: float
    note: str


@dataclass(frozen=True)
class TermCheck:
    """What was found for one term.

    Attributes:
        name: the term's.
        reached: how many of the trainable parameter tensors its gradient reaches, and of how many.
        error: relative difference between its gradient and a central finite difference in float64.
        gradient_ratio: size of its weighted gradient over that of the task's (NaN while the weight is open).
        cost: time of a step with this term alone over a plain step.
        problem: the error that stops training with it, if any.
        advice: what to do, or what was switched for it.
        engines: what each engine would cost, and how far off its gradient is.
    """

    name: str
    reached: tuple[int, int]
    error: float
    gradient_ratio: float
    cost: float
    problem: RightlyError | None
    advice: tuple[str, ...]
    engines: tuple[EngineCheck, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the term trains, with the right gradient."""
        return self.problem is None and self.reached[0] > 0 and self.error <= TOLERANCE


@dataclass(frozen=True)
class CheckReport:
    """The preflight of an objective; ``print(report)`` shows a table."""

    terms: tuple[TermCheck, ...]
    step_seconds: float

    @property
    def ok(self) -> bool:
        """Whether every term passed."""
        return all(term.ok for term in self.terms)

    def __str__(self) -> str:
        head = f"{'term':20} {'ok':4} {'reaches':9} {'error':>9} {'grad ratio':>11} {'cost':>7}"
        lines = [f"plain step: {1e3 * self.step_seconds:.2f} ms", head]
        for t in self.terms:
            reached = f"{t.reached[0]}/{t.reached[1]}"
            numbers = f"{t.error:9.1e} {t.gradient_ratio:11.3g} {t.cost:6.2f}x"
            lines.append(f"{t.name[:20]:20} {'yes' if t.ok else 'NO':4} {reached:9} {numbers}")
            lines += [f"    {line}" for line in (*str(t.problem or "").splitlines(), *t.advice)]
            for e in t.engines:
                measured = f"{e.cost:6.2f}x  error {e.error:7.1e}" if e.cost == e.cost else f"{'refused':>22}"
                lines.append(f"  {'*' if e.chosen else ' '} {e.name:29} {measured}  {e.note}")
        return "\n".join(lines)


@torch.inference_mode(False)
@torch.enable_grad()
def check(
    objective: Objective,
    inputs: Inputs,
    labels: Tensor,
    annotation: Annotation | None = None,
    *,
    seed: int = 0,
) -> CheckReport:
    """Prove, before training, that each term does what it says; nothing of the user's is changed.

    For each term: a directional derivative in float64 (on a copy, for up to 16 examples) against the gradient that
    training would use; how many parameters it reaches; its gradient beside the task's; and the time of a step.
    An operator without second derivative is named, with the switch that helps. A line for every engine says what it
    would cost and how far off it is; a star marks the one in use.

    Args:
        objective: to be checked.
        inputs, labels, annotation: one batch, as in training.
        seed: of the directions.
    """
    inputs, labels = convert(inputs, autodiff.recordable), autodiff.recordable(labels)
    few = torch.arange(min(_EXAMPLES, len(labels)))
    small = (take(inputs, few), labels[few.to(labels.device)], annotation and annotation.take(few))
    exact = _double(objective)
    wide = (convert(small[0], _widen), _widen(small[1]), small[2])
    plain = _seconds(objective, lambda o: o(inputs, labels, annotation, part="task").total)
    full = (inputs, labels, annotation)
    positions = range(len(objective.terms))
    with seeding.guarded("check", seed):  # models that draw in eval mode too
        terms = tuple(_check_term(objective, exact, i, wide, full, plain, seed) for i in positions)
    return CheckReport(terms, plain)


Batch = tuple[Inputs, Tensor, Annotation | None]


def _check_term(
    objective: Objective, exact: Objective, position: int, wide: Batch, full: Batch, plain: float, seed: int
) -> TermCheck:
    # the copy's own term: one that was given a layer as an instance means that of the copied model
    term = exact.terms[position]
    parameters: list[Tensor] = [p for p in exact.trained().parameters() if p.requires_grad]

    def penalty() -> Tensor:
        return exact.penalty(term, *wide, seeding.generator(seed, "check"))

    def value() -> float:
        with torch.no_grad():
            return float(penalty())

    failed = (0, len(parameters))
    try:
        gradients = autodiff.parameter_gradient(penalty(), parameters)
    except (NotConnectedError, DoubleBackwardError) as problem:
        return TermCheck(term.name, failed, float("nan"), float("nan"), float("nan"), problem, ())
    direction = _direction(parameters, gradients, seeding.generator(seed, "direction"))
    slope = autodiff.along(gradients, direction)
    # a slope that is nothing beside the value (exactly zero, even) is compared with the value instead
    scale = max(abs(slope), _NOTHING * abs(value()), 1e-12)
    error = min(abs(autodiff.central_difference(value, parameters, direction, s) - slope) / scale for s in _STEPS)
    size = sum(float((g**2).sum()) for g in gradients if g is not None) ** 0.5
    task = autodiff.parameter_gradient(exact(*wide, part="task").total, parameters)
    task_size = sum(float((g**2).sum()) for g in task if g is not None) ** 0.5
    advice = []
    if error > TOLERANCE:
        advice.append("the gradient disagrees with finite differences: a detached part, a kink or a rounding")
    elif size == 0:
        advice.append("its gradient is zero on this batch: it would change nothing here")
    weight = objective.weights[term.name]
    return TermCheck(
        term.name,
        (sum(g is not None for g in gradients), len(parameters)),
        error,
        weight * size / task_size if task_size else float("nan"),
        (plain + _seconds(objective, lambda o: o.penalty(o.terms[position], *full))) / plain,
        None,
        tuple(advice),
        _engines(objective, position, full, plain),
    )


def _engines(objective: Objective, position: int, full: Batch, plain: float) -> tuple[EngineCheck, ...]:
    """A line for every engine; a penalty on weights needs none."""
    term = objective.terms[position]
    if not isinstance(term, Term):
        return ()
    used = _with_engine(objective, position, term.engine)
    used.penalty(used.terms[position], *full)
    choice = used.engines.choices[used.terms[position].name]
    exact = _parameter_gradient(_with_engine(objective, position, "double-backward"), position, full)
    found = []
    for name in ("double-backward", "frozen-masks", "two-phase", "finite-differences"):
        made = _with_engine(objective, position, name)
        note = choice.why if name == choice.name else ""
        try:
            error = 0.0 if name == "double-backward" else _apart(_parameter_gradient(made, position, full), exact)
            seconds = _seconds(made, lambda o: o.penalty(o.terms[position], *full), repeats=1)
        except (ArgumentError, DoubleBackwardError, Unsupported) as reason:
            refusal = str(reason.got if isinstance(reason, ArgumentError) else reason)
            found.append(EngineCheck(name, name == choice.name, math.nan, math.nan, refusal))
            continue
        found.append(EngineCheck(name, name == choice.name, (plain + seconds) / plain, error, note))
    return (*found, _half(objective, position, full, exact, plain))


def _half(objective: Objective, position: int, full: Batch, exact: list[Tensor | None], plain: float) -> EngineCheck:
    """Double backward under autocast: cheap, and rounding flips units."""
    made, name = _with_engine(objective, position, "double-backward"), "double-backward, bfloat16"
    device = next(made.parameters()).device.type
    try:
        with torch.autocast(device, torch.bfloat16):
            error = _apart(_parameter_gradient(made, position, full), exact)
            seconds = _seconds(made, lambda o: o.penalty(o.terms[position], *full), repeats=1)
    except RuntimeError as reason:
        return EngineCheck(name, False, math.nan, math.nan, str(reason).split("\n")[0])
    return EngineCheck(name, False, (plain + seconds) / plain, error, 'precision="bfloat16" of rt.fit')


def _with_engine(objective: Objective, position: int, name: EngineName) -> Objective:
    """A copy whose term has this engine, not yet chosen."""
    copied = copy.deepcopy(objective)
    terms = list(copied.terms)
    terms[position] = terms[position].with_engine(name)
    copied.terms = tuple(terms)
    copied.engines = Engines(copied.model)
    return copied


def _parameter_gradient(objective: Objective, position: int, full: Batch) -> list[Tensor | None]:
    parameters: list[Tensor] = [p for p in objective.model.parameters() if p.requires_grad]
    draws = seeding.generator("check", "engines")
    return autodiff.parameter_gradient(objective.penalty(objective.terms[position], *full, draws), parameters)


def _apart(found: list[Tensor | None], exact: list[Tensor | None]) -> float:
    """Distance of two gradients over the size of the second."""
    pairs = [(f, e) for f, e in zip(found, exact, strict=True) if f is not None and e is not None]
    size = math.sqrt(sum(float((e.double() ** 2).sum()) for _, e in pairs))
    return math.sqrt(sum(float(((f - e).double() ** 2).sum()) for f, e in pairs)) / max(size, 1e-30)


def _double(objective: Objective) -> Objective:
    """A float64 copy in eval mode, so that finite differences see the function that the attribution sees."""
    return copy.deepcopy(objective).double().eval()


def _widen(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _direction(parameters: list[Tensor], gradients: list[Tensor | None], draws: torch.Generator) -> list[Tensor]:
    """Half random, half along the gradient: a random direction alone is nearly orthogonal to it in large nets."""
    noise = [torch.randn(p.shape, generator=draws).to(p) for p in parameters]
    way = [n / sum(float((m**2).sum()) for m in noise) ** 0.5 for n in noise]
    size = sum(float((g**2).sum()) for g in gradients if g is not None) ** 0.5
    if size == 0:
        return way
    return [w if g is None else w + g / size for w, g in zip(way, gradients, strict=True)]


def _seconds(objective: Objective, loss: Callable[[Objective], Tensor], repeats: int = 3) -> float:
    """Median time of a forward and backward pass on a copy, to its end on the device that it runs on."""
    copied = copy.deepcopy(objective)
    parameters = [p for p in copied.parameters() if p.requires_grad]
    device = next(iter(parameters), torch.empty(0)).device
    times = []
    with seeding.guarded("check"):
        for _ in range(repeats + 1):
            _wait_for(device)
            start = time.perf_counter()
            autodiff.parameter_gradient(loss(copied), parameters)
            _wait_for(device)
            times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def _wait_for(device: torch.device) -> None:
    """An accelerator is handed its work and has not done it when a call returns."""
    if device.type not in ("cpu", "meta"):
        torch.accelerator.synchronize(device)
