"""What counts as a step, for schedules and draws."""

from __future__ import annotations

import torch

import rightly as rt


def test_the_halves_of_an_alternating_update_are_one_step():
    model = torch.nn.Linear(3, 2)
    term = rt.Term(rt.Gradient(), rt.priors.L2(), schedule=rt.Schedule(every=2))
    objective = rt.Objective(model, torch.nn.functional.cross_entropy, [term])
    inputs, labels = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 1])
    acted = []
    for _ in range(4):
        objective(inputs, labels, part="task")
        acted.append(objective(inputs, labels, part="prior").terms["l2"].penalty is not None)
    assert acted == [True, False, True, False]
    assert objective.step == 4
