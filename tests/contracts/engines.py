"""Engines against double backward: attributions, and gradients of every parameter."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import rightly as rt
from contracts.agreement import check_same
from contracts.problems import draws
from contracts.zoo import Case
from rightly.core.engines import DoubleBackward
from rightly.core.intercept import Unsupported

#: the contract, relative to the largest entry
EXACT = 1e-10


def explain(method: Any, case: Case, engine: Any) -> Tensor:
    """Attributions with their graph, at draws that are always the same."""
    found = method(
        case.model,
        case.inputs,
        case.labels,
        create_graph=True,
        diagnostics=False,
        generator=draws(5),
        engine=engine,
    )
    return found.attributions


def check_engine(engine: Any, case: Case, method: Any, tolerance: float = EXACT) -> None:
    """An engine gives what double backward gives: the attributions, and every parameter's gradient through them."""
    check_same(explain(method, case, engine), explain(method, case, DoubleBackward()), trained(case.model), tolerance)


def trained(model: nn.Module) -> nn.Module:
    """The parameters that want a gradient, as a module, for checks that ask for ``parameters()``."""
    return nn.ParameterList([parameter for parameter in model.parameters() if parameter.requires_grad])


def check_refused(engine: Any, case: Case, method: Any) -> str:
    """An engine that a model does not fit says so, and why."""
    why = ""
    try:
        explain(method, case, engine)
    except Unsupported as reason:
        why = str(reason)
    assert why, "a model that does not fit was taken, or refused without a reason"
    return why


def gradients(objective: rt.Objective, case: Case, steps: int = 1) -> list[list[Tensor | None]]:
    """Of the total, step by step, with nothing trained in between."""
    parameters = [p for p in objective.model.parameters() if p.requires_grad]
    found = []
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of the task's dropout
        for _ in range(steps):
            report = objective(case.inputs, case.labels)
            grads = torch.autograd.grad(report.total, parameters, allow_unused=True)
            found.append([report.total.detach(), report.outputs.detach(), *grads])
    return found


def check_objective(
    make: Callable[[], Case], terms: Callable[[str], Sequence[rt.Term]], engine: str = "auto", tolerance: float = EXACT
) -> dict[str, Any]:
    """Two steps of an objective give the totals, outputs and gradients that they give with double backward.

    Args:
        make: the same model and batch at every call.
        terms: of an engine's name.
        engine: the one to be compared.

    Returns:
        What was chosen, by term.
    """
    runs, chosen = [], {}
    for name in ("double-backward", engine):
        case = make()
        objective = rt.Objective(case.model, F.cross_entropy, terms(name), seed=4)
        runs.append(gradients(objective, case, 2))
        chosen = objective.engines.choices
    for step, (expected, found) in enumerate(zip(*runs, strict=True)):
        size = max(float(e.abs().max()) for e in expected[2:] if e is not None)
        assert size > 1e-8, "the gradient is zero here, so that nothing would be checked"
        for position, (e, f) in enumerate(zip(expected, found, strict=True)):
            e, f = (torch.zeros(()) if part is None else part for part in (e, f))
            scale = size if position > 1 else float(e.abs().max())
            gap = float((e - f).abs().max()) / scale
            assert gap <= tolerance, f"at step {step} the engine is off by {gap:.1e}"
    return chosen


def relative_error(engine: Any, case: Case, method: Any) -> float:
    """Of an engine's parameter gradient, as one vector, against double backward's in float64."""
    mix = torch.randn(explain(method, case, engine).shape, generator=draws(3)).to(next(case.model.parameters()))

    def pulled(of: Case, engine: Any) -> Tensor:
        phi = explain(method, of, engine)
        parameters = list(of.model.parameters())
        grads = torch.autograd.grad((mix.to(phi) * phi).sum(), parameters, allow_unused=True, materialize_grads=True)
        return torch.cat([grad.flatten() for grad in grads]).double()

    found = pulled(case, engine)
    case.model.double()
    exact = pulled(Case(case.model, case.inputs.double(), case.labels), DoubleBackward())
    return float((found - exact).norm() / exact.norm())


def check_differences(engine: Any, case: Case, method: Any, tolerance: float = 5e-3) -> float:
    """Finite differences are as near as they are said to be; returns the error."""
    error = relative_error(engine, case, method)
    assert error < tolerance, f"differences are off by {error:.1e}"
    return error


class _Living(TorchDispatchMode):
    """Counts the bytes of the tensors that are made inside and alive, and remembers the most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self._born(tensor.untyped_storage())
        return result

    def _born(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.seen:
            return
        self.seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size


def peak_bytes(run: Callable[[], Any]) -> int:
    """The most memory that tensors made by ``run`` held at once."""
    with _Living() as living:
        run()
    return living.peak


def check_memory(engine: Callable[[], Any], case: Case, few: int, many: int, growth: float = 1.5) -> float:
    """A step's memory hardly grows with the number of samples; returns the ratio."""

    def step(samples: int) -> Callable[[], None]:
        def run() -> None:
            phi = explain(rt.ExpectedGradients(n_samples=samples, output="loss"), case, engine())
            torch.autograd.grad((phi**2).sum(), list(case.model.parameters()), allow_unused=True)

        return run

    ratio = peak_bytes(step(many)) / peak_bytes(step(few))
    assert ratio < growth, f"{many} samples take {ratio:.1f} times the memory of {few}"
    return ratio
