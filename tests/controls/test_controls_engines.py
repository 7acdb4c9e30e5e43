"""Defects planted inside the frozen-mask engine: the zoo finds each."""

from __future__ import annotations

import pytest
import torch

import rightly as rt
from contracts.engines import check_engine
from contracts.zoo import case
from rightly.core.frozen import FrozenMasks, kernels, table, work


def _linear_in_outputs(patch):
    own = work.Work.__init__

    def forgetful(self, *args):
        own(self, *args)
        self.slope = self.slope.detach()

    patch.setattr(work.Work, "__init__", forgetful)


def _every_unit_active(patch):
    def relu(func, args, kwargs):
        return table.record(args[0], torch.relu(args[0].total), lambda t: t)

    patch.setitem(table.RULES, "relu", relu)


def _weights_without_tangents(patch):
    patch.setattr(work.Work, "_tangents", lambda self, cotangent, sums: None)


def _other_columns(patch):
    own = kernels.convolution_pull

    def pull(weight, geometry):
        send = own(weight, geometry)
        return lambda cotangent, source: send(cotangent, source.flip(-1))

    patch.setattr(kernels, "convolution_pull", pull)


def _other_winners(patch):
    own = kernels.max_pool

    def pool(*args):
        result, index = own(*args)
        return result, index.roll(1, -1)

    patch.setattr(kernels, "max_pool", pool)


def _summands_without_gradient(patch):
    patch.setattr("rightly.core.frozen.rules.constant", lambda tape, item: item)


DEFECTS = {
    "the explained number taken for linear": (_linear_in_outputs, "mlp"),
    "every unit taken for active": (_every_unit_active, "mlp"),
    "only the outputs' part": (_weights_without_tangents, "mlp"),
    "a wrong weight gradient": (_other_columns, "2-D"),
    "winners in the wrong place": (_other_winners, "residual"),
    "summands without their gradient": (_summands_without_gradient, "positions"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_inside_the_engine_is_found(defect, monkeypatch):
    plant, name = DEFECTS[defect]
    method = rt.ExpectedGradients(n_samples=2, output="loss")
    check_engine(FrozenMasks(), case(name), method)
    plant(monkeypatch)
    with pytest.raises(AssertionError, match=r"differ by"):
        check_engine(FrozenMasks(), case(name), method)
