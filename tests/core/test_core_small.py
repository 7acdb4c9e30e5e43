"""Errors, checks, extras, progress, Gini, and sums over a single process."""

import io
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contracts import oracles
from rightly.core import checks, distributed, errors, extras, progress
from rightly.core.gini import gini


def test_an_error_keeps_its_parts():
    error = errors.ShapeError("wrong", expected=(2,), got=(3,), mend="transpose")
    assert str(error) == "wrong\n  expected: (2,)\n  got: (3,)\n  mend: transpose"
    assert (error.what, error.expected, error.got, error.mend) == ("wrong", (2,), (3,), "transpose")
    assert str(errors.ArgumentError("bare")) == "bare"
    assert isinstance(error, ValueError)
    assert isinstance(error, errors.RightlyError)


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", True, None])
def test_counts(value):
    with pytest.raises(errors.ArgumentError, match="n counts"):
        checks.check_count("n", value)


def test_counts_that_pass():
    assert checks.check_count("n", 1) == 1
    assert checks.check_count("n", 0, least=0) == 0


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), "1", True, None])
def test_numbers(value):
    with pytest.raises(errors.ArgumentError, match="x cannot be used"):
        checks.check_number("x", value, positive=False)


def test_numbers_that_pass():
    assert checks.check_number("x", 0, positive=False) == 0
    assert checks.check_number("x", 1e-300, positive=True) == 1e-300
    with pytest.raises(errors.ArgumentError):
        checks.check_number("x", 0.0, positive=True)


def test_missing_extras_say_what_to_install(monkeypatch):
    assert extras.require("math").pi > 3
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(sys.modules, "sklearn.metrics", raising=False)
    with pytest.raises(errors.MissingExtraError, match=r"rightly\[sklearn\]"):
        extras.require("sklearn.metrics")


def test_progress_is_silent_unless_wanted(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.bar("work", enabled=False) as report:
        assert report is None
    assert stream.getvalue() == ""
    with progress.bar("work", enabled=True) as report:
        report(1, 4)
        report(4, 4)
    assert "work: 4/4 (100 %)" in stream.getvalue()


def test_one_process_sums_nothing():
    values = torch.randn(4, 3)
    assert distributed.world_size() == 1
    assert distributed.rank() == 0
    assert distributed.global_sum(values) is values
    assert torch.equal(distributed.global_mean(values), values.mean(0))
    assert distributed.local_share(3, torch.device("cpu")) == 1.0


@given(st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=12))
def test_gini_is_the_sum_over_pairs(values):
    found = float(gini(torch.tensor(values, dtype=torch.float64)))
    assert found == pytest.approx(oracles.gini(values), abs=1e-10)
    assert -1e-12 <= found <= 1 - 1 / len(values) + 1e-12


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=8), st.floats(1e-6, 1e6))
def test_gini_does_not_care_about_scale_or_order(values, scale):
    vector = torch.tensor(values, dtype=torch.float64)
    assert float(gini(vector * scale)) == pytest.approx(float(gini(vector)), abs=1e-10)
    assert float(gini(vector.flip(0))) == pytest.approx(float(gini(vector)), abs=1e-12)


def test_gini_at_its_ends():
    assert float(gini(torch.ones(5, dtype=torch.float64))) == pytest.approx(0, abs=1e-15)
    assert float(gini(torch.eye(5, dtype=torch.float64)[0])) == pytest.approx(0.8)
    assert float(gini(torch.zeros(5))) == 0
    assert gini(torch.rand(2, 3, 7)).shape == (2, 3)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_gini_survives_any_scale(scale):
    values = torch.tensor([1.0, 2.0, 5.0]) * scale
    values.requires_grad_()
    value = gini(values)
    assert float(value.detach()) == pytest.approx(oracles.gini([1.0, 2.0, 5.0]), rel=1e-5)
    assert torch.autograd.grad(value, values)[0].isfinite().all()
