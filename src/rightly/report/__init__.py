"""The report room: records become one self-contained page and console tables.

Reads plain dictionaries only (``record.json`` and ``figures.json``), never a model or a tensor.
The page is written by ``write_report``, the record by ``write_record``; ``results_table`` is for the console.
"""

from __future__ import annotations

from rightly.report.console import results_table
from rightly.report.files import read_figures, read_record, write_record, write_report
from rightly.report.page import render
from rightly.report.schema import validate_figures, validate_record

__all__ = [
    "read_figures",
    "read_record",
    "render",
    "results_table",
    "validate_figures",
    "validate_record",
    "write_record",
    "write_report",
]
