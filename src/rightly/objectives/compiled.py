"""A whole step of an objective as one compiled graph: task loss, attributions, priors and all parameter gradients.

``torch.compile`` cannot differentiate twice through a module that it compiled. So the step is written down once, with
its inner and outer derivatives, as a graph of plain tensor operations, and that graph is compiled: nothing is left to
be differentiated. What changes from step to step (parameters, buffers, batch, random draws, weights) goes in as tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx
from torch.overrides import TorchFunctionMode

from rightly.core import autodiff, distributed
from rightly.core.annotation import Annotation
from rightly.core.batch import Inputs, tensors
from rightly.core.errors import RightlyError
from rightly.core.kernels.function import Kernel, final

#: kinds of step (shapes, acting terms, modes) that are compiled; any further one stays eager
_GRAPHS = 8
#: steps at which a graph is compared with the eager step; the second sees other parameters and other draws
_PROOFS = 2
#: largest relative difference from the eager gradient: rounding may flip a unit at its kink
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-9}
#: ways to take numbers out of a tensor, which a graph would keep as they were when it was written down
_NUMBERS = frozenset("item tolist numpy __array__ __float__ __int__ __index__ __complex__".split())


class CompilationError(RightlyError, RuntimeError):
    """An objective's step cannot be compiled, or would not give what the eager step gives."""


class _Refused(Exception):
    """Why a step cannot be one graph."""


@dataclass(frozen=True)
class Passes:
    """What the passes over the model give: outputs and task loss (None for the prior alone), penalties by term."""

    outputs: Tensor | None
    task: Tensor | None
    penalties: dict[str, Tensor]

    def total(self, weights: Sequence[Tensor]) -> Tensor:
        """Task loss and weighted penalties."""
        parts = [] if self.task is None else [self.task]
        parts += [w.to(p) * p for w, p in zip(weights, self.penalties.values(), strict=True)]
        return torch.stack(parts).sum() if len(parts) > 1 else parts[0]


@dataclass(frozen=True)
class Step:
    """One step of an objective.

    Attributes:
        objective: whose parameters and buffers the passes read.
        passes: runs them, with their graph.
        inputs, labels, annotation: the batch.
        generators: that the acting terms draw from, in their order.
        weights: of the acting terms, by name, in the same order.
        part: of the objective.
    """

    objective: nn.Module
    passes: Callable[[], Passes]
    inputs: Inputs
    labels: Tensor
    annotation: Annotation | None
    generators: Sequence[torch.Generator]
    weights: dict[str, float]
    part: str

    def wanted(self) -> list[Tensor]:
        """The parameters that want a gradient."""
        return [parameter for parameter in self.objective.parameters() if parameter.requires_grad]

    def state(self) -> list[Tensor]:
        """All parameters and buffers."""
        return [*self.objective.parameters(), *self.objective.buffers()]

    def batch(self) -> list[Tensor]:
        """All tensors of the batch."""
        known = {} if self.annotation is None else vars(self.annotation)
        return [*tensors(self.inputs), self.labels, *(value for value in known.values() if value is not None)]

    def numbers(self) -> Tensor:
        """The weights (W,), beside the parameters."""
        first = self.wanted()[0]
        return torch.tensor(list(self.weights.values()), dtype=first.dtype, device=first.device)

    def states(self) -> list[Tensor]:
        """Of the generators."""
        return [generator.get_state() for generator in self.generators]

    def restore(self, states: Sequence[Tensor]) -> None:
        """Put the generators back."""
        for generator, state in zip(self.generators, states, strict=True):
            generator.set_state(state)

    def kind(self) -> tuple[Any, ...]:
        """What two steps have in common when one graph serves both."""
        known = [] if self.annotation is None else [name for name, value in vars(self.annotation).items() if value is not None]
        shapes = [
            (t.shape, t.stride(), t.dtype, t.device, t.requires_grad) for t in (*self.state(), *self.batch())
        ]
        modes = [module.training for module in self.objective.modules()]
        aliases = [id(part) for part in self.batch()]
        return (
            self.part,
            tuple(self.weights),
            tuple(known),
            repr(_untouched(self.inputs)),
            tuple(shapes),
            tuple(modes),
            tuple(aliases.index(alias) for alias in aliases),
        )


def _untouched(inputs: Inputs) -> Any:
    """The inputs without their tensors: names, flags."""
    if isinstance(inputs, Tensor):
        return None
    parts = inputs.items() if isinstance(inputs, Mapping) else enumerate(inputs)
    return [(key, None if isinstance(part, Tensor) else part) for key, part in parts]


