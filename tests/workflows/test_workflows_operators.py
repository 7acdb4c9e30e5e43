"""The support page is made by trying every layer; here every line of it has to be a yes."""

from __future__ import annotations

import pytest
import torch

from rightly.workflows import operators


@pytest.mark.parametrize("name", operators.LAYERS)
def test_layers_are_taken(name):
    assert operators.try_layer(name).problem is None


@pytest.mark.parametrize("name", operators.FUNCTIONS)
def test_functions_are_taken(name):
    assert operators.try_function(name).problem is None


def test_almost_every_layer_of_torch_is_tried():
    assert len(operators.untried()) <= 10
    assert len(operators.LAYERS) >= 90


def test_what_is_not_taken_says_so(monkeypatch):
    monkeypatch.setitem(operators.FUNCTIONS, "i0", torch.special.i0)
    monkeypatch.setitem(operators.FUNCTIONS, "a decision", lambda x: (x > 0).double())
    assert "without a rule" in operators.try_function("i0").problem
    assert "got lost" not in operators.try_function("x + y, x - y, 2 - x").operations
    assert operators.try_function("a decision").problem
