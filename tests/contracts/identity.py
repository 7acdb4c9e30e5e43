"""The limits in which an objective must be plain training, and the proof that it is not otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rightly as rt

Step = Callable[[nn.Module, Tensor, Tensor, int], Tensor]


def train(model: nn.Module, inputs: Tensor, labels: Tensor, loss: Step, steps: int = 5) -> list[Tensor]:
    """A few Adam steps with dropout on; returns every bit of the model, and what is left of the random state."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model.train()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for step in range(steps):
            optimizer.zero_grad()
            loss(model, inputs, labels, step).backward()
            optimizer.step()
        state = [value.detach().clone() for value in model.state_dict().values()]
        return [*state, torch.get_rng_state()]


def trained_plainly(make_problem: Callable[[], object], steps: int = 5) -> list[Tensor]:
    """Without the library."""
    problem = make_problem()
    return train(problem.model, problem.inputs, problem.labels, lambda m, x, y, _: F.cross_entropy(m(x), y), steps)


def trained_through(
    make_problem: Callable[[], object], terms: Sequence[rt.Term], annotation=None, steps: int = 5, seed: int = 0
) -> list[Tensor]:
    """With an objective."""
    problem = make_problem()
    whole = rt.Objective(problem.model, F.cross_entropy, terms, seed=seed)

    def loss(model: nn.Module, inputs: Tensor, labels: Tensor, step: int) -> Tensor:
        return whole(inputs, labels, annotation).total

    return train(problem.model, problem.inputs, problem.labels, loss, steps)


def equal(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    return len(found) == len(expected) and all(map(torch.equal, found, expected))


def check_plain(make_problem, terms, annotation=None) -> None:
    """Raise ``AssertionError`` unless these terms change nothing, to the bit."""
    assert equal(trained_through(make_problem, terms, annotation), trained_plainly(make_problem)), (
        "training with terms that rest differs from plain training"
    )


def check_repeatable(make_problem, terms, annotation=None) -> None:
    """Raise ``AssertionError`` unless the same seed gives the same bits."""
    first, second = (trained_through(make_problem, terms, annotation, seed=4) for _ in range(2))
    assert equal(first, second), "two runs with one seed differ"


def check_matters(make_problem, terms, annotation=None) -> None:
    """Raise ``AssertionError`` unless these terms change what is learned, and leave the random state alone."""
    found, plain = trained_through(make_problem, terms, annotation), trained_plainly(make_problem)
    assert not equal(found[:-1], plain[:-1]), "training with terms in force is plain training"
    assert torch.equal(found[-1], plain[-1]), "the terms draw from the global random state"


def check_value(found: Tensor, expected: Tensor, what: str, tolerance: float = 1e-12) -> None:
    """Raise ``AssertionError`` unless a closed form holds."""
    gap = float((found.detach() - expected.detach()).abs().max())
    assert found.shape == expected.shape, f"{what}: shape {tuple(found.shape)}, not {tuple(expected.shape)}"
    assert gap <= tolerance * max(1.0, float(expected.detach().abs().max())), f"{what}: off by {gap:.1e}"
