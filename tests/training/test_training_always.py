"""Rows that are in every batch."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import TensorDataset

import rightly as rt
from rightly.core.errors import ArgumentError, CheckpointError
from rightly.training.batches import Batches
from training.training_problems import bits, classification, mlp, same

X, Y = classification(50)
ROWS = torch.tensor([7, 3, 40])


def _numbers(data, always, batch_size=8, epoch=0):
    batches = Batches(data, batch_size=batch_size, shuffle=True, seed=1, always=always)
    return [inputs[:, 0].tolist() for inputs, *_ in batches.epoch(epoch)]


@pytest.mark.parametrize("kind", ["memory", "dataset"])
@pytest.mark.parametrize("as_mask", [False, True])
def test_every_batch_has_them_and_every_other_row_comes_once(kind, as_mask):
    count = torch.arange(50.0)[:, None].expand(50, 6)
    data = (count, Y) if kind == "memory" else TensorDataset(count, Y)
    always = torch.zeros(50, dtype=torch.bool).index_fill(0, ROWS, True) if as_mask else ROWS
    found = _numbers(data, always)
    assert [len(batch) for batch in found] == [11] * 5 + [10]
    others = []
    for batch in found:
        assert set(ROWS.tolist()) <= set(batch)
        assert len(set(batch)) == len(batch)
        others += [row for row in batch if row not in ROWS.tolist()]
    assert sorted(others) == [row for row in range(50) if row not in ROWS.tolist()]
    assert found != _numbers(data, always, epoch=1)
    assert found == _numbers(data, always)


def test_a_last_batch_of_one_other_row_still_joins():
    assert [len(batch) for batch in _numbers((X, Y), ROWS, batch_size=23)] == [26, 27]


def test_annotations_come_along():
    marks = torch.full((50, 6), torch.nan)
    marks[ROWS] = 1
    batches = Batches((X, Y, rt.Annotation(irrelevant=marks)), batch_size=8, shuffle=True, seed=0, always=ROWS)
    for inputs, labels, annotation in batches.epoch(0):
        assert annotation.irrelevant.isnan().all(1).sum() == len(labels) - 3
        assert all(any(torch.equal(row, X[i]) for row in inputs) for i in ROWS)


def _objective():
    return rt.Objective(mlp(), F.cross_entropy, [rt.recipes.right_for_the_right_reasons(0.1)])


def test_few_annotations_change_the_rule_only_if_they_are_always_there():
    """Two features tell the label; three of 400 examples say that the second must not matter."""
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(400, 2, generator=draws)
    x[:, 1] = x[:, 0]
    y = (x[:, 0] > 0).long()
    marks = torch.full((400, 2), torch.nan)
    rows = torch.tensor([5, 100, 200])
    marks[rows] = torch.tensor([0.0, 1.0])

    def relied(always):
        model = rt.models.mlp(2, (8,), 2, seed=0)
        term = rt.recipes.right_for_the_right_reasons(0.1)
        data = (x, y, rt.Annotation(irrelevant=marks))
        rt.fit(rt.Objective(model, F.cross_entropy, [term]), data, epochs=10, batch_size=20, lr=0.01, always=always)
        phi = rt.attribute(model, x, "gradient", labels=y).attributions.abs().mean(0)
        return float(phi[1] / phi.sum())

    assert relied(rows) < 0.2 * relied(None)


def test_killed_and_resumed_is_uninterrupted(tmp_path):
    whole, halved = _objective(), _objective()
    data = (X, Y, rt.Annotation(irrelevant=torch.ones(1, 6)))
    rt.fit(whole, data, epochs=4, batch_size=8, always=ROWS)
    rt.fit(halved, data, epochs=2, batch_size=8, always=ROWS, checkpoint=tmp_path)
    halved = _objective()
    rt.fit(halved, data, epochs=4, batch_size=8, always=ROWS, checkpoint=tmp_path, resume=True)
    assert same(bits(whole), bits(halved))
    with pytest.raises(CheckpointError, match="another run"):
        rt.fit(_objective(), data, epochs=4, batch_size=8, always=ROWS[:2], checkpoint=tmp_path, resume=True)


MISTAKES = {
    "a row that is not there": torch.tensor([3, 50]),
    "a negative row": torch.tensor([-1]),
    "a row twice": torch.tensor([3, 3]),
    "no row": torch.tensor([], dtype=torch.long),
    "all rows": torch.arange(50),
    "numbers with a point": torch.tensor([3.0]),
    "a mask of another length": torch.ones(49, dtype=torch.bool),
    "an empty mask": torch.zeros(50, dtype=torch.bool),
    "a table": torch.tensor([[3, 4]]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name):
    with pytest.raises(ArgumentError, match="always names rows"):
        rt.fit(_objective(), (X, Y), always=MISTAKES[name])


def test_batches_that_come_ready_are_refused():
    with pytest.raises(ArgumentError, match="come ready"):
        rt.fit(_objective(), [(X[:25], Y[:25]), (X[25:], Y[25:])], always=ROWS)
