"""Steps on the task and on the terms in turn, and the trap of an Adam of its own for the terms."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rightly as rt
from rightly.core import seeding
from training.training_problems import bits, classification, linear, mlp, objective, regression, same, term

X, Y = classification()


def steps(
    weight: float, *, schedule: str, own: str | None, eps: float = 1e-30, epochs: int = 5
) -> tuple[Tensor, Tensor]:
    """Where a linear model goes in some full-batch steps, with the term and without it."""

    def adam(parameters):
        return torch.optim.Adam(parameters, lr=0.01, eps=eps)

    x, y = regression()
    start = torch.tensor([[-0.5, 0.1, 0.5, 1.0]], dtype=torch.float64)  # half way: the term pulls back, the task on
    found = []
    for strength in (weight, 0.0):
        model = linear()
        model.weight.data.copy_(start)
        term = rt.Term(rt.Gradient(), rt.priors.L2(), strength)
        rt.fit(
            rt.Objective(model, F.mse_loss, [term]),
            (x, y),
            epochs=epochs,
            batch_size=60,
            optimizer=adam,
            schedule=schedule,
            prior_optimizer=adam if own else None,
        )
        found.append(model.weight.detach() - start)
    return found[0], found[1]


def test_an_adam_of_its_own_ignores_the_weight():
    large, small = (steps(weight, schedule="alternate", own="adam") for weight in (100.0, 1e-3))
    assert torch.allclose(large[0], small[0], rtol=0, atol=1e-12)
    assert (large[0] - large[1]).norm() > 0.01
    with_term, without = steps(1e-3, schedule="alternate", own="adam", epochs=1)
    own = with_term - without
    # both moments are the gradient's own: the term's step is the learning rate in every coordinate
    assert torch.allclose(own.abs(), torch.full((1, 4), 0.01, dtype=torch.float64), rtol=1e-9)


def test_only_the_epsilon_of_that_adam_sees_the_weight():
    large, small = (steps(weight, schedule="alternate", own="adam", eps=1e-3, epochs=1) for weight in (1.0, 1e-3))
    ratio = (small[0] - small[1]).abs() / (large[0] - large[1]).abs()
    assert ratio.max() < 0.9
    tiny, tinier = (steps(weight, schedule="alternate", own="adam", eps=1e-3, epochs=1) for weight in (1e-8, 1e-9))
    assert torch.allclose(tiny[0] - tiny[1], 10 * (tinier[0] - tinier[1]), rtol=1e-3)


@pytest.mark.parametrize("schedule", ["joint", "alternate"])
def test_one_adam_for_both_heeds_the_weight(schedule):
    large, small = (steps(weight, schedule=schedule, own=None) for weight in (100.0, 1e-3))
    assert (large[0] - small[0]).norm() > 0.02
    if schedule == "joint":  # the sum is normalised, in which a tiny term is tiny
        assert (small[0] - small[1]).norm() < 1e-2 * (large[0] - large[1]).norm()


@pytest.mark.parametrize("own", [None, "sgd"])
def test_alternation_is_a_loop_written_by_hand(own):
    trained, hand = objective(0.5), objective(0.5)
    rt.fit(
        trained,
        (X, Y),
        epochs=2,
        batch_size=16,
        lr=0.01,
        seed=3,
        schedule="alternate",
        prior_optimizer=own,
    )
    first = torch.optim.Adam(hand.parameters(), lr=0.01)
    second = first if own is None else torch.optim.SGD(hand.parameters(), lr=0.01)

    def batches(epoch):
        return torch.randperm(len(X), generator=seeding.generator(3, "order", epoch)).split(16)

    hand.train()
    with torch.random.fork_rng():
        for epoch in range(2):
            torch.manual_seed(seeding.mix(3, "epoch", epoch))
            for step, (rows, others) in enumerate(zip(batches(epoch), batches(-1 - epoch), strict=True)):
                first.zero_grad()
                F.cross_entropy(hand.model(X[rows]), Y[rows]).backward()
                first.step()
                second.zero_grad()
                hand.step = epoch * 6 + step
                hand(X[others], Y[others], part="prior").total.backward()
                second.step()
    assert trained.step == 12
    assert same(bits(trained.model), bits(hand.model))


def test_a_term_that_acts_at_every_other_step_acts_when_steps_alternate():
    trained = rt.Objective(mlp(), F.cross_entropy, [term(0.5, schedule=rt.Schedule(every=2))])
    run = rt.fit(trained, (X, Y), epochs=1, batch_size=15, schedule="alternate")
    assert run.history[0]["terms"]["sparsity"] > 0
    assert trained.step == 6


def test_the_terms_see_other_batches_than_the_task():
    seen = {"task": [], "prior": []}

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, 2)

        def forward(self, x):
            seen["task" if self.training else "prior"].append(x.detach()[:, 0].tolist())
            return self.inner(x)

    rt.fit(
        # asked for, so that no engine is proved first, which reads the model as well
        rt.Objective(
            Watched(), F.cross_entropy, [rt.Term(rt.Gradient(), rt.priors.L2(), 0.1, engine="double-backward")]
        ),
        (X, Y),
        epochs=1,
        batch_size=30,
        schedule="alternate",
    )
    assert len(seen["task"]) == len(seen["prior"]) == 3
    flat = {kind: [value for batch in batches for value in batch] for kind, batches in seen.items()}
    assert sorted(flat["task"]) == sorted(flat["prior"]) == sorted(X[:, 0].tolist())
    assert flat["task"] != flat["prior"]


class Growing:
    """One batch more every time it is read."""

    def __init__(self) -> None:
        self.reads = 0

    def __iter__(self):
        self.reads += 1
        yield from [(X[:10], Y[:10])] * self.reads


def test_sources_whose_length_changes_end_with_the_shorter():
    trained = objective()
    rt.fit(trained, Growing(), epochs=2, schedule="alternate")
    assert trained.step == 1 + 3
