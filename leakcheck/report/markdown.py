"""The audit as Markdown for a pull request or `$GITHUB_STEP_SUMMARY`: verdict, findings and configurations; the rest
folded.

GitHub shows no summary above 1 MiB. What would go beyond that is left out, and it says so.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from leakcheck.codes import CODES
from leakcheck.findings import AuditResult, Excerpt, Finding, Witness
from leakcheck.report import view
from leakcheck.report.inputs import shown_by
from leakcheck.report.layout import ALARMS, Row, Section, Table
from leakcheck.report.registry import renders
from leakcheck.report.words import counted, verdict, visible

_LIMIT = 2**20
_LONGEST = 2000  # characters of one text
_UNFOLDED = ("Policies", "Configurations")


@renders(".md")
def render(result: AuditResult) -> str:
    head = [f"# leakcheck: {_escaped(result.subject.spec)}", _escaped(view.subject_line(result))]
    head.append(f"> {_emphasised(view.headline(result))}")
    foot = _emphasised(view.closing(result))
    sections = [section for section in view.sections(result) if section.title != "Findings"]
    sections.sort(key=lambda section: section.title not in _UNFOLDED)
    room = _LIMIT - sum(map(_size, (*head, foot, *(_left_out(section) for section in sections))))
    found = _findings(result, room // 2)
    room -= _size(found)
    told = []
    for section in sections:
        text = _section(section)
        if _size(text) <= room:
            room -= _size(text)
            told.append(text)
        else:
            told.append(_left_out(section))
    return "\n\n".join(filter(None, [*head, found, *told, foot])) + "\n"


def _size(text: str) -> int:
    """In bytes, as it is written to a file, with the empty line after it."""
    return len(text.encode("utf-8", "backslashreplace")) + 2


def _left_out(section: Section) -> str:
    return f"**{section.title}** would make this page larger than GitHub shows; it is in the JSON report."


def _findings(result: AuditResult, room: int) -> str:
    """As many as there is room for; of the others how many there are."""
    smallest = view.by_id(result.witnesses)
    groups = view.same_findings(result.findings)
    blocks = ["## Findings"] if groups else []
    for done, group in enumerate(groups):
        text = "\n\n".join(_finding(group, len(result.configurations), smallest))
        room -= _size(text)
        if room < 0:
            blocks.append(f"And {counted(len(groups) - done, 'more finding')}, which the JSON report has.")
            break
        blocks.append(text)
    return "\n\n".join(blocks)


def _finding(group: Sequence[Finding], configurations: int, smallest: dict[str, Witness]) -> Iterator[str]:
    first = group[0]
    yield f"### {_escaped(first.code)} {_emphasised(verdict(first.verdict))}"
    yield _escaped(first.message)
    facts = [view.found_under(group, configurations)]
    if first.file:
        facts.append(f"at: {view.found_at(first)}")
    if first.witness:
        facts.append(f"witness: {view.witness_facts(first.witness)}")
        witness = smallest.get(first.witness.get("id", ""))
        facts += [f"smallest: {shown_by(witness)}"] if witness else []
    if first.code in CODES:
        facts.append(f"remedy: {CODES[first.code].remedy}")
    yield "\n".join(f"- {_escaped(fact)}" for fact in facts)
    if first.excerpt and first.excerpt.lines:
        yield _fenced("text", _marked(first.excerpt))
    if first.chain:
        steps = "\n".join(f"{number}. {_escaped(step)}" for number, step in enumerate(first.chain, 1))
        yield _folded(f"The way of the leak: {counted(len(first.chain), 'step')}", steps)
    if first.reproduce:
        yield "To see it again:"
        yield _fenced("sh", [first.reproduce])


def _marked(excerpt: Excerpt) -> Iterator[str]:
    """The lines with their numbers; those that are meant begin with `>`."""
    begin, _, end, _ = excerpt.region
    width = len(str(excerpt.first + len(excerpt.lines)))
    for number, line in enumerate(excerpt.lines, excerpt.first):
        yield f"{'>' if begin <= number <= end else ' '} {number:>{width}}  {line}".rstrip()


def _fenced(language: str, lines: Iterable[str]) -> str:
    text = "\n".join(_cropped(visible(line)) for line in lines)
    fence = "`" * max([3, *(len(ticks) + 1 for ticks in re.findall("`+", text))])
    return f"{fence}{language}\n{text}\n{fence}"


def _folded(summary: str, text: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"


def _section(section: Section) -> str:
    blocks = [_escaped(line) for line in section.lines]
    if section.table:
        blocks.append(_table(section.table))
    if section.drawing:
        blocks.append(_fenced("text", section.drawing.split("\n")))
    text = "\n\n".join(blocks)
    return f"## {section.title}\n\n{text}" if section.title in _UNFOLDED else _folded(f"<b>{section.title}</b>", text)


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
    text = _cropped(visible(text)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", text)


def _cropped(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"
