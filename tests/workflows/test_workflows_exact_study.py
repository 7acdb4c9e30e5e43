"""Scores of groups against the exact ones."""

import pytest
import torch

import rightly as rt
from rightly.workflows.exact_study import nearness, summed


def test_nearness_is_rank_and_error():
    exact = torch.tensor([[1.0, 2.0, -3.0], [4.0, 0.0, 2.0]])
    assert nearness(exact, exact) == (pytest.approx(1), 0.0)
    # the first in the same order, the second all alike: 1 and 0; off by 0.5 + 2 + 2 of 12
    scores = torch.tensor([[1.0, 2.5, -3.0], [2.0, 2.0, 2.0]])
    rank, error = nearness(scores, exact)
    assert rank == pytest.approx(0.5)
    assert error == pytest.approx(4.5 / 12)
    assert nearness(-exact, exact)[0] == pytest.approx(-1)
    assert nearness(-exact, exact)[1] == pytest.approx(2)


def test_attributions_are_summed_over_groups():
    model = torch.nn.Linear(4, 1)
    x, groups = torch.randn(3, 4), torch.tensor([[True, True, False, False], [False, False, False, True]])
    parts = model.weight.detach() * x
    found = summed(rt.InputXGradient(target=0), groups)(model, x)
    torch.testing.assert_close(found, torch.stack([parts[:, :2].sum(1), parts[:, 3]], 1))
