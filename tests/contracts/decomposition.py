"""Checks on contextual decomposition, each on a model with a batch; every one has planted defects in ``controls``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import rightly as rt
from contracts.problems import draws
from rightly.attributions.decomposition import coverage

#: the contract, relative to the largest output in float64
CLOSE = 1e-10
#: a check of a part that is nothing would say nothing
_LEAST = 1e-3


def regions_of(shape: tuple[int, ...], count: int = 4, seed: int = 30) -> Tensor:
    """(R, *F): random regions with two fifths of the features."""
    return torch.rand(count, *shape, generator=draws(seed)) < 0.4


def split(case: Any, regions: Tensor, **options: Any) -> Any:
    return rt.contextual_decomposition(case.model, case.inputs, regions, **options)


def _plain(case: Any) -> Tensor:
    with torch.no_grad():
        return case.model(case.inputs)


def _compare(found: Tensor, expected: Tensor, size: Tensor, what: str) -> float:
    gap = float((found - expected).abs().max() / size)
    assert gap <= CLOSE, f"{what}: off by {gap:.1e} of the largest output"
    return gap


def _divided(found: Any) -> Tensor:
    """What there is to be divided: the outputs, from those of the reference on where there is one."""
    return found.outputs if found.reference is None else found.outputs - found.reference


def _moving(parts: Tensor, size: Tensor) -> None:
    assert float(parts.abs().max() / size) > _LEAST, "the parts are nothing here, so that nothing was checked"


def check_outputs(case: Any, **options: Any) -> float:
    """The outputs are the model's own."""
    plain = _plain(case)
    found = split(case, regions_of(case.shape), **options)
    assert found.irrelevant.shape == found.relevant.shape
    return _compare(found.outputs, plain, plain.abs().max(), "outputs")


def check_sum(case: Any, **options: Any) -> float:
    """Part and part of everything else, each found on its own, are the output.

    Under rules that treat both parts alike only: where interactions go to the other part by rule, the complement's
    part is not what was left over.
    """
    regions, size = regions_of(case.shape), _plain(case).abs().max()
    found = split(case, regions, **options)
    one, other, whole = found.relevant, split(case, ~regions, **options).relevant, _divided(found)
    _moving(one, size)
    return _compare(one + other, whole.unsqueeze(1).expand_as(one), size, "the parts do not add up")


def check_edges(case: Any, **options: Any) -> float:
    """An empty region gets nothing, a full one everything, also among others."""
    regions = regions_of(case.shape)
    regions[0], regions[2] = False, True
    plain, found = _plain(case), split(case, regions, **options)
    size, parts = plain.abs().max(), found.relevant
    _moving(parts[:, [1, 3]], size)
    empty = _compare(parts[:, 0], torch.zeros_like(plain), size, "an empty region gets something")
    return max(empty, _compare(parts[:, 2], _divided(found), size, "a full region does not get everything"))


def check_reference(case: Any) -> float:
    """What belongs to nobody is the model's own output at the reference, by itself."""
    found = split(case, regions_of(case.shape), convention="reference")
    with torch.no_grad():
        plain = case.model(torch.zeros_like(case.inputs))
    return _compare(found.reference, plain, _plain(case).abs().max(), "outputs at the reference")


def check_loop(case: Any, **options: Any) -> float:
    """All regions at once are each on its own, whatever the chunk, and as regions of each example's own."""
    regions, size = regions_of(case.shape, 5), _plain(case).abs().max()
    whole = split(case, regions, **options).relevant
    alone = torch.cat([split(case, region[None], **options).relevant for region in regions], 1)
    worst = _compare(whole, alone, size, "regions together and alone")
    chunked = split(case, regions, chunk_size=2, **options).relevant
    worst = max(worst, _compare(chunked, whole, size, "chunks"))
    own = torch.stack([regions.roll(b, 0) for b in range(len(case.inputs))])
    found = split(case, own, **options).relevant
    for b in range(len(case.inputs)):
        worst = max(worst, _compare(found[b], whole[b].roll(b, 0), size, "regions of each example's own"))
    return worst


def check_examples(case: Any, **options: Any) -> float:
    """Each example is decomposed as if it came alone, in any order."""
    regions, size = regions_of(case.shape), _plain(case).abs().max()
    whole = split(case, regions, **options).relevant
    turned = rt.contextual_decomposition(case.model, case.inputs.flip(0), regions, **options).relevant.flip(0)
    worst = _compare(turned, whole, size, "examples in another order")
    for b in range(len(case.inputs)):
        alone = rt.contextual_decomposition(case.model, case.inputs[b : b + 1], regions, **options).relevant
        worst = max(worst, _compare(alone[0], whole[b], size, "examples alone"))
    return worst


def check_covered(case: Any) -> float:
    """``coverage`` takes the model as it is: it tries the whole input, and a half and its complement."""
    found = coverage(case.model, case.inputs)
    assert found.ok, f"not covered: {found.problem}"
    return found.gap
