"""The audit as annotations that GitHub shows beside the lines of a change: workflow commands, for standard output."""

from collections.abc import Sequence

from leakcheck.codes import CODES
from leakcheck.findings import AuditResult, Excerpt, Finding, Verdict
from leakcheck.report import view
from leakcheck.report.groups import Group, grouped
from leakcheck.report.places import Base, place_of
from leakcheck.report.words import visible

_MOST = 10  # of each kind: GitHub shows no more for one step
_KINDS = {Verdict.LEAK: "error", Verdict.SUSPECT: "warning", Verdict.OPEN: "notice", Verdict.NOT_APPLICABLE: "error"}


def render(result: AuditResult) -> str:
    """The gravest first; what is too much of a kind is named on one line. The last line is for readers of the log."""
    lines = []
    groups = [group for group in grouped(result) if group.first.verdict in _KINDS]
    for kind in dict.fromkeys(_KINDS.values()):
        told = [group for group in groups if _KINDS[group.first.verdict] == kind]
        shown = told if len(told) <= _MOST else told[: _MOST - 1]
        lines += [_annotation(kind, group) for group in shown]
        if len(told) > len(shown):
            lines.append(_command(kind, {"title": "leakcheck"}, _rest(told[len(shown) :])))
        if not told and _KINDS.get(result.verdict) == kind:  # nothing that a finding tells
            lines.append(_command(kind, {"title": "leakcheck"}, view.headline(result)))
    return "\n".join([*lines, visible(f"leakcheck: {result.subject.spec}: {view.closing(result)}")]) + "\n"


def _annotation(kind: str, group: Group) -> str:
    """At the finding's line, or, if that is not in the repository, at the last line before it that is."""
    first = group.first
    properties = {"title": f"leakcheck ({first.code})"}
    said = [first.message or CODES[first.code].title, f"Policy {first.policy}, under {group.under}."]
    passing = _passing(first)
    if _ours(first.file):
        properties |= {"file": place_of(first.file)[1], **_region(first.line, first.excerpt)}
    elif passing:
        properties |= {"file": place_of(passing.file)[1], **_region(passing.region[0], passing)}
        said.append(f"At {_place(group)}; the way there passes this line.")
    elif first.file:
        said.append(f"At {_place(group)}.")
    if first.reproduce:
        said.append(f"See it again: {first.reproduce}")
    return _command(kind, properties, *said)


def _passing(finding: Finding) -> Excerpt | None:
    """The last line of the repository on the way to where the finding is."""
    passing = None
    for excerpt in (step.excerpt for step in finding.steps if step.excerpt):
        if _ours(excerpt.file):
            passing = excerpt
        elif (excerpt.file, excerpt.region[0]) == (finding.file, finding.line):
            break
    return passing


def _ours(file: str) -> bool:
    return bool(file) and place_of(file)[0] is Base.REPOSITORY


def _region(line: int | None, excerpt: Excerpt | None) -> dict[str, str]:
    """Columns only within one line: GitHub takes no others."""
    if line is None:
        return {}
    if excerpt is None:
        return {"line": f"{line}", "endLine": f"{line}"}
    line, column, last, end = excerpt.region
    columns = {"col": f"{column}", "endColumn": f"{end}"} if line == last and end > column else {}
    return {"line": f"{line}", "endLine": f"{last}", **columns}


def _rest(groups: Sequence[Group]) -> str:
    return f"{len(groups)} more: " + ", ".join(f"{group.first.code} at {_place(group)}" for group in groups)


def _place(group: Group) -> str:
    first = group.first
    if not first.file:
        return first.module or "the model"
    return first.file if first.line is None else f"{first.file}:{first.line}"


def _command(kind: str, properties: dict[str, str], *said: str) -> str:
    named = ",".join(f"{name}={_escaped(value, ':,')}" for name, value in properties.items())
    return f"::{kind} {named}::{'%0A'.join(map(_escaped, said))}"


def _escaped(text: str, also: str = "") -> str:
    text = visible(text).replace("%", "%25")
    for character in also:
        text = text.replace(character, f"%{ord(character):02X}")
    return text
