"""The audit as Markdown tables, to be read in a pull request or in `$GITHUB_STEP_SUMMARY`."""

import re
from itertools import groupby

from leakcheck.findings import AuditResult
from leakcheck.report import view
from leakcheck.report.layout import ALARMS, Row, Section, Table
from leakcheck.report.registry import renders
from leakcheck.report.words import visible


@renders(".md")
def render(result: AuditResult) -> str:
    blocks = [f"# leakcheck: {_escaped(result.subject.spec)}", _escaped(view.subject_line(result))]
    blocks.append(f"> {_emphasised(view.headline(result))}")
    for section in view.sections(result):
        blocks += _section(section)
    blocks.append(_emphasised(view.closing(result)))
    return "\n\n".join(blocks) + "\n"


def _section(section: Section) -> list[str]:
    blocks = [f"## {section.title}", *(_escaped(line) for line in section.lines)]
    if section.table:
        blocks.append(_table(section.table))
    if section.drawing:
        blocks.append(f"```text\n{section.drawing}\n```")
    return blocks


def _table(table: Table) -> str:
    lines = [_line([_escaped(column) for column in table.columns]), _line(["---"] * len(table.columns))]
    for group, rows in groupby(table.rows, key=lambda row: row.group):
        if group:
            title = [""] * len(table.columns)
            title[table.details_in] = f"*{_escaped(group)}*"
            lines.append(_line(title))
        lines += [_row(row, table.details_in) for row in rows]
    return "\n".join(lines)


def _row(row: Row, details_in: int) -> str:
    cells = [_emphasised(cell) for cell in row.cells]
    cells[details_in] = "<br>".join([cells[details_in], *(_escaped(detail) for detail in row.details)])
    return _line(cells)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _emphasised(text: str) -> str:
    """A word of alarm at the start of the text in bold."""
    word = re.split(r"\W", text, maxsplit=1)[0]
    return f"**{word}**{_escaped(text[len(word) :])}" if word in ALARMS else _escaped(text)


def _escaped(text: str) -> str:
    """`text` as Markdown that renders as just that text: no markup, no table cell, no HTML."""
    text = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", text)
