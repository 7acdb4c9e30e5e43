"""What references draw."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset, TensorDataset

import rightly as rt
from contracts.problems import draws, normal, tokens, vectors
from rightly.core.errors import ArgumentError
from rightly.references.sample import _indices

DATA = torch.arange(9.0)[:, None].expand(9, 6).double()


def _view(batch=4):
    problem = vectors(batch)
    return problem.space.open(problem.model, problem.inputs)


def _drawn(reference, k, seed=0, batch=4):
    """(B, K) numbers of the rows of ``DATA``."""
    return reference.draw(_view(batch), k, draws(seed)).all(batch)[..., 0].long()


@given(st.integers(1, 12), st.integers(1, 30), st.integers(1, 14), st.integers(0, 5))
def test_without_replacement_one_example_sees_no_row_twice(batch, k, n, seed):
    index = _indices(batch, k, n, False, draws(seed))
    assert index.shape == (batch, k)
    assert int(index.min()) >= 0
    assert int(index.max()) < n
    for row in index.tolist():
        for start in range(0, k, n):
            part = row[start : start + n]
            assert len(set(part)) == len(part)


def test_without_replacement_every_row_is_as_likely():
    index = torch.cat([_indices(4, 3, 7, False, draws(seed)) for seed in range(700)])
    counts = index.flatten().bincount(minlength=7)
    expected = index.numel() / 7
    assert (counts - expected).abs().max() < 5 * math.sqrt(expected)


def test_with_replacement_rows_come_back():
    assert any(len(set(row)) < 9 for row in _drawn(rt.references.Sample(DATA, replacement=True), 9).tolist())
    assert all(len(set(row)) == 9 for row in _drawn(rt.references.Sample(DATA), 9).tolist())


@pytest.mark.parametrize("replacement", [False, True])
def test_draws_are_the_generators(replacement):
    sample = rt.references.Sample(DATA, replacement=replacement)
    assert torch.equal(_drawn(sample, 3, seed=1), _drawn(sample, 3, seed=1))
    assert not torch.equal(_drawn(sample, 3, seed=1), _drawn(sample, 3, seed=2))


def test_gathering_in_any_order_gives_the_same_draws():
    draw = rt.references.Sample(DATA).draw(_view(), 3, draws(0))
    whole = draw.all(4)
    rows, samples = torch.tensor([3, 0, 3]), torch.tensor([1, 2, 0])
    assert torch.equal(draw.gather(rows, samples), whole[rows, samples])


class Pairs(Dataset):
    """A dataset of (input, label, extra)."""

    def __len__(self):
        return len(DATA)

    def __getitem__(self, index):
        return DATA[index], index % 2, "extra"


class Arrays(Pairs):
    def __getitem__(self, index):
        return DATA[index].numpy()


@pytest.mark.parametrize("data", [Pairs(), TensorDataset(DATA, torch.arange(9)), Arrays(), DATA.numpy(), DATA.float()])
def test_any_data_draws_the_same(data):
    assert torch.equal(_drawn(rt.references.Sample(data), 4), _drawn(rt.references.Sample(DATA), 4))
    assert len(rt.references.Sample(data)) == 9
    assert "9 examples" in repr(rt.references.Sample(data))


def test_references_take_the_precision_of_the_inputs():
    problem = vectors()
    for space in (rt.spaces.Input(), rt.spaces.Layer("0")):
        view = space.open(problem.model, problem.inputs)
        for data in (DATA.float(), DATA.half(), DATA):
            assert rt.references.Sample(data).draw(view, 2, draws(0)).all(4).dtype == torch.float64


def test_token_numbers_are_drawn_as_tokens():
    problem = tokens()
    view = problem.space.open(problem.model, problem.inputs)
    data = torch.randint(11, (5, 4), generator=draws(1))
    drawn = rt.references.Sample(data).draw(view, 5, draws(0)).all(3)
    embedded = problem.model.embedding(data)
    for b in range(3):
        assert {tuple(r.flatten().tolist()) for r in drawn[b]} == {tuple(r.flatten().tolist()) for r in embedded}


def test_boolean_parts_stay_boolean():
    class Masked(torch.nn.Module):
        def forward(self, x, mask):
            assert mask.dtype == torch.bool
            return x * mask

    x, mask = normal(3, 6, seed=1), torch.ones(3, 6, dtype=torch.bool)
    reference = rt.references.Sample((DATA.float(), torch.ones(9, 6, dtype=torch.bool)))
    method = rt.ExpectedGradients(reference, n_samples=2)
    assert method(Masked(), (x, mask), torch.tensor([0, 1, 2])).attributions.shape == (3, 6)


LABELS = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 2])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"labels": LABELS, "label": 1}, {2, 3, 4}),
        ({"predicate": lambda x: x[:, 0] > 6}, {7, 8}),
        ({"labels": LABELS, "label": 2, "predicate": lambda x: x[:, 0] < 7}, {5, 6}),
    ],
)
def test_where_draws_from_its_subgroup_only(arguments, expected):
    where = rt.references.Where(DATA, **arguments)
    assert len(where) == len(expected)
    drawn = _drawn(where, len(expected))
    assert all(set(row) == expected for row in drawn.tolist())


def test_where_filters_every_part():
    where = rt.references.Where((DATA, LABELS[:, None]), labels=LABELS, label=1)
    assert where.data[0][:, 0].tolist() == [2, 3, 4]
    assert where.data[1].flatten().tolist() == [1, 1, 1]


def test_where_nobody_is_says_how_many_there_were():
    with pytest.raises(ArgumentError, match="0 of 9 with label 7"):
        rt.references.Where(DATA, labels=LABELS, label=7)


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_in_batch_is_never_the_example_itself(batch):
    view = _view(batch)
    drawn = rt.references.InBatch().draw(view, 9, draws(0)).all(batch)
    for b in range(batch):
        for k in range(9):
            assert torch.equal(drawn[b, k], view.coordinates[(b + 1 + k % max(batch - 1, 1)) % batch])
            assert torch.equal(drawn[b, k], view.coordinates[b]) == (batch == 1)
    others = {tuple(row.tolist()) for row in drawn[0]}
    assert len(others) == max(batch - 1, 1)


@pytest.mark.parametrize(
    "value", [0.3, torch.tensor(0.3, dtype=torch.float64), torch.full((6,), 0.3, dtype=torch.float64)]
)
def test_constants_keep_their_digits(value):
    drawn = rt.references.Constant(value).draw(_view(), 2, draws(0)).all(4)
    assert drawn.shape == (4, 2, 6)
    assert bool((drawn == 0.3).all())


def test_constants_may_be_whole_or_boolean():
    for value in (1, True, torch.ones(6, dtype=torch.long)):
        drawn = rt.references.Constant(value).draw(_view(), 1, draws(0)).all(4)
        assert drawn.dtype == torch.float64
        assert bool((drawn == 1).all())


def test_noise_has_its_spread():
    view = _view()
    drawn = rt.references.Noise(0.5).draw(view, 4000, draws(0)).all(4) - view.coordinates[:, None]
    assert drawn.std() == pytest.approx(0.5, rel=0.02)
    assert drawn.mean().abs() < 0.01


def _slow_blur(signal, sigma):
    reach, size, found = math.ceil(3 * sigma), len(signal), []
    weights = [math.exp(-0.5 * (s / sigma) ** 2) for s in range(-reach, reach + 1)]
    for i in range(size):
        values = [signal[min(max(i + s, 0), size - 1)] for s in range(-reach, reach + 1)]
        found.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
    return found


def test_blur_is_a_gaussian_with_repeated_edges():
    view = _view()
    drawn = rt.references.Blur(0.8, dims=1).draw(view, 2, draws(0)).all(4)
    for b in range(4):
        expected = torch.tensor(_slow_blur(view.coordinates[b].tolist(), 0.8), dtype=torch.float64)
        assert torch.allclose(drawn[b, 0], expected, rtol=0, atol=1e-14)
        assert torch.equal(drawn[b, 0], drawn[b, 1])


def test_blur_of_pictures_is_separable_and_leaves_channels_apart():
    x = normal(2, 3, 5, 7, seed=1)
    view = rt.spaces.Input().open(lambda x: x, x)
    drawn = rt.references.Blur(1.0).draw(view, 1, draws(0)).all(2)[:, 0]
    rows = torch.tensor([[[_slow_blur(r, 1.0) for r in c] for c in picture] for picture in x.tolist()]).double()
    both = torch.tensor([[[_slow_blur(r, 1.0) for r in zip(*c, strict=True)] for c in p] for p in rows.tolist()])
    assert torch.allclose(drawn, both.transpose(2, 3).double(), atol=1e-6)
    flat = torch.full((1, 1, 4, 4), 0.3, dtype=torch.float64)
    again = rt.references.Blur(2.0).draw(rt.spaces.Input().open(lambda x: x, flat), 1, draws(0)).all(1)
    assert torch.allclose(again[:, 0], flat, rtol=0, atol=1e-15)
