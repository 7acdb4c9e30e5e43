"""The page: sections set by a template, with everything that it needs inside it."""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from importlib.resources import files
from typing import TYPE_CHECKING

from rightly.report.blocks import Section
from rightly.report.cleaning import Record, cleaned
from rightly.report.schema import validate_figures, validate_record
from rightly.report.sections.about import again, glossary, notes
from rightly.report.sections.data import data
from rightly.report.sections.discovery import discovery
from rightly.report.sections.extras import extras
from rightly.report.sections.maps import maps
from rightly.report.sections.models import models
from rightly.report.sections.regions import regions
from rightly.report.sections.reliance import reliance
from rightly.report.sections.results import results
from rightly.report.sections.rules import rules
from rightly.report.sections.training import training, weight
from rightly.report.verdict import cautions, conclusion

if TYPE_CHECKING:
    from jinja2 import Environment


def sections(record: Record, figures: Record) -> list[Section]:
    """The sections in reading order, without those that have nothing to show."""
    found = [
        data(record),
        models(record),
        discovery(record),
        results(record),
        rules(record),
        reliance(record, figures),
        maps(record, figures),
        regions(record, figures),
        training(record),
        weight(record),
        extras(record, figures),
        notes(record),
        again(record),
        glossary(),
    ]
    return [section for section in found if section is not None]


def render(record: Record, figures: Record | None = None) -> str:
    """Render a record as one HTML page that needs nothing else.

    Args:
        record: schema 1; see docs/reference/report.md.
        figures: the big arrays that go with it; may be None.

    Returns:
        The page. The same record gives the same text, whatever the order of its keys.

    Raises:
        DataError: naming every problem of the record or of the figures.
    """
    record, figures = cleaned(record), cleaned(figures or {})
    validate_record(record)
    validate_figures(figures)
    style, script = _part("report.css"), _part("report.js")
    return (
        _environment()
        .get_template("report.html")
        .render(
            title=title(record),
            question=record.get("question"),
            about=_about(record),
            command="rightly " + record["command"].removeprefix("rightly "),
            conclusion=conclusion(record),
            cautions=cautions(record),
            sections=sections(record, figures),
            style=style,
            script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


def title(record: Record) -> str:
    """The record's title, or one made from what it is about."""
    return str(record.get("title") or record["data"].get("name") or "What changed")


def _about(record: Record) -> list[str]:
    """The line under the title: the data, unless the title names it, and the date."""
    name = record["data"].get("name")
    parts = [name if name and name != title(record) else "", _date(record.get("created") or "")]
    return [part for part in parts if part]


def _date(created: str) -> str:
    """An ISO time as ``5 March 2026, 14:05 UTC``; anything else as it is."""
    try:
        when = datetime.fromisoformat(created)
    except ValueError:
        return created
    zone = f" {when.tzname()}" if when.tzinfo else ""
    return f"{when.day} {when:%B %Y, %H:%M}{zone}"


def _part(name: str) -> str:
    """A style sheet or script of the template's, as text."""
    return files("rightly.report").joinpath("templates", name).read_text(encoding="utf-8")


def _environment() -> Environment:
    """The template engine: all text is escaped unless a template says that it is SVG of ours."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("rightly.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
