"""Masks of largest gradients and how alike models are, against loops written from the definitions."""

import math
from dataclasses import replace

import pytest
import torch

import rightly as rt
from rightly.core.errors import ArgumentError, ShapeError
from rightly.discovery import gradient_similarity, largest_gradient_mask, mask_overlap
from rightly.discovery.result import Finding, distinct
from rightly.training import Run


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("cutoff", [0, 0.3, 0.67, 0.99])
def test_the_mask_is_what_a_loop_marks(cutoff):
    gradients = normal(5, 2, 3, 4)
    found = largest_gradient_mask(gradients, cutoff)
    for example, marked in zip(gradients.flatten(1).tolist(), found.flatten(1).tolist(), strict=True):
        most = max(abs(value) for value in example)
        assert marked == [abs(value) > cutoff * most for value in example]
    assert found.dtype == torch.bool
    assert found.shape == gradients.shape


def test_the_mask_knows_neither_scale_nor_sign_and_marks_nothing_of_nothing():
    gradients = normal(4, 6)
    scales = torch.tensor([[1e-12], [1.0], [-3.0], [1e9]], dtype=torch.float64)
    assert torch.equal(largest_gradient_mask(gradients * scales), largest_gradient_mask(gradients))
    assert not largest_gradient_mask(torch.zeros(2, 3)).any()
    assert largest_gradient_mask(torch.tensor([[0.67, 1.0, -0.7]]), 0.67).tolist() == [[False, True, True]]


def test_similarity_is_what_a_loop_says():
    gradients = normal(3, 4, 2, 5)
    gradients[1, 2] = 0
    found = gradient_similarity(gradients)
    for a in range(3):
        for b in range(3):
            total = 0.0
            for v, w in zip(gradients[a].flatten(1).tolist(), gradients[b].flatten(1).tolist(), strict=True):
                sizes = math.sqrt(sum(x * x for x in v) * sum(y * y for y in w))
                total += abs(sum(x * y for x, y in zip(v, w, strict=True))) / sizes if sizes else 0.0
            assert float(found[a, b]) == pytest.approx(total / 4, abs=1e-12)


def test_similarity_has_its_closed_forms():
    flat = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]], [[-3.0, 3.0]]])
    expected = torch.tensor([[1, 0, 0.5**0.5], [0, 1, 0.5**0.5], [0.5**0.5, 0.5**0.5, 1]])
    assert torch.allclose(gradient_similarity(flat), expected, atol=1e-6)
    assert torch.allclose(gradient_similarity(1e-25 * flat), expected, atol=1e-6)


def test_overlap_is_what_a_loop_says():
    masks = normal(3, 6, 4, seed=2) > 0.4
    masks[:, 1] = False
    found = mask_overlap(masks)
    for a in range(3):
        for b in range(3):
            shares = []
            for one, other in zip(masks[a].tolist(), masks[b].tolist(), strict=True):
                both = sum(x and y for x, y in zip(one, other, strict=True))
                either = sum(x or y for x, y in zip(one, other, strict=True))
                shares += [both / either] if either else []
            assert float(found[a, b]) == pytest.approx(sum(shares) / len(shares))
    assert not mask_overlap(torch.zeros(2, 3, 4, dtype=torch.bool)).any()


def findings(*scores):
    model = torch.nn.Identity()
    return [Finding(model, Run(), 0.0, train=1.0, validation=score, marked=0.1, better=True) for score in scores]


def test_models_count_if_they_are_accurate_and_different():
    similarity = torch.tensor([[1, 0.7, 0.1, 0.2], [0.7, 1, 0.2, 0.3], [0.1, 0.2, 1, 0.4], [0.2, 0.3, 0.4, 1]])
    four = findings(0.9, 0.9, 0.86, 0.7)
    assert distinct(four, similarity, 0.05, 0.5) == (0, 2)
    assert distinct(four, similarity, 0.3, 0.5) == (0, 2, 3)
    assert distinct(four, similarity, 0.05, 0.8) == (0, 1, 2)
    # the inaccurate first one takes no one's place, nor does one that knows nothing
    assert distinct(findings(0.5, 0.9, 0.9), similarity[:3, :3], 0.05, 0.5) == (1, 2)
    assert distinct([replace(four[0], better=False), *four[1:]], similarity, 0.05, 0.5) == (1, 2)
    assert distinct([replace(found, better=False) for found in four], similarity, 0.05, 0.5) == ()
    assert distinct([replace(found, better=None) for found in four], similarity, 0.05, 0.5) == (0, 2)


BAD = {
    "cutoff of one": (lambda: largest_gradient_mask(normal(2, 3), 1), ArgumentError, "cutoff"),
    "negative cutoff": (lambda: largest_gradient_mask(normal(2, 3), -0.1), ArgumentError, "cutoff"),
    "cutoff in words": (lambda: largest_gradient_mask(normal(2, 3), "0.5"), ArgumentError, "cutoff"),
    "no features": (lambda: largest_gradient_mask(normal(3)), ShapeError, "features"),
    "one model": (lambda: gradient_similarity(normal(2, 3)), ShapeError, "stacked"),
    "one mask": (lambda: mask_overlap(normal(2, 3) > 0), ShapeError, "stacked"),
    "no eps": (lambda: rt.priors.Independence(0), ArgumentError, "eps"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_refused(case):
    call, error, words = BAD[case]
    with pytest.raises(error, match=words):
        call()
