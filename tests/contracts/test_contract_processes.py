"""Contract 7: two processes give the gradient of one, batch-level priors and uneven shards included."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import rightly as rt
from contracts.problems import annotation_for, components, images, prior_of, vectors
from contracts.processes import alone, check_agreement, in_two_processes, together
from rightly.core.distributed import global_mean, global_sum

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch without torch.distributed")

SHARDS = {
    "even": [torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5])],
    "uneven": [torch.tensor([4]), torch.tensor([5, 0, 3, 2, 1])],
}


def _objective(problem, *terms):
    return lambda: rt.Objective(problem().model.eval(), F.cross_entropy, terms)


def _cases():
    """Methods that draw nothing: what is drawn differs between processes by design."""
    integrated = rt.IntegratedGradients(rt.references.Constant(0.2), n_steps=4)
    hidden = rt.InputXGradient(space=rt.spaces.Layer("0"))
    for entry in components("prior"):
        picture = "images" in entry.traits
        problem = (lambda: images(6)) if picture else (lambda: vectors(6))
        for method in (integrated, hidden):
            with torch.no_grad():
                like = method(problem().model, problem().inputs, problem().labels).attributions
            prior = prior_of(entry, tuple(like.shape[1:]))
            batch = (problem().inputs, problem().labels, annotation_for(prior, like))
            where = "layer" if method is hidden else "input"
            yield f"{entry.name}-{where}", _objective(problem, rt.Term(method, prior, 2.0)), batch
    vector, batch = (lambda: vectors(6)), (vectors(6).inputs, vectors(6).labels, None)
    both = [
        rt.Term(rt.Gradient(output="log_prob"), rt.priors.Sparsity(), 0.7),
        rt.Term(integrated, rt.priors.L1(), 0.3),
    ]
    yield "two terms", _objective(vector, *both), batch
    yield "no terms", _objective(vector), batch
    for penalty in ("l1", "l2", "sparse_group_lasso"):
        yield f"weights-{penalty}", _objective(vector, rt.WeightTerm(penalty, weight=0.4), both[1]), batch
    for prior in (rt.priors.L2(), rt.priors.Sparsity()):
        yield f"balance-{type(prior).__name__}", _objective(vector, rt.Term(integrated, prior, "balance")), batch


@pytest.mark.parametrize(
    ("shards", "wrapped"),
    [("even", False), ("uneven", False), ("uneven", True)],
    ids=["even-by-hand", "uneven-by-hand", "uneven-ddp"],
)
def test_two_processes_give_the_gradient_of_one(shards, wrapped):
    cases = [case for case in _cases() if not (wrapped and case[0].endswith("-layer"))]  # wrapping takes its time
    assert len(cases) >= 9 + 4 + (0 if wrapped else 9)

    def work(rank):
        return {name: together(make, batch, SHARDS[shards], wrapped, rank) for name, make, batch in cases}

    answers = in_two_processes(work)
    for name, make, batch in cases:
        try:
            check_agreement(alone(make, batch), [answer[name] for answer in answers])
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


def test_sums_over_processes_can_be_differentiated_twice():
    """d/dx_r of (sum over ranks x)^2, as the library counts it: all processes add the same term."""

    def work(rank):
        x = torch.tensor(1.0 + rank, dtype=torch.float64, requires_grad=True)
        value = global_sum(x) ** 3
        (first,) = torch.autograd.grad(value, x, create_graph=True)
        (second,) = torch.autograd.grad(first, x)
        mean = global_mean(torch.arange(rank + 1.0)[:, None])
        return float(value.detach()), float(first.detach()), float(second), mean.tolist()

    for value, first, second, mean in in_two_processes(work):
        total = 1.0 + 2.0
        assert value == total**3
        assert first == 2 * 3 * total**2  # once per process: the mean that DDP takes cancels it
        assert second == 4 * 6 * total
        assert mean == pytest.approx([1 / 3])


def test_a_process_that_fails_is_reported():
    def work(rank):
        raise KeyError("planted")

    with pytest.raises(AssertionError, match="planted"):
        in_two_processes(work)


def test_processes_draw_differently():
    """Otherwise two processes would average two equal samples."""
    data = torch.arange(1000.0)[:, None].expand(1000, 6).double()

    def work(rank):
        problem = vectors(2)
        method = rt.ExpectedGradients(rt.references.Sample(data))
        whole = rt.Objective(problem.model, F.cross_entropy, [rt.Term(method, rt.priors.L2())])
        return float(whole(problem.inputs, problem.labels, part="prior").total.detach())

    first, second = in_two_processes(work)
    assert first != second
