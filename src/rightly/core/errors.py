"""The errors a user can meet. Each says what happened, what was expected, what was got and how to mend it."""

from __future__ import annotations


class RightlyError(Exception):
    """Base of every error raised on purpose by rightly.

    Args:
        what: one sentence, what went wrong.
        expected: what would have been accepted.
        got: what was passed instead.
        mend: what the user can do now.

    The parts are kept as attributes; ``str(error)`` joins those that are given, one a line.
    """

    def __init__(self, what: str, *, expected: object = None, got: object = None, mend: str | None = None) -> None:
        self.what, self.expected, self.got, self.mend = what, expected, got, mend
        parts = [what]
        parts += [f"  {label}: {part}" for label, part in self._details() if part is not None]
        super().__init__("\n".join(parts))

    def _details(self) -> list[tuple[str, object]]:
        return [("expected", self.expected), ("got", self.got), ("mend", self.mend)]


class ArgumentError(RightlyError, ValueError):
    """An argument has a value that cannot be used."""


class ShapeError(RightlyError, ValueError):
    """A tensor has a shape that does not fit."""


class DataError(RightlyError, ValueError):
    """A file or a table cannot be used as data."""


class AnnotationError(RightlyError, ValueError):
    """An annotation does not fit what it annotates, or a prior lacks the annotation it needs."""


class RuleError(RightlyError, ValueError):
    """A rule cannot be read, or speaks of something that is not there; ``line`` says where it stands, from 1."""

    def __init__(
        self, what: str, *, line: int, expected: object = None, got: object = None, mend: str | None = None
    ) -> None:
        self.line = line
        super().__init__(f"line {line}: {what}", expected=expected, got=got, mend=mend)


class NotConnectedError(RightlyError, RuntimeError):
    """A term or an attribution does not reach what it should: training with it would change nothing."""


class DoubleBackwardError(RightlyError, RuntimeError):
    """An operator of the model has no second derivative, so that a penalty on its gradient cannot train."""


class DecompositionError(RightlyError, RuntimeError):
    """An operation of the model cannot be decomposed, or the decomposition got lost on the way to the output."""


class CheckpointError(RightlyError, RuntimeError):
    """A saved model, run or checkpoint cannot be read or does not fit."""


class MissingExtraError(RightlyError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is needed for this and is not installed",
            mend=f"pip install 'rightly[{extra}]'",
        )
