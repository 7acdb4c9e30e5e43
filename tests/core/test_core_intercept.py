"""Carrying a second quantity through a model: names, operations in place, views, and what has no rule."""

from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rightly.core import intercept
from rightly.core.intercept import Carrier, Unsupported


class Doubled(Carrier):
    """Carries nothing but the value itself, through a handful of rules."""

    rules: ClassVar[dict] = {}


def _out_of_place(func, args, kwargs):
    return Doubled(func(*(intercept.replaced(arg, lambda c: c.total) for arg in args), **kwargs))


def _view(func, args, kwargs):
    result = _out_of_place(func, args, kwargs)
    result.shares(args[0])
    return result


Doubled.rules = dict.fromkeys(("add", "sub", "relu", "leaky_relu", "mul", "cat", "hardtanh"), _out_of_place)
Doubled.rules |= {"getitem": _view, "view": _view, "shape": lambda func, args, kwargs: func(args[0].total)}


def carried(*values):
    return Doubled(torch.tensor(values or (1.0, -2.0, 3.0)))


@pytest.mark.parametrize(
    ("func", "name", "in_place"),
    [
        (torch.add, "add", False),
        (torch.Tensor.add, "add", False),
        (torch.Tensor.add_, "add", True),
        (torch.Tensor.__add__, "add", False),
        (torch.Tensor.__radd__, "radd", False),
        (torch.Tensor.__iadd__, "add", True),
        (torch.Tensor.__imul__, "mul", True),
        (torch.Tensor.__invert__, "invert", False),
        (torch.Tensor.__getitem__, "getitem", False),
        (torch.Tensor.shape.__get__, "shape", False),
        (F.relu, "relu", False),
        (torch.relu_, "relu", True),
        (torch.Tensor.clamp_, "clamp", True),
        (torch.max_pool2d, "max_pool2d", False),
    ],
)
def test_one_name_for_one_thing(func, name, in_place):
    found, plain, where = intercept.operation(func)
    assert (found, where) == (name, in_place)
    if in_place:
        assert not plain.__name__.endswith("_")


def test_values_go_the_way_of_the_model():
    model = nn.Sequential(nn.ReLU(), nn.LeakyReLU(0.1), nn.Hardtanh())
    found = model(carried())
    assert isinstance(found, Doubled)
    assert torch.equal(found.total, torch.tensor([1.0, 0.0, 1.0]))


def test_what_has_no_rule_is_an_error():
    with pytest.raises(Unsupported, match="no rule for exp"):
        carried().exp()
    with pytest.raises(Unsupported, match="was not seen as a function"), torch._C.DisableTorchFunctionSubclass():
        carried().exp()


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.add_(1.0),
        lambda x: x.__iadd__(1.0),
        lambda x: F.relu(x, inplace=True),
        lambda x: F.leaky_relu(x, 0.1, True),
        lambda x: torch.relu_(x),
        lambda x: F.hardtanh(x, -1.0, 1.0, True),
        lambda x: x.mul_(2.0).add_(1.0),
    ],
)
def test_operations_in_place_change_the_carrier_and_nothing_else(change):
    value = torch.tensor([1.0, -2.0, 3.0])
    expected = value.clone()
    change(expected)
    carrier = Doubled(value)
    assert change(carrier) is carrier
    assert torch.equal(carrier.total, expected)
    assert torch.equal(value, torch.tensor([1.0, -2.0, 3.0]))


def test_a_view_that_was_written_is_not_read_through_another():
    whole = carried()
    part = whole[:2]
    part.relu_()
    assert torch.equal(part.add(1.0).total, torch.tensor([2.0, 1.0]))
    with pytest.raises(Unsupported, match="add reads a tensor that was changed in place through a view of it"):
        whole.add(1.0)


def test_a_view_is_not_read_once_its_whole_was_written():
    whole = carried()
    part = whole.view(3, 1)[:2]
    whole.relu_()
    whole.add(1.0)
    with pytest.raises(Unsupported, match="through a view"):
        torch.cat([part, part])
    with pytest.raises(Unsupported, match="through a view"):
        torch.cat(tensors=[part])


def test_copies_are_not_views():
    whole = carried()
    copy = whole + 0
    whole.relu_()
    assert torch.equal(copy.add(1.0).total, torch.tensor([2.0, -1.0, 4.0]))


def test_values_taken_out_end_operations_in_place():
    carrier = carried()
    carrier.memory.lent = True
    carrier.add(1.0)
    with pytest.raises(Unsupported, match="after its values were taken out"):
        carrier.add_(1.0)


def test_a_plain_tensor_takes_nothing_in():
    plain = torch.zeros(3)
    with pytest.raises(Unsupported, match="add writes what is carried into a plain tensor"):
        plain.add_(carried())
    assert torch.equal(plain, torch.zeros(3))


def test_the_carriers_among_arguments():
    a, b = carried(), carried()
    plain = torch.ones(3)
    found = list(intercept.carriers((a, [plain, b], 2), {"other": a}))
    assert [carrier is expected for carrier, expected in zip(found, (a, b, a), strict=True)] == [True] * 3
    changed = intercept.replaced((plain, b), lambda carrier: carrier.total)
    assert changed[0] is plain
    assert changed[1] is b.total
