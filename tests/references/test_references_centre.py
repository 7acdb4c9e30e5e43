"""The mean that references are drawn around."""

import pytest
import torch

import rightly as rt
from contracts.problems import draws, normal, vectors
from rightly.core.types import Centre

DATA = normal(9, 6, seed=60)


def _draw(reference, k, batch=4, space=None, inputs=None):
    problem = vectors(batch, space)
    view = problem.space.open(problem.model, problem.inputs if inputs is None else inputs)
    return reference.draw(view, k, draws(0))


@pytest.mark.parametrize(("k", "n"), [(2, 5), (4, 5), (5, 5), (7, 5), (12, 5), (11, 5), (1, 5), (3, 1)])
def test_the_factor_undoes_what_a_draw_says_about_the_mean(k, n):
    """All orders of n references: E[factor * (mean of the later draws - draw j) | draw j = r] is mu - r."""
    centre = Centre.without_replacement(lambda: torch.zeros(1), k, n)
    late = k - centre.start
    assert late == (k % n if k % n > 1 else 0)
    if late:
        values = torch.arange(float(n)).double() ** 2
        orders = torch.cartesian_prod(*[torch.arange(n)] * late).reshape(-1, late)
        orders = orders[torch.tensor([len(set(row.tolist())) == late for row in orders])]
        drawn = values[orders]
        for r in range(n):
            given = drawn[orders[:, 0] == r]
            expected = centre.factor * (given.mean(1) - given[:, 0]).mean()
            assert float(expected) == pytest.approx(float(values.mean() - values[r]), abs=1e-12)


def test_independent_draws_take_bessels_factor():
    assert Centre.independent(lambda: torch.zeros(1), 4).factor == 4 / 3
    assert Centre.independent(lambda: torch.zeros(1), 1).start == 1


def test_the_mean_is_that_of_what_can_be_drawn():
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 2])
    x = vectors().inputs
    for reference, mean in (
        (rt.references.Sample(DATA), DATA.mean(0, keepdim=True)),
        (rt.references.Sample(DATA.float()), DATA.mean(0, keepdim=True)),
        (rt.references.Where(DATA, labels=labels, label=1), DATA[2:5].mean(0, keepdim=True)),
        (rt.references.Noise(0.5), x),
        (rt.references.InBatch(), torch.stack([torch.cat([x[:b], x[b + 1 :]]).mean(0) for b in range(4)])),
    ):
        found = _draw(reference, 3).centre.mean()
        assert found.dtype == torch.float64
        assert torch.allclose(found, mean, rtol=0, atol=1e-7)


def test_a_mean_that_is_not_at_hand_is_not_looked_for():
    assert _draw(rt.references.Sample(DATA), 3, space=rt.spaces.Layer("0")).centre is None
    assert _draw(rt.references.Sample(DATA.numpy()), 3).centre is None
    assert _draw(rt.references.Constant(0.0), 3).centre is None
    assert _draw(rt.references.Blur(1.0, dims=1), 3).centre is None
    assert _draw(rt.references.InBatch(), 3, batch=1).centre is None
    assert _draw(rt.references.InBatch(), 3, space=rt.spaces.Layer("0")).centre is not None


def test_the_mean_is_remembered_until_the_data_change():
    data = DATA.clone()
    sample = rt.references.Sample(data)
    first = _draw(sample, 3).centre.mean()
    known = sample._known
    assert torch.equal(_draw(sample, 3).centre.mean(), first)
    assert sample._known is known
    data += 1
    assert torch.allclose(_draw(sample, 3).centre.mean(), first + 1)


def test_each_input_has_its_own_mean():
    sample = rt.references.Sample((DATA, DATA + 5))
    pair = (normal(4, 6, seed=1), normal(4, 6, seed=2))
    for name in (0, 1, 0):
        view = rt.spaces.Input(name).open(lambda a, b: a + b, pair)
        assert torch.allclose(sample.draw(view, 3, draws(0)).centre.mean(), DATA.mean(0, keepdim=True) + 5 * name)


def test_picked_references_are_those_of_the_numbers():
    problem = vectors(2)
    view = problem.space.open(problem.model, problem.inputs)
    index = torch.tensor([[3, 3, 0], [8, 1, 2]])
    assert torch.equal(rt.references.Sample(DATA).pick(view, index).all(2), DATA[index])
