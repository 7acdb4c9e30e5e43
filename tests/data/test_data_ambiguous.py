"""Data that two rules explain: the rules hold as told, in training and alone, and the draws are what they claim."""

import numpy as np
import pytest

import rightly as rt
from rightly.core.errors import ArgumentError


def colours(pictures):
    """The colour number of every pixel: (N, 5, 5)."""
    flat = pictures.transpose(0, 2, 3, 1).reshape(-1, 3)
    known = np.unique(flat, axis=0)
    assert len(known) == 4
    return np.array([(known == pixel).all(1).argmax() for pixel in flat]).reshape(-1, 5, 5)


def toy_rules(part):
    cells = colours(part.inputs)
    corners = [len({c[0, 0], c[0, 4], c[4, 0], c[4, 4]}) == 1 for c in cells]
    top = [len({*c[0, 1:4].tolist()}) == 3 for c in cells]
    return {"corners": np.array(corners), "top_middle": np.array(top)}


def quadrant_rules(part):
    assert np.abs(part.inputs).max() <= 1
    return {"first": part.inputs[:, 0] > 0, "second": part.inputs[:, 1] > 0}


def square_rules(part):
    picture = part.inputs[:, 0]
    background, white = picture.min((1, 2)), picture == 1
    rows, columns = white.any(2).sum(1), white.any(1).sum(1)
    assert (rows == columns).all()
    assert (white.sum((1, 2)) == rows**2).all()
    assert not ((background > 0.25) & (background < 0.45)).any()
    assert set(rows.tolist()) == {2, 3, 4, 6, 7, 8}
    return {"background": background > 0.35, "size": rows > 5}


MAKERS = {
    "toy_colors": (rt.data.toy_colors, toy_rules),
    "two_quadrants": (rt.data.two_quadrants, quadrant_rules),
    "confounded_squares": (rt.data.confounded_squares, square_rules),
}


@pytest.mark.parametrize("name", MAKERS)
def test_both_rules_tell_the_label_and_each_has_a_part_of_its_own(name):
    make, rules = MAKERS[name]
    data = make(3, 600, 600)
    for part in (data.train, data.test):
        assert part.inputs.dtype == np.float32
        assert part.labels.dtype == np.int64
        for says in rules(part).values():
            assert (says == part.labels).all()
    for own, part in data.alone.items():
        for rule, says in rules(part).items():
            right = (says == part.labels).mean()
            assert right == 1 if rule == own else 0.42 < right < 0.58, (own, rule)
    assert 0.42 < data.train.labels.mean() < 0.58


@pytest.mark.parametrize("name", MAKERS)
def test_the_seed_decides(name):
    make, _ = MAKERS[name]
    first, again, other = make(0, 50, 50), make(0, 50, 50), make(1, 50, 50)
    assert np.array_equal(first.train.inputs, again.train.inputs)
    assert not np.array_equal(first.train.inputs, other.train.inputs)
    assert not np.array_equal(first.train.inputs, first.test.inputs)
    # more rows of one part change no other
    assert np.array_equal(make(0, 50, 80).train.inputs, first.train.inputs)


def test_toy_colours_are_drawn_evenly_within_a_class():
    data = rt.data.toy_colors(0, 20_000, 10)
    cells = colours(data.train.inputs[data.train.labels == 0])
    assert np.abs(np.bincount(cells[:, 2, 2], minlength=4) / len(cells) - 0.25).max() < 0.02
    top = cells[:, 0, 1:4] @ np.array([16, 4, 1])
    assert len(np.unique(top)) == 40
    corners = cells[:, [0, 0, 4, 4], [0, 4, 0, 4]] @ np.array([64, 16, 4, 1])
    assert len(np.unique(corners)) == 252
    regions = data.regions
    assert [int(region.sum()) for region in regions.values()] == [4, 3]
    assert regions["corners"].shape == (1, 1, 5, 5)
    assert regions["corners"][0, 0, 0, 0]
    assert regions["top_middle"][0, 0, 0, 2]


BAD = {
    "no rows": lambda: rt.data.toy_colors(0, 0),
    "no test rows": lambda: rt.data.two_quadrants(0, 10, 0),
    "a seed in words": lambda: rt.data.toy_colors("0"),
    "a seed below zero": lambda: rt.data.confounded_squares(-1),
    "pictures too small": lambda: rt.data.confounded_squares(0, side=4),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_drawn_is_refused(case):
    with pytest.raises(ArgumentError):
        BAD[case]()
