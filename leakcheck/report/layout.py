"""What a report consists of, whatever it is rendered to: sections of lines, one table, one drawing.

The texts are raw data: a renderer escapes what its format would obey.
"""

from dataclasses import dataclass

# Words that a reader must not miss; they start a cell or a line, and renderers set them off.
ALARMS = frozenset({"LEAK", "REFUTED", "MISSED", "WORSE"})
WARNINGS = frozenset({"SUSPECT", "CONTAMINATED", "OPEN"})
GOOD = frozenset({"PROVEN", "HOLDS", "BETTER"})


@dataclass(frozen=True)
class Row:
    """Cells, and below them details that are too long for a column. Rows of one `group` follow each other."""

    cells: tuple[str, ...]
    details: tuple[str, ...] = ()
    group: str = ""


@dataclass(frozen=True)
class Table:
    """`details_in` is the column that the details belong to, where a format has no room below a row."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    details_in: int = 0


@dataclass(frozen=True)
class Section:
    """The lines introduce the table and the drawing, which is preformatted text."""

    title: str
    lines: tuple[str, ...] = ()
    table: Table | None = None
    drawing: str = ""


@dataclass(frozen=True)
class Page:
    """What was looked at, what came out, the evidence, and what follows."""

    title: str
    headline: str
    sections: tuple[Section, ...]
    closing: str
