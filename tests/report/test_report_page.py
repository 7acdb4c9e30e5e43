"""The page: whole, self-contained, safe against hostile names, and complete for any set of optional parts."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import pytest

from report.examples import HOSTILE, bare_record, full_figures, full_record, interval
from report.wellformed import problems, svg_problems
from rightly.core.errors import DataError
from rightly.report import render

OPTIONAL = ["title", "question", "created", "intervals", "attribution", "versions", "rerun", "seconds", "notes"]
OPTIONAL_OF_RUN = ["title", "prior", "weight_choice", "history"]
SECTIONS = [
    *("data", "models", "results", "reliance", "maps", "regions", "training", "weight", "more", "notes", "again"),
    "glossary",
]


def sections(page: str) -> list[str]:
    return [name for name in re.findall(r'<section id="(\w+)"', page) if name in SECTIONS]


def words(page: str) -> str:
    """The page's text without its pictures."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"<(svg|style|script).*?</\1>", "", page, flags=re.S)))


def test_a_full_page_is_whole_and_has_every_section() -> None:
    page = render(full_record(), full_figures())
    assert problems(page) == []
    assert sections(page) == SECTIONS
    assert page.startswith("<!doctype html>")
    assert '<html lang="en">' in page
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert page.count('role="img"') >= 15


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("</table>", "", "closes nothing"),
        ("</main>", "</main></div>", "closes nothing"),
        ("<main>", '<main><img src="https://example.org/a.png">', "refers to https"),
        ("<main>", '<main><link href="style.css">', "refers to style.css"),
        ("<main>", '<main><a href="#nowhere">x</a>', "leads nowhere"),
        ("<main>", '<main onclick="x()">', "inline handler"),
        ("<main>", '<main id="data">', "id data twice"),
        ("<main>", "<main><div/>", "not closed in HTML"),
        ("<style>", "<style>@import 'x.css';", "the style fetches"),
        ("<style>", "<style>body{background:url(x.png)}", "the style fetches"),
        ("</desc>", "</desc><g>", "not XML"),
        ("</desc>", '</desc><path d="M0 nan"/>', "nan"),
        ("<desc>", "<text>", "not XML"),
        ("viewBox=", "view=", "no viewBox"),
    ],
)
def test_the_check_of_pages_finds_planted_defects(old: str, new: str, expected: str) -> None:
    page = render(full_record(), full_figures())
    assert old in page
    assert any(expected in wrong for wrong in problems(page.replace(old, new, 1)))


def test_a_picture_without_a_description_is_found() -> None:
    assert svg_problems('<svg viewBox="0 0 1 1" role="img"><title>x</title></svg>') == ["no title and description"]


def test_a_record_with_nothing_optional_gives_a_page() -> None:
    page = render(bare_record())
    assert problems(page) == []
    assert sections(page) == ["models", "results", "again", "glossary"]


@pytest.mark.parametrize("part", OPTIONAL)
def test_a_page_without_one_part_is_whole(part: str) -> None:
    record = full_record()
    del record[part]
    assert problems(render(record, full_figures())) == []


@pytest.mark.parametrize("part", OPTIONAL_OF_RUN)
@pytest.mark.parametrize("absent", [True, False])
def test_a_page_without_one_part_of_a_run_is_whole(part: str, absent: bool) -> None:
    record = full_record()
    for run in record["runs"].values():
        run.pop(part, None)
        if not absent and part in {"prior", "weight_choice"}:
            run[part] = None
    assert problems(render(record, full_figures())) == []


@pytest.mark.parametrize("part", sorted(full_record()["data"]))
def test_a_page_without_one_part_of_the_data_is_whole(part: str) -> None:
    record = full_record()
    del record["data"][part]
    assert problems(render(record)) == []


@pytest.mark.parametrize("part", sorted(full_record()["runs"]["plain"]["explanations"]))
def test_a_page_without_one_explanation_is_whole(part: str) -> None:
    record = full_record()
    for run in record["runs"].values():
        del run["explanations"][part]
    assert problems(render(record, full_figures())) == []


@pytest.mark.parametrize("part", sorted(full_figures()))
@pytest.mark.parametrize("empty", [True, False])
def test_a_page_without_one_kind_of_figure_is_whole(part: str, empty: bool) -> None:
    figures = full_figures()
    figures[part] = type(figures[part])() if empty else figures[part]
    if not empty:
        del figures[part]
    assert problems(render(full_record(), figures)) == []


