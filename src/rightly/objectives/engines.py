"""Which engine takes a term's input gradients: picked at the first step, proved there, and told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from rightly.attributions import Gradient, InputXGradient
from rightly.core import autodiff, seeding
from rightly.core.batch import Inputs, call, outputs_of, rows, take, tensors
from rightly.core.engines import DoubleBackward, FiniteDifferences, TwoPhase
from rightly.core.errors import ArgumentError, NotConnectedError
from rightly.core.frozen import FrozenMasks, FrozenStack, fits
from rightly.core.intercept import Unsupported
from rightly.core.operators import KINKED, mode_matters, operators, saved_bytes
from rightly.core.types import AttributionResult, Engine, Read
from rightly.objectives.model_term import AnyTerm
from rightly.objectives.term import EngineName, Term
from rightly.spaces import Input

#: examples that an engine is proved on
_EXAMPLES = 16
#: largest relative error of the parameter gradient, in float32 and in float64: rounding may flip a unit at its kink
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-9}
#: beyond this a difference is not an approximation any more
_USELESS = 0.1
#: bytes that a graph may keep before "auto" takes it in chunks, and what a chunk may keep then
_BUDGET, _CHUNK = 2**31, 2**24


#: values, and a random pull-back of theirs to every parameter
Pulled = tuple[Tensor, list[Tensor | None]]


@dataclass(frozen=True)
class EngineChoice:
    """The engine of a term, and why.

    Attributes:
        name: of the engine in force.
        why: in words.
        error: relative difference of its parameter gradient from double backward's, where it was measured.
        shared: whether the task takes its outputs from the same pass.
        kernels: whether functions with a cheap second derivative are put under the model.
        stack: whether the model is a plain stack of layers, taken without being called.
        chunk_size: points a chunk, for two phases.
        inner: what takes a chunk, for two phases.
    """

    name: EngineName
    why: str
    error: float = 0.0
    shared: bool = False
    kernels: bool = False
    stack: bool = False
    chunk_size: int = 0
    inner: EngineName = "double-backward"


class Engines:
    """The engines of an objective's terms.

    Args:
        model: the objective's.

    Attributes:
        choices: by term, from its first step on.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.choices: dict[str, EngineChoice] = {}
        self._made: dict[str, Engine] = {}
        self._proved_in: dict[str, tuple[list[bool], bool]] = {}

    def attributions(
        self,
        term: Term,
        inputs: Inputs,
        labels: Tensor | None,
        generator: torch.Generator | None,
        *,
        share: bool = False,
    ) -> tuple[AttributionResult, Tensor | None]:
        """The term's attributions with their graph; with ``share``, also the model's outputs if they came along."""
        choice = self.choice(term, inputs, labels)
        state = None if generator is None else generator.get_state()
        try:
            engine = self._engine(term, choice)
            if isinstance(engine, TwoPhase) and any(part.requires_grad for part in tensors(inputs)):
                engine = DoubleBackward()  # its second phase sends gradients to the parameters only
            if isinstance(engine, FrozenMasks | FrozenStack):
                engine.start(inputs if share and isinstance(inputs, Tensor) else None)
            found = self._explain(term, inputs, labels, generator, engine)
        except Unsupported as reason:
            # the model took another way than when it was proved: this is the last time
            self.choices[term.name] = EngineChoice("double-backward", f"the model changed: {reason}")
            self._made.pop(term.name, None)
            if generator is not None and state is not None:
                generator.set_state(state)
            return self._explain(term, inputs, labels, generator, DoubleBackward()), None
        return found, engine.finish() if isinstance(engine, FrozenMasks | FrozenStack) else None

    def choice(self, term: Term, inputs: Inputs, labels: Tensor | None) -> EngineChoice:
        """The engine of a term, picked at its first step, and again in another precision or (if it shares) mode."""
        modes = [module.training for module in self.model.modules()]
        half = any(torch.is_autocast_enabled(part.device.type) for part in tensors(inputs))
        known = self.choices.get(term.name)
        proved_in = self._proved_in.setdefault(term.name, (modes, half))
        if known is None or half != proved_in[1] or (known.shared and modes != proved_in[0]):
            with autodiff.naming_operators():
                self.choices[term.name] = self._choose(term, inputs, labels)
            self._proved_in[term.name] = modes, half
            self._made.pop(term.name, None)
        return self.choices[term.name]

    def shares(self, term: AnyTerm, inputs: Inputs, labels: Tensor | None) -> bool:
        """Whether the term's pass gives the task's outputs too, now that the model is in this mode."""
        if isinstance(term, Term):
            gives = term.fraction == 1 and self.choice(term, inputs, labels).shared
        else:
            gives = term.gives_outputs
        return gives and not mode_matters(self.model)

    def _explain(
        self, term: Term, inputs: Inputs, labels: Tensor | None, generator: torch.Generator | None, engine: Engine
    ) -> AttributionResult:
        return term.attribution(
            self.model,
            inputs,
            class_numbers(labels),
            create_graph=True,
            diagnostics=False,
            generator=generator,
            engine=engine,
        )

    def _engine(self, term: Term, choice: EngineChoice) -> Engine:
        if term.name not in self._made:
            self._made[term.name] = self._make(choice)
        return self._made[term.name]

    def _make(self, choice: EngineChoice) -> Engine:
        if choice.name == "frozen-masks":
            return FrozenStack(self.model) if choice.stack else FrozenMasks()
        if choice.name == "double-backward":
            return DoubleBackward(kernels=choice.kernels)
        if choice.name == "finite-differences":
            return FiniteDifferences(self.parameters, partial(autodiff.reading, self.model, trainable=False))
        inner = FrozenMasks() if choice.inner == "frozen-masks" else DoubleBackward(kernels=choice.kernels)
        reading = partial(autodiff.reading, self.model, trainable=inner.twice)
        return TwoPhase(inner, choice.chunk_size, self.parameters, reading)

    def parameters(self) -> list[Tensor]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    # ---- choosing

    def _choose(self, term: Term, inputs: Inputs, labels: Tensor | None) -> EngineChoice:
        if term.engine == "double-backward" and term.attribution.order == 1:
            return EngineChoice("double-backward", "asked for")
        # a target given as a tensor counts the examples
        whole = isinstance(term.attribution.target, Tensor)
        few = torch.arange(rows(inputs) if whole else min(_EXAMPLES, rows(inputs)))
        trial = _Trial(self, term, take(inputs, few), None if labels is None else labels[few.to(labels.device)])
        if term.attribution.order > 1:
            trial.prove_curved()
        if term.engine == "double-backward":
            return EngineChoice("double-backward", "asked for")
        if term.engine == "finite-differences":
            return trial.differences()
        choice = trial.frozen()
        if term.engine == "frozen-masks" and choice.name != "frozen-masks":
            raise ArgumentError(
                f"the term {term.name!r} cannot use the frozen-mask engine",
                expected="a piecewise-linear model: linear, convolution, ReLU, pooling, batch norm",
                got=choice.why,
                mend="engine='auto' takes it where it fits",
            )
        points = rows(inputs) * trial.points_an_example()
        if term.engine == "two-phase" or trial.bytes_a_point() * points > _BUDGET:
            return trial.two_phase(choice, asked=term.engine == "two-phase")
        return choice


