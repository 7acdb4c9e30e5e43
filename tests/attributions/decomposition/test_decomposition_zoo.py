"""Contextual decomposition of every kind of model: outputs, sums, empty and full regions, loops, examples."""

from __future__ import annotations

import pytest

from attributions.decomposition.models import ZOO
from contracts import decomposition as checks

CONVENTIONS = ["first", "shapley"]
#: models in which the examples of a batch meet: lengths that belong to their places, a branch on a sum over the batch
_TOGETHER = {"lstm, packed", "gru, packed", "functional"}


@pytest.mark.parametrize("convention", [*CONVENTIONS, "published"])
@pytest.mark.parametrize("name", ZOO)
def test_outputs_are_the_models(name, convention):
    checks.check_outputs(ZOO[name](), convention=convention)


@pytest.mark.parametrize("name", ZOO)
def test_the_parts_of_a_region_and_of_its_complement_add_up(name):
    checks.check_sum(ZOO[name](), convention="shapley")


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