class Compiled:
    """The graphs of an objective, one for each kind of step.

    A kind is taken eagerly when it comes for the first time (engines are chosen then, and weights settled), and
    compiled when it comes again. A copy, or one that was saved, compiles anew.

    Args:
        arguments: of ``torch.compile``.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self.arguments = {"fullgraph": True, "dynamic": False, **arguments}
        self._graphs: dict[tuple[Any, ...], _Graph | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"arguments": self.arguments, "_graphs": {}}

    def __call__(self, step: Step) -> tuple[Tensor, Passes] | None:
        """The total, with its gradient, and the passes without; None where the step has to be taken eagerly.

        Raises:
            CompilationError: the step cannot be compiled, or the graph gives something else.
        """
        kind = step.kind()
        if kind not in self._graphs:
            if len(self._graphs) < _GRAPHS:
                self._graphs[kind] = None
            return None
        try:
            graph = self._graphs[kind]
            if graph is None:
                graph = self._graphs[kind] = _Graph(step, self.arguments)
            return graph(step)
        except RightlyError:
            raise  # the eager step, which is taken for the proof, says the same
        except Exception as reason:
            raise CompilationError(
                "this objective's step cannot be compiled",
                expected="one graph of tensor operations that gives the eager gradient",
                got=str(reason) if isinstance(reason, _Refused) else _told(reason),
                mend="the objective is eager again, and works as before: leave out objective.compile()",
            ) from reason


def _told(reason: Exception) -> str:
    """The error's name and the beginning of what it says, which may go on for pages."""
    lines = [line.strip() for line in str(reason).splitlines() if line.strip()]
    return " ".join([f"{type(reason).__name__}:", *lines[:2]])


class _Graph:
    """One kind of step: written down, compiled, and proved at its first calls."""

    def __init__(self, step: Step, arguments: Mapping[str, Any]) -> None:
        _check(step)
        states = step.states()
        self.draws = _noted(step)
        self.modes = any(module.training for module in step.objective.modules())
        self.proofs = 0
        graph = self._written(step)
        step.restore(states)
        _check_graph(graph)
        self.compiled = torch.compile(graph, **arguments)

    def _written(self, step: Step) -> GraphModule:
        """The graph of the step: tensors in, tensors out."""
        drawn, numbers, wanted = self._draw(step), step.numbers(), step.wanted()

        def written(*given: Tensor) -> list[Tensor]:
            with _Playing(drawn) as playing, autodiff.own_buffers(step.objective) as own:
                found = step.passes()
                total = found.total(numbers.unbind())
                gradients = autodiff.parameter_gradient(total, wanted)
                buffers = own() if self.modes else []
            self.reached = [gradient is not None for gradient in gradients]
            self.names = list(found.penalties)
            task = [] if found.task is None or found.outputs is None else [found.task, found.outputs]
            reached = [gradient for gradient in gradients if gradient is not None]
            same = torch.stack(playing.same).all() if playing.same else torch.ones((), dtype=torch.bool)
            self.sizes = [1, 1, len(found.penalties), len(task), len(buffers), len(reached)]
            return [x.detach() for x in (same, total, *found.penalties.values(), *task, *buffers, *reached)]

        try:
            with torch.enable_grad():
                return make_fx(written)(*self._given(step, drawn, numbers))
        except RuntimeError as reason:
            if "_local_scalar_dense" in str(reason):
                raise _Refused("a number is taken out of a tensor") from reason
            raise

    def _draw(self, step: Step) -> list[Tensor]:
        return [draw(step.generators) for draw in self.draws]

    def _given(self, step: Step, drawn: Sequence[Tensor], numbers: Tensor) -> list[Tensor]:
        return [*step.state(), *step.batch(), *drawn, numbers]

    def __call__(self, step: Step) -> tuple[Tensor, Passes] | None:
        """See ``Compiled``."""
        states = step.states()
        expected = _eager(step) if self.proofs < _PROOFS else None
        given = [part.detach() for part in self._given(step, self._draw(step), step.numbers())]
        try:
            with torch.no_grad():
                results = iter(self.compiled(*given))
        except Exception:
            step.restore(states)
            _eager(step)  # which knows better what is wrong, if it is the batch
            raise
        (same,), (total,), penalties, task, buffers, gradients = ([next(results) for _ in range(n)] for n in self.sizes)
        if not bool(same):
            # a check that the step makes has come out otherwise, and so may have the way that it takes
            step.restore(states)
            return None
        with torch.no_grad():
            for buffer, value in zip(step.objective.buffers(), buffers, strict=False):
                buffer.copy_(value)
        found = iter(gradients)
        every = [next(found) if reached else None for reached in self.reached]
        if expected is not None:
            _prove([total, *step.objective.buffers()], every, *expected)
            self.proofs += 1
        loss, outputs = task or (None, None)
        passes = Passes(outputs, loss, dict(zip(self.names, penalties, strict=True)))
        return _Total.one(total, every, *step.wanted()), passes