class _Trial:
    """A few examples on which an engine is compared with double backward, at the same draws."""

    def __init__(self, engines: Engines, term: Term, inputs: Inputs, labels: Tensor | None) -> None:
        self.engines, self.term, self.inputs, self.labels = engines, term, inputs, labels
        self.model = engines.model
        self.counted = _Counting(DoubleBackward())
        own = [*self.model.parameters(), *self.model.buffers()]
        self.size = saved_bytes(lambda: self._explain(self.counted), but=own)
        self._expected: Pulled | None = None

    def _explain(self, engine: Engine) -> Tensor:
        with seeding.guarded("engine"):
            draws = seeding.generator("engine")
            return self.engines._explain(self.term, self.inputs, self.labels, draws, engine).attributions

    def points_an_example(self) -> int:
        """Points at which the method takes gradients, for each example."""
        return self.counted.points // rows(self.inputs)

    def bytes_a_point(self) -> float:
        """What double backward's graph keeps for each of them."""
        return self.size / max(self.counted.points, 1)

    def prove_curved(self) -> None:
        """Raise ``NotConnectedError`` where second derivatives, and all that could change them, are exactly zero."""
        found, gradients = self._pulled(DoubleBackward())
        if not found.any() and not any(gradient is not None and gradient.any() for gradient in gradients):
            raise NotConnectedError(
                f"the second derivatives in the term {self.term.name!r} are zero: it would train nothing",
                expected="a model that curves: GELU, SiLU, softplus, tanh",
                got="a linear model, or one that is linear between its kinks, as with ReLU",
                mend="train rt.models.smoothed(model), which shares its weights, or ask rt.GradientDifferences, which "
                "sees kinks (recipes.hessian_penalty(step=...))",
            )

    def error(self, engine: Engine) -> float:
        """Relative error of the attributions and of a random pull-back to the parameters."""
        if self._expected is None:
            self._expected = self._pulled(DoubleBackward())
        return _apart(self._pulled(engine), self._expected)

    def _pulled(self, engine: Engine) -> Pulled:
        found = self._explain(engine)
        draws = seeding.generator("engine", "cotangent")
        mix = torch.randn(found.shape, generator=draws, dtype=torch.float64).to(found)
        with seeding.guarded("engine"):
            return found.detach(), self._parameter_gradients(found, mix)

    def frozen(self) -> EngineChoice:
        """The frozen-mask engine where it fits and agrees, double backward where not."""
        method = type(self.term.attribution)
        if self.counted.points == 0:
            return EngineChoice("double-backward", f"{method.__name__} takes no input gradients")
        if method.order > 1:
            return EngineChoice("double-backward", f"{method.__name__} differentiates the input gradients once more")
        if self._at_the_input() and fits(self.model):
            choice = self._proved(FrozenStack(self.model), "a plain stack of layers")
            if choice.name == "frozen-masks":
                return choice
        choice = self._proved(FrozenMasks(), "every operation is piecewise linear")
        return choice if choice.name == "frozen-masks" else self._kernels(choice.why)

    def _proved(self, engine: FrozenMasks | FrozenStack, why: str) -> EngineChoice:
        """Frozen masks if they agree with double backward."""
        try:
            error = self.error(engine)
        except Unsupported as reason:
            return EngineChoice("double-backward", f"not seen to be piecewise linear ({reason})")
        if error > self._tolerance():
            return EngineChoice(
                "double-backward", f"frozen masks differ from double backward by {error:.1e} on the first batch"
            )
        shared = self._shared(engine)
        why += "; proved against double backward" + (", and the task shares its pass" if shared else "")
        stack = isinstance(engine, FrozenStack)
        return EngineChoice("frozen-masks", why, error, shared=shared, stack=stack)

    def _kernels(self, why: str) -> EngineChoice:
        """Double backward, with the kernels if they agree."""
        error = self.error(DoubleBackward(kernels=True))
        good = error <= self._tolerance()
        return EngineChoice("double-backward", why, error if good else 0.0, kernels=good)

    def _at_the_input(self) -> bool:
        """Whether the space is the model's one input."""
        return isinstance(self.term.attribution.space, Input) and isinstance(self.inputs, Tensor)

    def _shared(self, engine: FrozenMasks | FrozenStack) -> bool:
        """Whether the task may take its outputs from the pass that the gradients are taken in."""
        at_batch = isinstance(self.term.attribution, Gradient | InputXGradient) or isinstance(engine, FrozenStack)
        if not (at_batch and self._at_the_input()) or mode_matters(self.model):
            return False
        engine.start(self.inputs)  # type: ignore[arg-type]
        try:
            self._explain(engine)
        except Unsupported:
            return False
        outputs = engine.finish()
        if outputs is None:
            return False
        with seeding.guarded("engine"):
            before = torch.get_rng_state()
            own = self._pulled_outputs(outputs_of(call(self.model, self.inputs)))
            if not torch.equal(before, torch.get_rng_state()):
                return False  # noise in every mode: the task has to draw its own
        return _apart(self._pulled_outputs(outputs), own) <= self._tolerance()

    def _pulled_outputs(self, outputs: Tensor) -> Pulled:
        mix = torch.randn(outputs.shape, generator=seeding.generator("engine", "outputs"), dtype=torch.float64)
        return outputs.detach(), self._parameter_gradients(outputs, mix.to(outputs))

    def _parameter_gradients(self, value: Tensor, cotangent: Tensor) -> list[Tensor | None]:
        return autodiff.parameter_gradient((value * cotangent).sum(), self.engines.parameters())

    def two_phase(self, inner: EngineChoice, *, asked: bool) -> EngineChoice:
        """Chunks, of what was chosen."""
        chunk = int(max(16, min(_CHUNK / max(self.bytes_a_point(), 1), 2048)))
        why = "asked for" if asked else "one graph for all points would keep more than 2 GiB"
        return EngineChoice(
            "two-phase",
            f"{why}; {inner.name} inside",
            inner.error,
            kernels=inner.kernels,
            chunk_size=chunk,
            inner=inner.name,
        )

    def differences(self) -> EngineChoice:
        """Finite differences, or ``ArgumentError`` where they cannot be right."""
        kinks = sorted(self.counted.operators & KINKED)
        advice = "engine='auto' is exact for every model"
        if kinks:
            raise ArgumentError(
                f"the term {self.term.name!r} cannot use finite differences: the model has kinks",
                expected="a smooth model: GELU, SiLU, softplus, tanh, attention, recurrent layers",
                got=", ".join(kinks),
                mend=advice,
            )
        choice = EngineChoice("finite-differences", "asked for")
        try:
            error = self.error(self.engines._make(choice))
        except Unsupported as reason:
            raise ArgumentError(
                f"the term {self.term.name!r} cannot use finite differences", got=str(reason), mend=advice
            ) from None
        if error > _USELESS:
            raise ArgumentError(
                f"finite differences are no use for the term {self.term.name!r} here",
                expected=f"a relative error of the parameter gradient below {_USELESS}",
                got=f"{error:.1e}",
                mend=advice,
            )
        return EngineChoice("finite-differences", f"asked for; off from double backward by {error:.1e}", error)

    def _tolerance(self) -> float:
        dtype = next(self.model.parameters()).dtype
        return TOLERANCE.get(dtype, 1e-2)


