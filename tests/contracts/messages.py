"""What an error has to say, and what discovery has to find."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Any

from rightly.core.errors import RightlyError


def check_named(call: Callable[[], Any], *, nothing_was_passed: bool = False) -> None:
    """Raise ``AssertionError`` unless ``call`` raises a named error that says what, expected and got."""
    error = _raised_by(call)
    assert error is not None, "nothing was raised"
    assert isinstance(error, RightlyError), f"not a named error but {type(error).__name__}: {error}"
    assert error.what, "the error does not say what happened"
    assert error.expected is not None, "the error does not say what was expected"
    assert error.got is not None or nothing_was_passed, "the error does not say what was got"
    for part in ("expected", "got"):
        if getattr(error, part) is not None:
            assert f"  {part}: {getattr(error, part)}" in str(error), f"{part} is not in the message"


def _raised_by(call: Callable[[], Any]) -> Exception | None:
    try:
        call()
    except Exception as error:  # noqa: BLE001 (which one it is, is the question)
        return error
    return None


def check_discovery(room: Any, others: Collection[str], entries: Collection[Any], floor: int) -> None:
    """Raise ``AssertionError`` unless the registry has every public class of a room, and as many as there were once."""
    public = {value for name in room.__all__ if name not in others and inspect.isclass(value := getattr(room, name))}
    found = {entry.cls for entry in entries}
    assert public == found, f"only public: {public - found}, only registered: {found - public}"
    assert len(found) >= floor, f"{len(found)} components, there were {floor} once"
