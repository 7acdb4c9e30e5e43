"""The arguments of ``rightly fit``, and what can be said against them before any data are read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rightly.core.errors import ArgumentError, DataError
from rightly.objectives.term import EngineName, Weight
from rightly.workflows.case import Settings

#: gradient steps that a training is given at least, unless ``epochs`` is
_STEPS = 2000

Kind = Literal["table", "images", "custom"]

#: arguments that mean nothing for a kind of data, and what to give instead
_FOREIGN: dict[Kind, tuple[tuple[str, ...], str]] = {
    "table": (("annotations", "regions", "size"), "these belong to images; --irrelevant COLUMN marks columns"),
    "images": (
        ("label", "task", "drop", "irrelevant", "rules"),
        "these belong to tables; the sub-folders are the labels",
    ),
    "custom": (
        ("label", "prior", "weight", "task", "drop", "irrelevant", "rules", "annotations", "regions", "size", "engine"),
        "the function brings its own data and terms",
    ),
}


@dataclass(frozen=True)
class Request:
    """The arguments of ``rightly fit``."""

    source: str
    label: str | None = None
    prior: str | None = None
    weight: str | None = None
    seed: int = 0
    seeds: int = 5
    epochs: int | None = None
    batch_size: int | None = None
    lr: float = 1e-3
    task: Literal["classification", "regression"] | None = None
    drop: Sequence[str] = ()
    irrelevant: Sequence[str] = ()
    rules: str | None = None
    annotations: str | None = None
    regions: Literal["irrelevant", "relevant"] = "irrelevant"
    size: int | None = None
    engine: EngineName | None = None

    @property
    def kind(self) -> Kind:
        """What the source is: a folder of images, ``module:function``, or else a table."""
        if Path(self.source).is_dir():
            return "images"
        return "custom" if ":" in self.source and not Path(self.source).exists() else "table"

    @property
    def given(self) -> dict[str, object]:
        """The arguments that differ from their defaults, beside the source."""
        plain = vars(type(self)(self.source))
        return {name: value for name, value in vars(self).items() if value != plain[name]}


def check_request(request: Request) -> None:
    """Raise ``ArgumentError`` for numbers that cannot be used and arguments that this kind of data does not read."""
    _check_counts(request)
    if request.kind == "table" and not Path(request.source).exists():
        raise DataError(
            f"there is no file or folder {request.source}",
            expected="a table, a folder of images, or module:make_objective",
            got="nothing at that place",
            mend="check the path and its spelling",
        )
    names, instead = _FOREIGN[request.kind]
    if foreign := [_flag(name) for name in names if name in request.given]:
        raise ArgumentError(
            f"{request.source} cannot be trained on with {', '.join(foreign)}",
            expected={"table": "arguments of a table", "images": "arguments of images", "custom": "none of them"}[
                request.kind
            ],
            got=", ".join(foreign),
            mend=instead,
        )
    _check_rules(request)
    if "regions" in request.given and request.annotations is None:
        raise ArgumentError(
            "--regions says what drawn regions mean, and there are none", expected="--annotations DIR", got="none"
        )


def _check_rules(request: Request) -> None:
    """Rules say themselves what is expected, and how strongly."""
    others = [_flag(name) for name in ("prior", "weight", "irrelevant") if name in request.given]
    if request.rules is not None and others:
        raise ArgumentError(
            f"--rules cannot be combined with {', '.join(others)}",
            expected="--rules FILE alone",
            got=", ".join(["--rules", *others]),
            mend='write it as rules: ignore feature "COLUMN" (weight 2)',
        )


def _check_counts(request: Request) -> None:
    least = {"seeds": 1, "seed": 0, "epochs": 1, "batch_size": 1, "size": 1}
    for name, bound in least.items():
        value = getattr(request, name)
        if value is not None and value < bound:
            raise ArgumentError(f"{_flag(name)} cannot be used", expected=f"at least {bound}", got=value)
    if not 0 < request.lr < math.inf:
        raise ArgumentError("--lr cannot be used", expected="a finite number above 0", got=request.lr)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def parse_weight(text: str | None) -> Weight | None:
    """``auto``, ``balance`` or a number; None for the prior's default."""
    if text is None or text == "auto" or text == "balance":
        return text  # type: ignore[return-value]
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise ArgumentError("--weight cannot be used", expected="auto, balance, or a finite number >= 0", got=text)
    return value


def settings_for(request: Request, rows: int, base: Settings) -> Settings:
    """Batches grow with the data and epochs shrink, so that a training is about as many steps on any table."""
    train = max(1, int(0.6 * rows))
    batch_size = request.batch_size or min(1024, max(base.batch_size, train // 50))
    epochs = request.epochs or max(5, min(base.epochs, -(-_STEPS * batch_size // train)))
    return replace(base, epochs=epochs, batch_size=batch_size, lr=request.lr)