class _Total(Kernel):
    """A number whose gradient is known."""

    @staticmethod
    def forward(ctx: Any, total: Tensor, gradients: Sequence[Tensor | None], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return total.clone()

    @staticmethod
    @final
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        return None, None, *(None if gradient is None else cotangent * gradient for gradient in ctx.gradients)


def _check(step: Step) -> None:
    """Raise ``_Refused`` for what is known beforehand."""
    if distributed.world_size() > 1:
        raise _Refused("several processes sum inside the step")
    types = {parameter.dtype for parameter in step.wanted()}
    if torch.is_autocast_enabled(step.labels.device.type) or not types <= set(_TOLERANCE):
        raise _Refused("half precision, in which rounding hides whether the graph is right")


def _check_graph(graph: GraphModule) -> None:
    """Raise ``_Refused`` for operations that would be wrong at another step."""
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            constant = getattr(graph, node.target)
            if isinstance(constant, Tensor) and constant.requires_grad:
                raise _Refused("it uses a parameter that is not the model's, or something made of one before the step")
        tags = getattr(node.target, "tags", ())
        if torch.Tag.nondeterministic_seeded in tags and _argument(node, "dropout_p") != 0:
            raise _Refused(f"{node.target} draws random numbers, as dropout does in training mode")
        if torch.Tag.dynamic_output_shape in tags and not _of_numbers(node):
            raise _Refused(f"the shape of what {node.target} gives depends on the data")


def _argument(node: Node, name: str) -> Any:
    """What a node passes to its operation under this name; None where there is none such."""
    for given, argument in zip_longest(node.args, node.target._schema.arguments):  # type: ignore[union-attr]
        if argument.name == name:
            return node.kwargs.get(name, argument.default_value if given is None else given)
    return None


def _of_numbers(node: Node) -> bool:
    """Whether this is indexing by numbers, which gives as many as there are; a mask gives as many as are true."""
    if node.target is not torch.ops.aten.index.Tensor:
        return False
    types = [index.meta["tensor_meta"].dtype for index in node.args[1] if index is not None]
    return not {torch.bool, torch.uint8} & set(types)


def _eager(step: Step) -> tuple[list[Tensor], list[Tensor | None]]:
    """Total, buffers and gradients as the eager step has them; buffers and generators are put back."""
    states = step.states()
    with torch.enable_grad(), autodiff.keeping_buffers(step.objective):
        total = step.passes().total(step.numbers().unbind())
        gradients = autodiff.parameter_gradient(total, step.wanted())
        moved = [buffer.clone() for buffer in step.objective.buffers()]
    step.restore(states)
    return [total.detach(), *moved], gradients


def _prove(
    values: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    eager_values: Sequence[Tensor],
    eager_gradients: Sequence[Tensor | None],
) -> None:
    """Raise ``_Refused`` where the graph gives something else than the eager step."""
    if [g is None for g in gradients] != [g is None for g in eager_gradients]:
        raise _Refused("it reaches other parameters than the eager step")
    pairs = [(g, e) for g, e in zip(gradients, eager_gradients, strict=True) if g is not None and e is not None]
    size = max((float(e.abs().max()) for _, e in pairs if e.numel()), default=0.0)
    tolerance = max(_TOLERANCE[e.dtype] for _, e in pairs)
    error = max((float((g - e).abs().max()) for g, e in pairs if e.numel()), default=0.0) / max(size, 1e-30)
    if not error <= tolerance:
        raise _Refused(f"its gradient differs from the eager one by {error:.1e} (at most {tolerance:.0e})")
    for value, eager in zip(values, eager_values, strict=True):
        if not torch.allclose(value, eager, rtol=tolerance, atol=tolerance):
            raise _Refused("its total, or the buffers it leaves, differ from those of the eager step")


Drawing = Callable[[Sequence[torch.Generator]], Tensor]


def _noted(step: Step) -> list[Drawing]:
    """How to draw what an eager step draws; buffers and generators are put back."""
    with _Noting(step.generators) as noting:
        _eager(step)
    return noting.draws


class _Noting(TorchFunctionMode):
    """Notes every draw from the given generators."""

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.generators = generators
        self.draws: list[Drawing] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("generator") is not None:
            self.draws.append(self._drawing(func, args, kwargs))
        return func(*args, **kwargs)

    def _drawing(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Drawing:
        others = {name: value for name, value in kwargs.items() if name != "generator"}
        if any(isinstance(arg, Tensor) for arg in (*args, *others.values())):
            raise _Refused(f"{func.__name__} draws what depends on a tensor")
        for number, generator in enumerate(self.generators):
            if generator is kwargs["generator"]:
                return lambda generators: func(*args, **others, generator=generators[number])
        raise _Refused("a random draw comes from a generator of its own")


class _Playing(TorchFunctionMode):
    """Gives draws that were made before, and notes what was asked of tensors.

    Attributes:
        same: for every answer that Python took from a tensor, whether it is the one that was given.
    """

    def __init__(self, drawn: Sequence[Tensor]) -> None:
        super().__init__()
        self.drawn = iter(drawn)
        self.same: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("generator") is not None:
            return next(self.drawn)
        if func.__name__ in _NUMBERS:
            raise _Refused(f"a number is taken out of a tensor ({func.__name__})")
        if func.__name__ != "__bool__":
            return func(*args, **kwargs)
        with disable_proxy_modes_tracing():
            answer = bool(args[0])
        self.same.append((args[0].reshape(()) != 0) == answer)
        return answer