@pytest.mark.parametrize(
    "names", [("plain",), ("sparsity",), ("plain", "a", "b"), tuple(f"prior-{k}" for k in range(9))]
)
def test_any_number_of_runs(names: tuple[str, ...]) -> None:
    record = full_record(names=names)
    if len(names) == 1:
        record["comparison"] = {}
    page = render(record, full_figures(names=names))
    assert problems(page) == []
    for run in record["runs"].values():
        assert run.get("title", "Plain (no prior)") in page


@pytest.mark.parametrize("count", [1, 200])
def test_any_number_of_features(count: int) -> None:
    features = [f"feature {k}" for k in range(count)]
    page = render(full_record(features), full_figures(features))
    assert problems(page) == []
    shown = re.search(r"The (\d+) most important of (\d+) features", page)
    assert (shown is not None) == (count == 200)
    assert len(page) < 600_000
    assert f"feature {count - 1}" in page  # in the table, whatever the chart shows


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e-12, 1e12, 1e300, -1e300])
def test_constant_and_extreme_values(value: float) -> None:
    record = full_record()
    same = {"mean": value, "low": value, "high": value, "values": [value] * 3}
    for run in record["runs"].values():
        run["metrics"]["test"] = {"auc": same, "own_measure": same}
        run["explanations"] |= {"gini": same, "inside": same}
        run["explanations"]["importance"] = [{"feature": f, "mean": abs(value)} for f in ("a", "b")]
        run["explanations"]["lorenz"] = [max(min(value, 1.0), 0.0)] * 101
        for history in run["history"]:
            history["task"] = [value] * 8
    figures = full_figures()
    for entries in figures["beeswarm"].values():
        for entry in entries:
            entry["attributions"] = [value] * 4
    for run in figures["maps"][0]["runs"].values():
        run["map"] = [[value] * 3] * 2
    figures["curves"][0]["series"][0]["y"] = [value, value, value]
    record["comparison"] = {"auc": {"difference": value, "low": value, "high": value, "p": None}}
    assert problems(render(record, figures)) == []


def test_traces_without_any_value_are_left_out() -> None:
    record = full_record()
    for run in record["runs"].values():
        run["history"] = [{"epoch": [], "task": [], "validation": [], "terms": {}}, {"epoch": [1], "task": [None]}]
    page = render(record)
    assert problems(page) == []
    assert "training" not in sections(page)


def test_one_epoch_is_drawn_as_a_point() -> None:
    record = full_record()
    record["runs"]["plain"]["history"] = [{"epoch": [1], "task": [0.5], "validation": [0.6], "best_epoch": 1}]
    assert problems(render(record)) == []


def test_hostile_names_are_shown_and_not_run() -> None:
    """Every text of the record and of the figures is hostile at once; none of it becomes markup."""

    def poisoned(value: Any, path: str = "") -> Any:
        if isinstance(value, dict):
            return {key: poisoned(entry, f"{path}.{key}") for key, entry in value.items()}
        if isinstance(value, list):
            return [poisoned(entry, path) for entry in value]
        kept = path.endswith((".kind", ".task", ".rule")) or path == ".data.task"
        return HOSTILE if isinstance(value, str) and not kept and not path.endswith(".feature") else value

    record, figures = poisoned(full_record([HOSTILE, "b"])), poisoned(full_figures([HOSTILE, "b"]))
    record["runs"][HOSTILE] = record["runs"].pop("sparsity")
    record["runs"][HOSTILE]["metrics"]["test"][HOSTILE] = interval(0.5)
    record["runs"][HOSTILE]["metrics"][HOSTILE] = {HOSTILE: interval(0.5)}
    record["runs"][HOSTILE]["explanations"][HOSTILE] = interval(0.5)
    record["runs"][HOSTILE]["history"][0]["terms"] = {HOSTILE: [1.0] * 8}
    record["comparison"][HOSTILE] = {"difference": 1.0, "low": 0.5, "high": 1.5, "p": 0.01, "test": HOSTILE}
    record["data"]["class_counts"] = {HOSTILE: 5, "b": 6}
    record["versions"][HOSTILE] = HOSTILE
    figures["beeswarm"] = {HOSTILE: figures["beeswarm"]["plain"]}
    page = render(record, figures)
    assert problems(page) == []
    assert page.count("<script>") == 1
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_characters_that_break_xml_or_turn_text_around_are_replaced() -> None:
    bad = "a\x00b\x1bc\ud800d\u202ee\ufffef"
    record = full_record([bad])
    page = render(record, full_figures([bad]))
    assert problems(page) == []
    page.encode("utf-8")
    assert "a\ufffdb\ufffdc\ufffdd\ufffde\ufffdf" in page


