"""Annotations: any row may be missing, and examples are lined up with examples."""

import math

import pytest
import torch
from torch import nan

import rightly as rt
from rightly.core.annotation import needed
from rightly.core.errors import AnnotationError


def _known(value, shape, name="targets"):
    return rt.Annotation(**{name: value}).known(name, torch.zeros(shape))


def test_unknown_entries_are_zero_and_named():
    values, known = _known(torch.tensor([[1.0, nan], [nan, 2.0]]), (2, 2))
    assert values.tolist() == [[1.0, 0.0], [0.0, 2.0]]
    assert known.tolist() == [[True, False], [False, True]]


def test_a_list_may_have_holes():
    note = rt.Annotation(irrelevant=[None, torch.tensor([True, False]), None])
    values, known = note.known("irrelevant", torch.zeros(3, 2))
    assert len(note) == 3
    assert values.tolist() == [[0, 0], [1, 0], [0, 0]]
    assert known.any(1).tolist() == [False, True, False]


def test_a_list_keeps_its_precision():
    third = torch.tensor([1 / 3], dtype=torch.float64)
    values, _ = rt.Annotation(targets=[third, None]).known("targets", torch.zeros(2, 1, dtype=torch.float64))
    assert values[0, 0] == third


@pytest.mark.parametrize(
    ("shape", "like"),
    [((4, 3, 5), (4, 3, 5)), ((1, 3, 5), (4, 3, 5)), ((4, 1, 5), (4, 3, 5)), ((4, 5), (4, 3, 5)), ((4,), (4, 3, 5))],
)
def test_features_broadcast(shape, like):
    value = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    values, known = _known(value, like)
    assert values.shape == like
    assert known.all()
    for b in range(4):
        own = value[b if len(value) == 4 else 0]
        assert torch.equal(values[b], own.expand(like[1:]))


def test_examples_are_lined_up_with_examples_and_not_with_channels():
    """(B, H, W) for (B, C, H, W) with B = C: plain broadcasting would take examples for channels."""
    boxes = torch.zeros(2, 3, 3)
    boxes[0, 0, 0] = 1
    values, _ = _known(boxes, (2, 2, 3, 3))
    assert values[0, :, 0, 0].tolist() == [1, 1]
    assert not values[1].any()


@pytest.mark.parametrize("shape", [(5,), (3, 5), (4, 4), (4, 2, 5), (4, 1, 1, 5), (3, 3, 5)])
def test_what_does_not_fit_is_refused(shape):
    with pytest.raises(AnnotationError, match="does not fit"):
        _known(torch.zeros(shape), (4, 3, 5))


def test_taking_rows():
    note = rt.Annotation(relevant=torch.arange(6.0).reshape(3, 2), targets=torch.ones(1, 2))
    some = note.take(torch.tensor([2, 0]))
    assert some.relevant.tolist() == [[4, 5], [0, 1]]
    assert some.targets.shape == (1, 2)
    assert len(some) == 2
    assert some.irrelevant is None


def test_moving_keeps_everything():
    note = rt.Annotation(relevant=torch.ones(2, 3)).to("cpu")
    assert note.relevant.shape == (2, 3)
    assert len(rt.Annotation()) == 0


def test_a_missing_annotation_says_which_prior_field_is_needed():
    for note in (None, rt.Annotation(), rt.Annotation(targets=torch.ones(1, 2))):
        with pytest.raises(AnnotationError, match=r"annotation\.relevant"):
            needed(note, "relevant", torch.zeros(1, 2))


def test_infinite_values_are_refused():
    with pytest.raises(AnnotationError, match="infinite"):
        rt.Annotation(targets=torch.tensor([[math.inf]]))
