"""Charts: valid SVG, finite paths, marks inside their frame, type that fits; pictures that survive a round trip."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from report.wellformed import reaches, svg_problems
from rightly.report import png
from rightly.report.charts import lettering, svg
from rightly.report.charts.axes import Key
from rightly.report.charts.bars import Bars, bars
from rightly.report.charts.beeswarm import MOST_DOTS, Swarm, beeswarm, reach, thinned
from rightly.report.charts.intervals import Row, intervals
from rightly.report.charts.lines import Frame, Line, lines
from rightly.report.charts.picture import borders, filled, outline, picture, shade, shrunk, span_of, tint
from rightly.report.charts.scales import Scale, linear, linear_ticks, log_ticks, logarithmic, tick_labels
from rightly.report.charts.weights import Candidate, weights
from rightly.report.palette import css, diverging, low_to_high

NUMBER = st.floats(allow_nan=False, allow_infinity=False)
NUMBERS = st.lists(NUMBER, min_size=1, max_size=12)


def inside(chart: str) -> bool:
    """Whether all marks and texts lie inside the picture (a hair for rounding)."""
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', chart)
    assert size is not None
    left, right, top, bottom = reaches(chart)
    return left >= -0.1 and right <= float(size[1]) + 0.1 and top >= 0 and bottom <= float(size[2])


def test_the_check_of_frames_finds_a_mark_outside() -> None:
    good = svg.document(10, 10, "t", "d", svg.line(0, 0, 10, 10, "#000"))
    assert inside(good)
    assert not inside(good.replace('x2="10"', 'x2="11"'))
    assert not inside(svg.document(10, 10, "t", "d", svg.line(0, 0, 1, 1, "#000") + svg.text(8, 5, "long")))


@given(text=st.text(st.characters(exclude_categories=("C",)), max_size=90))
def test_any_name_stays_inside_every_chart(text: str) -> None:
    rows = [Row(text, "#000", "circle", 0.5, 0.4, 0.6, [0.5], text)]
    line = Line([0.0, 1.0], [1.0, 2.0], "#000")
    swarms = [Swarm(text, [0.5], [1.0])]
    keys = [Key(text, "#000"), Key(text, "#000")]
    assert inside(intervals(text, text, rows))
    assert inside(bars(text, text, [text], [Bars(text, "#000", "circle", {text: (0.5, 0.4, 0.6)})]))
    assert inside(lines(Frame(text, text, text, text, keys), [line]))
    assert inside(beeswarm(text, text, swarms, 1.0))
    assert inside(weights(text, text, [Candidate(1.0, 0.5, 0.1, True)], text, "#000"))


@given(values=NUMBERS)
def test_intervals_hold_any_numbers(values: list[float]) -> None:
    rows = [
        Row("run", "#000", shape, v, min(values), max(values), values, "x")
        for v, shape in zip(values, ["circle", "square", "diamond", "triangle"], strict=False)
    ]
    for zero in (True, False):
        chart = intervals("t", "d", rows, zero=zero)
        assert svg_problems(chart) == []
        assert inside(chart)


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=12))
def test_bars_hold_any_numbers(values: list[float]) -> None:
    features = [f"f{k}" for k in range(len(values))]
    shares = {f: (v, None, None) for f, v in zip(features, values, strict=True)}
    chart = bars(
        "t", "d", [*features, "absent"], [Bars("a", "#000", "circle", shares), Bars("b", "#111", "square", {})]
    )
    assert svg_problems(chart) == []
    assert inside(chart)


@given(values=NUMBERS, log=st.booleans(), log_x=st.booleans())
def test_lines_hold_any_numbers(values: list[float], log: bool, log_x: bool) -> None:
    x = [float(k + log_x) for k in range(len(values))]
    line = Line(x, values, "#000", low=[min(values)] * len(x), high=values, shape="circle", marks=[(x[0], values[0])])
    chart = lines(Frame("t", "d", "x", "y", log=log, log_x=log_x), [line])
    assert svg_problems(chart) == []
    assert inside(chart)


@given(values=NUMBERS)
def test_a_beeswarm_holds_any_numbers(values: list[float]) -> None:
    swarms = [Swarm("f", [None] * len(values), values), Swarm("g", [], [])]
    chart = beeswarm("t", "d", swarms, reach(swarms))
    assert svg_problems(chart) == []
    assert inside(chart)


@given(found=st.lists(st.tuples(st.floats(0, 1e300), NUMBER, st.none() | st.floats(0, 1e300)), max_size=8))
def test_weights_hold_any_numbers(found: list[tuple[float, float, float | None]]) -> None:
    candidates = [Candidate(w, m, e, at == 0) for at, (w, m, e) in enumerate(found)]
    chart = weights("t", "d", candidates, "loss", "#000")
    assert svg_problems(chart) == []
    assert inside(chart)


def test_no_path_takes_a_nan() -> None:
    with pytest.raises(ValueError, match="finite"):
        svg.line(0, float("nan"), 1, 1, "#000")
    with pytest.raises(ValueError, match="finite"):
        svg.trace([(0.0, float("inf"))])


def test_a_gap_lifts_the_pen_and_a_lone_point_is_a_dot() -> None:
    assert svg.trace([(0, 0), (1, 1), None, (2, 2)]) == "M0 0L1 1M2 2h0"
    assert svg.trace([None, None]) == ""


@given(low=NUMBER, high=NUMBER)
def test_ticks_are_round_few_and_inside(low: float, high: float) -> None:
    scale = linear([low, high], 0, 100)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 12
    slack = 1e-6 * (scale.high - scale.low)
    assert all(scale.low - slack <= tick <= scale.high + slack for tick in ticks)
    assert len(tick_labels(ticks)) == len(ticks)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0.831, 0.839, ["0.832", "0.834", "0.836", "0.838"]),
        (-1, 1, ["−1.0", "−0.5", "0.0", "0.5", "1.0"]),
        (0, 8000, ["0", "2,000", "4,000", "6,000", "8,000"]),
    ],
)
def test_ticks_are_written_with_the_decimals_they_need(low: float, high: float, expected: list[str]) -> None:
    assert tick_labels(linear_ticks(low, high)) == expected


def test_ticks_of_a_log_axis() -> None:
    assert tick_labels(log_ticks(5e-5, 20, 4), log=True) == ["0.0001", "0.01", "1"]
    assert tick_labels([1e-5, 1.0, 1e6], log=True) == ["10⁻⁵", "1", "10⁶"]
    assert log_ticks(2, 3) == [2, 3]
    assert logarithmic([], 0, 1).ticks() != []
    assert logarithmic([5.0], 0, 100)(5.0) == pytest.approx(50)


def test_a_scale_keeps_what_must_be_at_its_end() -> None:
    assert linear([1.0, 4.0], 0, 100, include=(0.0,))(0.0) == 0
    assert linear([0.0], 0, 100, include=(0.0,))(0.0) == 0
    assert Scale(1, 100, 0, 10, log=True)(10) == pytest.approx(5)


@given(text=st.text(max_size=80), width=st.floats(5, 300))
def test_type_is_shortened_until_it_fits(text: str, width: float) -> None:
    assert lettering.width_of(lettering.fitted(text, width)) <= max(width, lettering.width_of(lettering.ELLIPSIS))
    lines_ = lettering.wrapped(text, width, lines=2)
    assert len(lines_) <= 2
    assert all(lettering.width_of(line) <= max(width, lettering.width_of("…")) for line in lines_)


def test_names_are_shortened_in_the_middle_and_broken_at_joints() -> None:
    assert lettering.fitted("first_and_last", 60) == "first…last"
    assert lettering.wrapped("systolic_blood_pressure", 100) == ["systolic_blood_", "pressure"]


@given(size=st.integers(1, 30))
def test_estimated_widths_grow_with_the_text(size: int) -> None:
    assert lettering.width_of("a" * size) == pytest.approx(size * lettering.width_of("a"))
    assert lettering.width_of("名" * size) > lettering.width_of("a" * size)


@given(count=st.integers(1, 3 * MOST_DOTS))
def test_thinning_keeps_the_extremes(count: int) -> None:
    values = [float((7 * k) % count) for k in range(count)]
    kept = thinned(Swarm("f", [None] * count, values))
    assert len(kept.attributions) == len(kept.values) == min(count, MOST_DOTS)
    assert {min(values), max(values)} <= set(kept.attributions)


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (3, 4, 3), (1, 9, 3), (200, 300)])
def test_a_png_comes_back_as_it_was(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with Image.open(io.BytesIO(png.encode(pixels))) as image:
        image.load()
        assert image.format == "PNG"
        assert image.mode == ("RGB" if len(shape) == 3 else "L")
        np.testing.assert_array_equal(np.asarray(image), pixels)
    assert png.data_uri(pixels).startswith("data:image/png;base64,")


def test_pillow_refuses_a_png_with_one_wrong_byte() -> None:
    broken = bytearray(png.encode(np.zeros((4, 4), dtype=np.uint8)))
    broken[45] ^= 1
    with pytest.raises(OSError), Image.open(io.BytesIO(bytes(broken))) as image:
        image.load()


def test_groups_are_washed_with_their_colours_and_parted_by_lines() -> None:
    groups = np.array([[0.0, 1.0, -1.0]])
    colours = np.array([[255, 0, 0], [0, 0, 255]], dtype=np.uint8)
    for image in (np.array([[0.0, 0.0, 1.0]]), np.repeat(np.array([[0.0, 0.0, 1.0]])[:, :, None], 3, 2)):
        first, second, none = filled(image, groups, colours)[0].tolist()
        assert first[0] > 190
        assert second[2] > 190
        assert max(first[1:] + second[:2]) < 100
        assert none == [255, 255, 255]
    # two groups side by side: a line around each, and one, not two, between them; nothing around what has no group
    lines = sorted(re.findall(r"M\d+ \d+[hv]\d+", borders(groups)))
    assert lines == sorted(["M0 0h2", "M0 1h2", "M0 0v1", "M1 0v1", "M2 0v1"])
    drawn = picture("t", "d", filled(image, groups, colours), (1, 3), borders(groups), dashed=False)
    assert svg_problems(drawn) == []
    assert drawn.count("<path") == 1


def test_the_outline_follows_the_border_of_the_region() -> None:
    assert outline(np.zeros((3, 3))) == ""
    assert sorted(re.findall(r"M\d+ \d+[hv]\d+", outline(np.array([[1, 1], [0, 0]])))) == [
        "M0 0h2",
        "M0 0v1",
        "M0 1h2",
        "M2 0v1",
    ]
    ring = np.ones((3, 3))
    ring[1, 1] = 0
    length = sum(int(size) for size in re.findall(r"[hv](\d+)", outline(ring)))
    assert length == 12 + 4


def test_maps_of_an_image_share_one_scale_that_one_pixel_cannot_spoil() -> None:
    quiet, loud = np.full((50, 50), 0.5), np.full((50, 50), 2.0)
    loud[0, 0] = 1000.0
    assert span_of([quiet, loud]) == pytest.approx(2.0)
    assert span_of([np.zeros((2, 2))]) == 1.0
    single = np.zeros((50, 50))
    single[3, 3] = 4.0
    assert span_of([single]) == 4.0


def test_colours_of_maps_have_their_meaning() -> None:
    (against, nothing, favour) = tint(np.array([[-2.0, 0.0, 2.0]]), 2.0)[0]
    assert css(nothing) == "#ffffff"
    assert int(against[2]) > int(against[0])
    assert int(favour[0]) > int(favour[2])
    np.testing.assert_array_equal(diverging(np.array([5.0])), diverging(np.array([1.0])))
    assert css(low_to_high(np.array(0.0))) == "#0072b2"


def test_large_images_are_averaged_down() -> None:
    big = np.random.default_rng(0).random((1000, 700, 3))
    small = shrunk(big)
    assert max(small.shape) <= 288
    assert small.mean() == pytest.approx(big.mean(), abs=1e-3)
    assert shrunk(np.ones((1, 5000))).shape[0] == 1
    assert svg_problems(picture("t", "d", shade(big), (1000, 700), outline(np.ones((1000, 700))))) == []