@pytest.mark.parametrize("name", ["x" * 3000, "a very long name " * 100, "名前" * 200, "a_b-c/" * 200, " ", ""])
def test_very_long_and_empty_names(name: str) -> None:
    record = full_record([name, "b"])
    record["title"] = name
    record["data"]["name"] = name
    record["runs"]["sparsity"]["title"] = name
    figures = full_figures([name, "b"])
    figures["curves"][0] |= {"title": name, "x_label": name, "y_label": name}
    figures["curves"][0]["series"][0]["name"] = name
    assert problems(render(record, figures)) == []


@pytest.mark.parametrize(
    ("x", "log"), [([1e-4, 1e-2, 10.0], True), ([1.0, 5.0, 25.0], False), ([0.0, 1.0, 1e4], False)]
)
def test_curves_over_many_sizes_have_a_log_axis(x: list[float], log: bool) -> None:
    figures = full_figures()
    figures["curves"][0] = {
        "title": "By weight",
        "x_label": "Weight",
        "series": [{"name": "a", "x": x, "y": [1, 2, 3]}],
    }
    page = render(bare_record(), figures)
    assert problems(page) == []
    assert ("Weight (log scale)" in page) == log


def test_the_page_runs_only_its_own_script() -> None:
    page = render(bare_record())
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy[1]
    assert f"script-src 'sha256-{digest}'" in policy[1].replace("&#39;", "'")


def test_only_citations_become_links() -> None:
    record = full_record()
    record["data"]["source"] = "https://example.org/data"
    page = render(record)
    assert re.findall(r'href="(https?://[^"]+)"', page) == ["https://doi.org/10.1/x"]
    record["runs"]["sparsity"]["prior"]["citation"] = "javascript:alert(1) data:text/html,x"
    assert problems(render(record)) == []
    assert 'href="javascript' not in render(record)


def test_the_records_own_conclusion_comes_first() -> None:
    record = full_record()
    record["conclusion"] = ["Fewer features did as well."]
    text = words(render(record))
    assert text.index("Can fewer features do?") < text.index("Fewer features did as well.") < text.index("The data")


def test_without_a_conclusion_the_comparisons_are_read() -> None:
    text = words(render(full_record()))
    assert "AUC is higher (better): 0.820 for “The sparsity prior” against 0.800 for “Plain (no prior)”" in text
    assert "difference +0.020 (95% interval +0.010 to +0.030, p = 0.004)" in text
    assert "Log loss: no difference shown" in text
    assert "It does not prove that they are equal." in text


def test_a_reader_is_told_what_the_measures_mean() -> None:
    text = words(render(full_record()))
    assert "ranks a random row of “died” above a random row of “survived”" in text
    assert "They do not show causes" in text


def test_the_engine_of_every_term_is_told() -> None:
    record = full_record()
    assert render(record).count("<dt>Engine</dt>") == 1
    assert "<dd>frozen-masks: a plain stack of layers</dd>" in render(record)
    record["runs"]["sparsity"]["engines"] = {"b": "two-phase: asked for", "a": "double-backward: asked for"}
    assert "<dd>a by double-backward: asked for; b by two-phase: asked for</dd>" in render(record)


def test_prediction_and_truth_stand_under_the_maps() -> None:
    text = words(render(full_record(), full_figures()))
    assert "True: 3" in text
    assert "says 3 ✓ right" in text
    assert "says 3 ✗ wrong" in text


def test_render_refuses_what_it_cannot_show() -> None:
    with pytest.raises(DataError):
        render({"schema": 1})
    with pytest.raises(DataError):
        render(bare_record(), {"maps": "none"})


def test_rendering_changes_nothing_that_it_was_given() -> None:
    record, figures = full_record(), full_figures()
    render(record, figures)
    assert record == full_record()
    assert figures == full_figures()
