"""The share of a constant: its gradient, its blocks, and what it keeps for the gradient."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import rightly as rt
from contracts.problems import draws, normal
from rightly.core.kernels import share as kernel
from rightly.core.kernels.share import share

#: shape, that of the shift, dimensions summed over
LAYERS = {
    "vectors": ((3, 4), (4,), (1,)),
    "a shift for each number": ((3, 4), (3, 4), (1,)),
    "a shift for each example": ((3, 4), (3, 1), (1,)),
    "images": ((3, 2, 4, 4), (2, 1, 1), (1, 2, 3)),
    "images, a shift for each example": ((3, 2, 4, 4), (3, 2, 1, 1), (1, 2, 3)),
    "examples summed over": ((3, 4, 2), (3, 4, 2), (0, 2)),
    "numbers": ((3, 4), (4,), None),
}


@pytest.fixture(params=[2**18, 5], ids=["one block", "many blocks"])
def blocks(request, monkeypatch):
    monkeypatch.setattr(kernel, "_BLOCK", request.param)


def _drawn(name: str, *parts: int):
    shape, shift, dims = LAYERS[name]
    sizes = (*parts, *shape), shape, shift
    return *(normal(*size, seed=seed).requires_grad_() for seed, size in enumerate(sizes)), dims


@pytest.mark.parametrize("given", [False, True], ids=["whole taken of the total", "whole given"])
@pytest.mark.parametrize("name", LAYERS)
def test_the_gradient_is_that_of_finite_differences(name, given, blocks):
    part, whole, shift, dims = _drawn(name)
    own = torch.full((), 0.3, dtype=torch.float64)

    def made(part, whole, shift):
        if given:
            return share(part, (whole + shift).detach(), shift, own, dims, 0.3, whole)
        return share(part, whole + shift, shift, own, dims, 0.3)

    assert torch.autograd.gradcheck(made, (part, whole, shift))


@pytest.mark.parametrize("given", [False, True], ids=["whole taken of the total", "whole given"])
@pytest.mark.parametrize("name", LAYERS)
def test_many_parts_at_once_are_each_on_its_own(name, given, blocks):
    parts, whole, shift, dims = _drawn(name, 3)
    owns, weights = torch.rand(3, generator=draws(1), dtype=torch.float64), normal(*parts.shape, seed=9)

    def made(part, own):
        if given:
            return share(part, (whole + shift).detach(), shift, own, dims, 0.3, whole)
        return share(part, whole + shift, shift, own, dims, 0.3)

    together = torch.func.vmap(made)(parts, owns)
    alone = torch.stack([made(part, own) for part, own in zip(parts, owns, strict=True)])
    with torch.no_grad():
        unrecorded = torch.func.vmap(made)(parts, owns)
    assert (together - alone).abs().max() <= 1e-14
    assert (unrecorded - alone).abs().max() <= 1e-14
    found, wanted = (torch.autograd.grad((x * weights).sum(), (parts, whole, shift)) for x in (together, alone))
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).abs().max() <= 1e-12


@pytest.mark.parametrize("name", LAYERS)
def test_blocks_do_not_cut_what_is_summed(name, monkeypatch):
    part, whole, shift, dims = _drawn(name)
    own, found = torch.full((), 0.3, dtype=torch.float64), []
    for size in (2**18, 5):
        monkeypatch.setattr(kernel, "_BLOCK", size)
        made = share(part, whole + shift, shift, own, dims, 0.3)
        found.append((made, *torch.autograd.grad(made.square().sum(), (part, whole, shift))))
    for one, other in zip(*found, strict=True):
        assert (one - other).abs().max() <= 1e-13


def test_one_part_of_many_that_are_the_same(blocks):
    """The part is the same for all, and only how large the regions are is not."""
    part, total, shift, owns = torch.zeros(4), torch.ones(4), torch.ones(4), torch.tensor([0.25, 0.5])
    with torch.no_grad():
        found = torch.func.vmap(lambda own: share(part, total, shift, own, (0,), 0.01, torch.zeros(4)))(owns)
    torch.testing.assert_close(found, owns[:, None].expand(2, 4))


def test_only_a_spent_part_is_written_over(blocks):
    part, total, shift = (each.detach() for each in _drawn("vectors")[:3])
    own = torch.zeros((), dtype=torch.float64)
    before = part.clone()
    with torch.no_grad():
        kept = share(part, total, shift, own, (1,), 0.01)
        assert torch.equal(part, before)
        found = share(part, total, shift, own, (1,), 0.01, spent=True)
    assert torch.equal(found, kept)
    assert found.data_ptr() == part.data_ptr()


def test_nothing_but_the_arguments_is_kept():
    part, total, shift, dims = _drawn("images")
    saved = []

    def keep(tensor):
        saved.append(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        own = torch.zeros((), dtype=torch.float64)
        share(part, total, shift, own, dims, 0.01)
    assert set(saved) <= {each.untyped_storage().data_ptr() for each in (part, total, shift, own)}


class _Changing(nn.Module):
    """Layers whose results are changed in place, which are what the shares keep."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.first, self.second, self.inplace = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1), inplace

    def forward(self, x):
        x = nn.functional.relu(self.first(x), inplace=self.inplace)
        y = self.second(x)
        if self.inplace:
            y += x
            y *= 2
        else:
            y = (y + x) * 2
        return nn.functional.max_pool2d(y, 2).flatten(1)


def test_what_a_model_changes_in_place_has_the_same_gradient():
    models = [_Changing(inplace).double() for inplace in (False, True)]
    models[1].load_state_dict(models[0].state_dict())
    region = torch.rand(1, 1, 4, 4, generator=draws(2)).round().bool()
    inputs, found = normal(2, 1, 4, 4, seed=3), []
    for model in models:
        parts = rt.contextual_decomposition(model, inputs, region, create_graph=True)
        total = parts.relevant.square().sum() + parts.outputs.square().sum()
        found.append(torch.autograd.grad(total, list(model.parameters())))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_outputs_that_are_changed_in_place_are_an_error_and_no_other_gradient():
    """The last layer's share keeps them."""
    model = nn.Linear(4, 3).double()
    found = rt.contextual_decomposition(
        model, normal(2, 4, seed=0), torch.tensor([[True, False, True, False]]), create_graph=True
    )
    relevant = found.relevant.square().sum()
    found.outputs.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        relevant.backward()
