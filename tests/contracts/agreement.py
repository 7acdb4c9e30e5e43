"""Two ways to the same attributions, compared in value and in parameter gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from contracts.problems import draws

#: float64, sums in another order: relative to the largest entry
CLOSE = 1e-12


def check_close(found: Tensor, expected: Tensor, what: str = "values", tolerance: float = CLOSE) -> float:
    """Raise ``AssertionError`` unless shapes agree and the largest difference is tiny; returns that difference."""
    assert found.shape == expected.shape, f"{what}: shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
    size = float(expected.detach().abs().max())
    gap = float((found.detach() - expected.detach()).abs().max()) / max(size, 1e-30)
    assert gap <= tolerance, f"{what} differ by {gap:.1e} of the largest"
    return gap


def parameter_gradients(phi: Tensor, model: nn.Module) -> list[Tensor]:
    """Gradients of a fixed, uneven combination of the attributions' squares; zero where a parameter is not reached."""
    mix = torch.randn(phi.shape, generator=draws(3), dtype=phi.dtype)
    parameters = list(model.parameters())
    found = torch.autograd.grad((mix * phi**2).sum(), parameters, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def check_same(found: Tensor, expected: Tensor, model: nn.Module, tolerance: float = CLOSE) -> None:
    """Values and parameter gradients agree."""
    check_close(found, expected, "attributions", tolerance)
    pairs = list(zip(parameter_gradients(found, model), parameter_gradients(expected, model), strict=True))
    size = max(float(e.abs().max()) for _, e in pairs)
    assert size > 1e-8, "the parameter gradient is zero here, so that nothing would be checked"
    gap = max(float((f - e).abs().max()) for f, e in pairs) / size
    assert gap <= tolerance, f"parameter gradients differ by {gap:.1e} of the largest"


@contextmanager
def evaluating(model: nn.Module):
    """Eval mode for the oracle, and back."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in before.items():
            module.training = mode


def check_oracle(method: Any, problem: Any, oracle: Callable[[], Sequence[Tensor]], tolerance: float = CLOSE) -> None:
    """A method on a batch equals its slow version, example by example."""
    found = method(
        problem.model, problem.inputs, problem.labels, create_graph=True, diagnostics=False, generator=draws(5)
    ).attributions
    with evaluating(problem.model):
        expected = torch.stack(list(oracle()))
    check_same(found, expected, problem.model, tolerance)


def check_chunks(method: Any, problem: Any, sizes: Sequence[int] = (1, 3)) -> None:
    """Memory is all that ``chunk_size`` changes."""

    def explain(size: int | None) -> Any:
        return method(
            problem.model, problem.inputs, problem.labels, create_graph=True, chunk_size=size, generator=draws(5)
        )

    whole = explain(None)
    for size in sizes:
        part = explain(size)
        check_same(part.attributions, whole.attributions, problem.model)
        check_close(part.outputs, whole.outputs, "outputs")
        if whole.completeness_gap is not None:
            assert (part.completeness_gap - whole.completeness_gap).abs().max() < 1e-12
        assert (part.standard_error is None) == (whole.standard_error is None)
        if whole.standard_error is not None:
            check_close(part.standard_error, whole.standard_error, "standard errors", 1e-9)


def check_rows(method: Any, problem: Any) -> None:
    """A method that draws nothing explains each example as if it came alone."""
    together = method(problem.model, problem.inputs, problem.labels, create_graph=True, diagnostics=False).attributions
    alone = [
        method(
            problem.model,
            problem.inputs[i : i + 1],
            problem.labels[i : i + 1],
            create_graph=True,
            diagnostics=False,
        ).attributions
        for i in range(len(problem.labels))
    ]
    check_same(together, torch.cat(alone), problem.model)


def check_prior_rows(prior: Any, attributions: Tensor, annotation: Any, target: Tensor | None = None) -> None:
    """A penalty of level "example" treats each example as if it came alone, gradients included."""

    def penalty(index: slice, values: Tensor) -> Tensor:
        rows = torch.arange(len(attributions))[index]
        classes = None if target is None else target[index]
        return prior(values[index], annotation.take(rows), classes)

    values = attributions.detach().requires_grad_()
    together = penalty(slice(None), values)
    assert together.shape == (len(values),)
    (slopes,) = torch.autograd.grad(together.sum(), values)
    for i in range(len(values)):
        alone = penalty(slice(i, i + 1), values)
        check_close(alone, together[i : i + 1], "penalties")
        (slope,) = torch.autograd.grad(alone.sum(), values)
        check_close(slope[i], slopes[i], "slopes")
