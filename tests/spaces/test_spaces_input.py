"""The space of the model's inputs."""

import pytest
import torch
from torch import nn

import rightly as rt
from rightly.core.errors import ArgumentError

A = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
B = torch.randn(3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
ROWS = torch.tensor([2, 0])


def _product(a, b=None, flag=True):
    assert flag
    return a if b is None else a * b.sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("inputs", "name", "own", "other"),
    [
        (A, 0, A, None),
        ((A, B), 0, A, B),
        ([A, B], 1, B, A),
        ((A, B), -1, B, A),
        ({"a": A, "b": B}, "b", B, A),
        ({"b": B, "a": A, "flag": True}, "a", A, B),
    ],
)
def test_the_chosen_input_is_replaced_and_the_others_stay(inputs, name, own, other):
    view = rt.spaces.Input(name).open(_product, inputs)
    assert view.coordinates is own
    points = own[ROWS] + 1
    if other is None:
        expected = points
    else:
        first, second = (points, other[ROWS]) if own is A else (other[ROWS], points)
        expected = _product(first, second)
    assert torch.equal(view.rest(points, ROWS), expected)
    assert torch.equal(view.encode(inputs), own)


def test_structured_outputs_are_read():
    model = lambda x: {"logits": x, "loss": None}  # noqa: E731
    assert torch.equal(rt.spaces.Input().open(model, A).rest(A, torch.arange(3)), A)


def test_token_numbers_point_to_the_embedding():
    with pytest.raises(ArgumentError, match=r"rt\.spaces\.Layer\('embedding'\)"):
        rt.Gradient()(nn.Embedding(5, 3), torch.tensor([[1, 2]]), torch.tensor([0]))


def test_a_dict_needs_the_name():
    with pytest.raises(ArgumentError, match=r"\['x', 'mask'\]"):
        rt.spaces.Input().open(_product, {"x": A, "mask": B})