class _Counting:
    """An engine that counts the points it is given, and notes what the model does with them."""

    def __init__(self, inner: Engine) -> None:
        self.inner, self.twice, self.curved, self.points = inner, inner.twice, inner.curved, 0
        self.operators: set[str] = set()

    def gradient(self, read: Read, value_of: Read, points: Tensor) -> Tensor:
        """See ``Engine``."""
        self.points += len(points)
        with operators() as seen:
            outputs = read(points.detach())
        del outputs
        self.operators |= seen.names
        return self.inner.gradient(read, value_of, points)


def class_numbers(labels: Tensor | None) -> Tensor | None:
    """Labels (B, 1) are flattened, so that what a loss accepts an attribution accepts."""
    if labels is not None and labels.ndim == 2 and labels.shape[1] == 1:
        return labels[:, 0]
    return labels


def _apart(found: Pulled, expected: Pulled) -> float:
    """The larger relative difference: of the values, or of the parameter gradients."""
    return max(relative([found[0]], [expected[0]]), relative(found[1], expected[1]))


def relative(found: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> float:
    """Largest difference of two lists of gradients, relative to the largest entry of the second; missing ones are zero.

    Infinite where the difference is no number: what cannot be compared does not agree.
    """
    size = max((float(e.abs().max()) for e in expected if e is not None and e.numel()), default=0.0)
    worst = 0.0
    for f, e in zip(found, expected, strict=True):
        apart = [part for part in (f, e) if part is not None and part.numel()]
        if apart:
            gap = float((apart[0] - apart[1]).abs().max() if len(apart) == 2 else apart[0].abs().max())
            if not math.isfinite(gap):
                return math.inf
            worst = max(worst, gap)
    return worst / max(size, 1e-30)
