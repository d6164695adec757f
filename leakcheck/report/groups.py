"""Findings that are one fault, as reports that list faults tell them: once, with all configurations that have it."""

from collections.abc import Sequence
from dataclasses import dataclass

from leakcheck.findings import AuditResult, Finding, Verdict
from leakcheck.report.words import among, counted

_GRAVEST_FIRST = (
    Verdict.LEAK,
    Verdict.CONTAMINATED,
    Verdict.SUSPECT,
    Verdict.OPEN,
    Verdict.PROVEN,
    Verdict.NOT_APPLICABLE,
)


@dataclass(frozen=True)
class Group:
    """`first` stands for all; `under` says in words which configurations they are."""

    first: Finding
    configurations: tuple[str, ...]
    under: str


def grouped(result: AuditResult) -> list[Group]:
    """One group for each fingerprint and verdict, gravest first, else in the order of the findings.

    Findings of older documents have no fingerprint: those are one that say the same of the same line.
    """
    groups: dict[tuple, list[Finding]] = {}
    for f in result.findings:
        same = (f.fingerprint,) if f.fingerprint else (f.code, f.policy, f.file, f.line, f.message)
        groups.setdefault((f.verdict, *same), []).append(f)
    every = list(dict.fromkeys([c.id for c in result.configurations] + [f.configuration for f in result.findings]))
    ordered = sorted(groups.values(), key=lambda group: _GRAVEST_FIRST.index(group[0].verdict))
    return [_group(group, every) for group in ordered]


def _group(findings: Sequence[Finding], every: Sequence[str]) -> Group:
    ids = tuple(dict.fromkeys(f.configuration for f in findings))
    if len(ids) == len(every) > 1:
        under = f"all {counted(len(ids), 'configuration')}"
    else:
        under = among(ids, every)
    return Group(findings[0], ids, under)
