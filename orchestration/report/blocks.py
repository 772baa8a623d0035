"""What sections are made of: paragraphs, tables, lists of labels, folded text, and figures (`charts.Figure`).

All of it is plain text; the page's templates escape it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestration.report.charts import Figure
from orchestration.report.context import Context


@dataclass(frozen=True)
class Text:
    """A paragraph. kind: note, missing, headline or label; link: where the whole of it leads."""

    text: str
    kind: str = ""
    link: str = ""


@dataclass(frozen=True)
class Cell:
    """A table's cell. small: what stands behind the text in grey, below: beneath it; tag: a mark behind it; kind:
    better, worse or open, for a verdict; value: what the table is sorted by, None for the text; to: the setting
    whose trials it leads to; code: as it was printed."""

    text: str
    strong: bool = False
    small: str = ""
    below: str = ""
    tag: str = ""
    kind: str = ""
    value: float | None = None
    to: str = ""
    code: bool = False


@dataclass(frozen=True)
class Line:
    """A table's row, of which the first cell is its heading. kind: reference or chosen; setting: the one that it is
    about."""

    cells: Sequence[str | Cell]
    kind: str = ""
    setting: str = ""


@dataclass(frozen=True)
class Table:
    """kind: numbers (sortable), or words with findings or pairs; first: so many lines are shown at first; picks: the
    reader picks in it which settings the figures draw; name: where links find it."""

    head: Sequence[str]
    lines: Sequence[Line]
    kind: str = "words"
    first: int | None = None
    picks: bool = False
    name: str = ""


@dataclass(frozen=True)
class Pairs:
    """Labels, each with what there is to say."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Folded:
    """Text as it was written, which opens on a click."""

    summary: str
    text: str


Block = Text | Table | Pairs | Folded | Figure
#: a section's title and what stands in it
Section = tuple[str, Sequence[Block]]
#: makes a section; None where the run has nothing to do with it
Builder = Callable[[Context], Section | None]


def missing(text: str) -> Text:
    """A sentence that says why something is not there."""
    return Text(text[:1].upper() + text[1:] + ("" if text.endswith(".") else "."), "missing")


def figures_of(blocks: Sequence[Block]) -> list[Figure]:
    return [block for block in blocks if isinstance(block, Figure)]


def there(*blocks: Block | None) -> list[Block]:
    """Those that are not None."""
    return [block for block in blocks if block is not None]
