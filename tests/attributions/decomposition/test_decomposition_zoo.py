"""Contextual decomposition of every kind of model: outputs, sums, empty and full regions, loops, examples."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import rightly as rt
from attributions.decomposition.models import ZOO, vectors
from contracts import decomposition as checks

CONVENTIONS = ["first", "shapley", "reference"]
#: models in which the examples of a batch meet: lengths that belong to their places, a branch on a sum over the batch
_TOGETHER = {"lstm, packed", "gru, packed", "functional"}


@pytest.mark.parametrize("convention", [*CONVENTIONS, "published"])
@pytest.mark.parametrize("name", ZOO)
def test_outputs_are_the_models(name, convention):
    checks.check_outputs(ZOO[name](), convention=convention)


@pytest.mark.parametrize("convention", ["shapley", "reference"])
@pytest.mark.parametrize("name", ZOO)
def test_the_parts_of_a_region_and_of_its_complement_add_up(name, convention):
    checks.check_sum(ZOO[name](), convention=convention)


#: models whose reference is no point of the input (of words, no word), or that ask for the input's value on their way
_NO_POINT = {"functional", "written into"}


@pytest.mark.parametrize("name", [n for n in ZOO if n not in _NO_POINT and ZOO[n]().inputs.is_floating_point()])
def test_what_is_nobodys_is_the_output_at_the_reference(name):
    checks.check_reference(ZOO[name]())


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("name", ZOO)
def test_empty_regions_get_nothing_and_full_ones_everything(name, convention):
    checks.check_edges(ZOO[name](), convention=convention)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("name", ZOO)
def test_many_regions_are_each_on_its_own(name, convention):
    checks.check_loop(ZOO[name](), convention=convention)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("name", [name for name in ZOO if name not in _TOGETHER])
def test_examples_do_not_meet(name, convention):
    checks.check_examples(ZOO[name](), convention=convention)


def test_the_zoo_is_not_small():
    assert len(ZOO) >= 30


@pytest.mark.parametrize("convention", ["first", "shapley"])
def test_rounding_does_not_grow_with_depth(convention):
    """What rounding leaves of nothing is given no share of a bias: after 60 layers it would be everything."""
    layers = [layer for _ in range(60) for layer in (nn.Linear(16, 16), nn.ReLU())]
    checks.check_edges(vectors(nn.Sequential(*layers, nn.Linear(16, 3)), 16), convention=convention)


@pytest.mark.parametrize("convention", ["first", "shapley"])
def test_the_whole_stays_the_whole_through_batch_norms(convention):
    """A norm takes off most of what it gets: the rounding of it is large beside what is left."""
    layers = [layer for _ in range(30) for layer in (nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())]
    case = vectors(nn.Sequential(*layers, nn.Flatten(), nn.Linear(6 * 16, 3)), 6, 4, 4, batch=2)
    whole = torch.ones(1, *case.shape, dtype=torch.bool)
    found = rt.contextual_decomposition(case.model, case.inputs, whole, convention=convention)
    assert torch.equal(found.relevant[:, 0], found.outputs)


def test_the_whole_stays_the_whole_beside_large_biases():
    """What a layer makes is known up to the rounding of the bias that is added to it."""
    layers = [layer for _ in range(8) for layer in (nn.Linear(16, 16), nn.ReLU())]
    case = vectors(nn.Sequential(*layers), 16)
    with torch.no_grad():
        for layer in layers[::2]:
            layer.weight.mul_(1e-3)
            layer.bias.mul_(30.0)
    found = rt.contextual_decomposition(case.model, case.inputs, torch.ones(1, 16, dtype=torch.bool))
    assert torch.equal(found.relevant[:, 0], found.outputs)


@pytest.mark.parametrize("grad", [False, True], ids=["many at once, in blocks", "recorded"])
def test_regions_of_large_layers_are_each_on_its_own(grad):
    """Shares of what does not fit into a cache are taken block by block: of examples, regions and odd rests of them."""
    model = nn.Sequential(nn.Conv2d(1, 24, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24 * 13 * 13, 3))
    case = vectors(model, 1, 28, 28, batch=2)
    regions = checks.regions_of(case.shape, 21)
    whole = rt.contextual_decomposition(case.model, case.inputs, regions, create_graph=grad).relevant.detach()
    alone = [rt.contextual_decomposition(case.model, case.inputs, region[None]).relevant for region in regions]
    assert (whole - torch.cat(alone, 1)).abs().max() <= checks.CLOSE * whole.abs().max()
