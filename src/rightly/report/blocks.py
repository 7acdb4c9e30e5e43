"""What a section is made of. Blocks hold finished words and SVG; the template only sets them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class Prose:
    """Paragraphs."""

    paragraphs: Sequence[str]
    kind: ClassVar[str] = "prose"


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: Sequence[str]
    kind: ClassVar[str] = "bullets"


@dataclass(frozen=True)
class Facts:
    """Terms and what is to be said of them; web addresses become links where ``linked``."""

    items: Sequence[tuple[str, str]]
    linked: bool = False
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Code:
    """A line to copy into a shell."""

    text: str
    kind: ClassVar[str] = "code"


@dataclass(frozen=True)
class Cell:
    """A table cell: its main text, a smaller second line, and the number to sort by."""

    main: str
    sub: str = ""
    order: float | None = None


@dataclass(frozen=True)
class Table:
    """A table. The first column heads its row; ``numeric`` columns are set to the right.

    A ``stacked`` table becomes one card per row on a narrow screen, any other scrolls in its own box.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numeric: frozenset[int] = frozenset()
    stacked: bool = False
    note: str = ""
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Figure:
    """One or more SVG panels with a caption; a single panel has its caption at its side where there is room.

    ``wide`` panels stand under each other, each as wide as the page.
    """

    caption: str
    panels: Sequence[str]
    note: str = ""
    wide: bool = False
    kind: ClassVar[str] = "figure"


@dataclass(frozen=True)
class Picture:
    """One picture of a gallery with the line under it; ``right`` says whether a prediction was right."""

    svg: str
    label: str
    prediction: str = ""
    right: bool | None = None


@dataclass(frozen=True)
class Gallery:
    """Rows of pictures, one row per example, under a caption and the colour legend as SVG."""

    caption: str
    note: str
    rows: Sequence[tuple[str, Sequence[Picture]]]
    legend: str = ""
    kind: ClassVar[str] = "gallery"


@dataclass(frozen=True)
class Model:
    """One run as it is introduced: its marker as SVG, its title, what it is, and its settings."""

    marker: str
    title: str
    description: str
    facts: Facts


@dataclass(frozen=True)
class Models:
    """The runs side by side."""

    models: Sequence[Model]
    kind: ClassVar[str] = "models"


@dataclass(frozen=True)
class Folded:
    """A block that a reader may open; it is always open in print."""

    summary: str
    block: Block
    kind: ClassVar[str] = "folded"


Block = Prose | Bullets | Facts | Code | Table | Figure | Gallery | Models | Folded


@dataclass(frozen=True)
class Section:
    """A headed part of the page; ``name`` is its anchor."""

    name: str
    title: str
    blocks: Sequence[Block] = field(default=())
