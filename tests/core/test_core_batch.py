"""Inputs as PyTorch models take them."""

from collections import UserDict
from types import SimpleNamespace

import pytest
import torch

from rightly.core import batch
from rightly.core.errors import ArgumentError, ShapeError

A, B = torch.arange(6.0).reshape(3, 2), torch.arange(3)


@pytest.mark.parametrize(
    "inputs", [A, (A, B), [A, B, None, "flag"], {"a": A, "b": B, "flag": True}, (A, torch.tensor(2.0))]
)
def test_rows_are_counted(inputs):
    assert batch.rows(inputs) == 3


@pytest.mark.parametrize("inputs", [(A, A[:2]), torch.tensor(1.0), (), {}, {"flag": True}, A[:0]])
def test_what_has_no_rows_is_refused(inputs):
    with pytest.raises(ShapeError):
        batch.rows(inputs)


@pytest.mark.parametrize("inputs", [None, 3, "abc", A.numpy()])
def test_what_is_no_input_is_refused(inputs):
    with pytest.raises(ArgumentError, match="cannot be read"):
        batch.rows(inputs)


def test_taking_keeps_the_container_and_what_is_no_batch():
    index = torch.tensor([2, 0, 2])
    assert torch.equal(batch.take(A, index), A[[2, 0, 2]])
    a, b, flag, scale = batch.take((A, B, "flag", torch.tensor(2.0)), index)
    assert (a.shape, b.tolist(), flag, float(scale)) == ((3, 2), [2, 0, 2], "flag", 2.0)
    taken = batch.take(UserDict(a=A, on=True), index)
    assert taken["on"] is True
    assert isinstance(batch.take([A, B], index), list)


def test_taking_copies():
    taken = batch.take(A, torch.arange(3))
    taken.zero_()
    assert A.any()


def test_calling():
    def model(a, b=None):
        return a if b is None else a + b[:, None]

    assert batch.call(model, A) is A
    assert torch.equal(batch.call(model, (A, B)), A + B[:, None])
    assert torch.equal(batch.call(model, {"b": B, "a": A}), A + B[:, None])


def test_outputs():
    assert batch.outputs_of(A) is A
    assert batch.outputs_of({"logits": A, "loss": 1}) is A
    assert batch.outputs_of(SimpleNamespace(logits=A)) is A
    for raw in ((A, B), {"scores": A}, None, SimpleNamespace(logits=None)):
        with pytest.raises(ArgumentError, match="cannot be read"):
            batch.outputs_of(raw)
