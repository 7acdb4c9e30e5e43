"""Make a record plain: built-in types only, and text that XML, UTF-8 and a terminal can all show."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

#: a record, or a part of one: what ``json.load`` returns
Record = dict[str, Any]

#: characters that XML forbids or that can turn a line of text around: controls, lone surrogates, bidi overrides
_UNSHOWABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]")


def clean_text(text: str) -> str:
    """Return ``text`` with every character that cannot be shown safely replaced by U+FFFD."""
    return _UNSHOWABLE.sub("\ufffd", text)


def cleaned(value: Any) -> Any:
    """Return a copy of ``value`` made of dict, list, str, int, float, bool and None.

    NumPy scalars and arrays become numbers and nested lists, tuples become lists, keys become text.
    Anything else is returned as it is, for the schema to name.
    """
    if isinstance(value, str):
        return clean_text(str(value))
    if isinstance(value, dict):
        return {clean_text(str(key)): cleaned(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return cleaned(value.tolist())
    if isinstance(value, np.generic):
        return cleaned(value.item())
    if isinstance(value, (list, tuple)):
        return [cleaned(entry) for entry in value]
    return value
