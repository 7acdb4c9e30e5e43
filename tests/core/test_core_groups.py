"""Groups are numbered by the entries of their columns, and summed over one by one."""

import pytest
import torch

from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.groups import group_numbers, group_sums

LABELS = torch.tensor([1, 0, 1, 1, 0])
SHADES = torch.tensor([3, 3, 7, 3, 3])


def test_a_column_is_numbered_in_its_order():
    numbers, entries = group_numbers(torch.tensor([7, 3, 7, 5]), 4)
    assert numbers.tolist() == [2, 0, 2, 1]
    assert entries.tolist() == [[3], [5], [7]]


@pytest.mark.parametrize("groups", [[LABELS, SHADES], torch.stack([LABELS, SHADES], 1), (LABELS.bool(), SHADES)])
def test_columns_make_a_group_of_equal_rows(groups):
    numbers, entries = group_numbers(groups, 5)
    assert numbers.tolist() == [1, 0, 2, 1, 0]
    assert entries.tolist() == [[0, 3], [1, 3], [1, 7]]


def test_sums_are_those_of_a_loop_and_keep_their_graph():
    values = torch.arange(5.0, dtype=torch.float64, requires_grad=True)
    sums, counts = group_sums(values, torch.tensor([1, 3, 1, 0, 3]), 5)
    assert sums.tolist() == [3, 2, 0, 5, 0]
    assert counts.tolist() == [1, 2, 0, 2, 0]
    (sums * torch.tensor([1, 10, 100, 1000, 0])).sum().backward()
    assert values.grad.tolist() == [10, 1000, 10, 1, 1000]


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        (torch.rand(5), ArgumentError, "float32"),
        (["a", "b"], ArgumentError, "str"),
        ([], ArgumentError, "cannot be read"),
        (LABELS[:4], ShapeError, "5 rows"),
        ([LABELS, SHADES[:4]], ShapeError, "5 rows"),
        ([LABELS, torch.stack([LABELS, SHADES], 1)], ShapeError, "5 rows"),
        (LABELS.reshape(5, 1, 1), ShapeError, "5 rows"),
        (torch.tensor(1), ShapeError, "5 rows"),
    ],
)
def test_what_are_no_groups_is_refused(groups, error, message):
    with pytest.raises(error, match=message):
        group_numbers(groups, 5)


def test_no_rows_have_no_groups():
    with pytest.raises(ShapeError, match="0 rows"):
        group_numbers(LABELS[:0], 0)
