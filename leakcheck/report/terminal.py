"""The audit as tables in a terminal; plain text when it is piped, and nothing is said by colour alone."""

from collections.abc import Sequence
from itertools import groupby, zip_longest

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from leakcheck.findings import AuditResult
from leakcheck.report import layout, view
from leakcheck.report.layout import Page, Section, Table
from leakcheck.report.words import visible

_GAP = 2
_STYLES = {
    **dict.fromkeys(layout.ALARMS, "bold red"),
    **dict.fromkeys(layout.WARNINGS, "yellow"),
    **dict.fromkeys(layout.GOOD, "green"),
}


def print_audit(result: AuditResult, console: Console) -> None:
    print_page(view.page(result), console)


def print_page(page: Page, console: Console) -> None:
    _print(console, Text(visible(page.title), "bold"))
    _print(console, _styled(page.headline))
    for section in page.sections:
        _print_section(console, section)
    console.print()
    _print(console, _styled(page.closing))


def _print_section(console: Console, section: Section) -> None:
    console.print()
    _print(console, Text(f"── {section.title} ", "bold") + Text("─" * (console.width - len(section.title) - 4), "dim"))
    for line in section.lines:
        _print(console, Text(visible(line), "dim"))
    if section.table:
        console.print()
        _print_table(console, section.table)
    if section.drawing:
        console.print()
        drawing = Text(section.drawing)
        for word, style in _STYLES.items():
            drawing.highlight_regex(rf"\b{word}\b", style)
        console.print(drawing, no_wrap=True, overflow="crop")


def _print_table(console: Console, table: Table) -> None:
    widths = _widths(console.width, table)
    _print_row(console, [Text(visible(column), "bold") for column in table.columns], widths)
    indent = widths[0] + _GAP
    for group, rows in groupby(table.rows, key=lambda row: row.group):
        if group:
            console.print()
            _print(console, Text(visible(group), "italic underline"))
        for row in rows:
            _print_row(console, [_styled(cell) for cell in row.cells], widths)
            for detail in row.details:
                _print(console, Text(visible(detail), "dim"), indent)


def _widths(room: int, table: Table) -> list[int]:
    """Each column as wide as its widest cell; as long as that is too much, the widest one gives way."""
    lines: list[Sequence[str]] = [table.columns, *(row.cells for row in table.rows)]
    widths = [min(room, max(cell_len(visible(cell)) for cell in column)) for column in zip(*lines, strict=True)]
    room = max(room - _GAP * (len(widths) - 1), 3 * len(widths))
    while sum(widths) > room:
        widths[widths.index(max(widths))] -= 1
    return widths


def _print_row(console: Console, cells: Sequence[Text], widths: Sequence[int]) -> None:
    columns = [_wrapped(console, cell, width) for cell, width in zip(cells, widths, strict=True)]
    for parts in zip_longest(*columns, fillvalue=Text()):
        line = Text()
        for part, width in zip(parts, widths, strict=True):
            line.append_text(part)
            line.append(" " * (width - part.cell_len + _GAP))
        _print(console, line)


def _print(console: Console, text: Text, indent: int = 0) -> None:
    for line in _wrapped(console, text, console.width - indent):
        line.rstrip()
        console.print(Text(" " * indent) + line, soft_wrap=True)


def _wrapped(console: Console, text: Text, width: int) -> list[Text]:
    pieces = [text]
    dot = text.plain.rfind(".") + 1
    if dot and " " not in text.plain and text.cell_len > width:
        pieces = list(text.divide([dot]))  # Class. | method: better than wherever the column happens to end
    return [line for piece in pieces for line in piece.wrap(console, width, overflow="fold")]


def _styled(cell: str) -> Text:
    """The first word of a cell in its colour, if it is a verdict."""
    text = Text(visible(cell))
    word = text.plain.partition(" ")[0].rstrip(":")
    text.stylize(_STYLES.get(word, ""), 0, len(word))
    return text
