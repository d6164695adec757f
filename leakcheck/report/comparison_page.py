"""A comparison in words: what is alike in several layers or configurations becomes one row, the worse first."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from leakcheck.errors import ExitCode
from leakcheck.findings import Checkpoint, Verdict
from leakcheck.report.comparison import Change, Comparison, FindingChange, StageChange, Way
from leakcheck.report.layout import Page, Row, Section, Table
from leakcheck.report.view import found_at
from leakcheck.report.words import ahead, among, counted, magnitude, number, place, span, verdict

_CLOSING = {
    Way.WORSE: f"WORSE: something is worse than it was; exit {ExitCode.LEAK}",
    Way.BETTER: f"BETTER: nothing is worse than it was; exit {ExitCode.GATE_HOLDS}",
    Way.SAME: f"UNCHANGED: nothing is worse than it was; exit {ExitCode.GATE_HOLDS}",
}
_ORDER = list(Way)


def page(comparison: Comparison, old: str, new: str) -> Page:
    """`old` and `new` are what the two reports are called."""
    then, now = comparison.subjects
    if then == now:
        title = f"{then}: {old}, now {new}"
    else:
        title = f"Different subjects, compared all the same: {then} in {old}, now {now} in {new}"
    sections = (
        _difference_section(comparison),
        _finding_section(comparison),
        _verdict_section(comparison),
        _stage_section(comparison),
    )
    said = tuple(section for section in sections if section)
    return Page(title, f"{_word(comparison.way)}: {_summary(comparison)}.", said, _CLOSING[comparison.way])


def _word(way: Way) -> str:
    return "UNCHANGED" if way is Way.SAME else way.value


def _summary(comparison: Comparison) -> str:
    then, now = map(verdict, comparison.audits)
    states = [change.state for change in comparison.findings]
    told = {
        "findings": {state: states.count(state) for state in ("new", "fixed", "changed", "unchanged", "unseen")},
        "verdicts": _counts(comparison.verdicts),
        "stages": _counts(comparison.stages),
    }
    parts = [f"still {now}" if then == now else f"{then}, now {now}"]
    for what, counts in told.items():
        if any(counts.values()):
            parts.append(f"{what}: {', '.join(f'{count} {state}' for state, count in counts.items() if count)}")
    return "; ".join(parts)


def _counts(changes: Sequence[Change | StageChange]) -> dict[str, int]:
    ways = [change.way for change in changes]
    return {way.value.lower(): ways.count(way) for way in (Way.WORSE, Way.BETTER)}


def _difference_section(comparison: Comparison) -> Section | None:
    rows = tuple(Row(difference) for difference in comparison.differences)
    lines = ("What the audits were made of and with; it decides nothing, and may explain.",)
    return Section("Made differently", lines, Table(("", "then", "now"), rows)) if rows else None


def _finding_section(comparison: Comparison) -> Section | None:
    found = sorted(comparison.findings, key=lambda f: _ORDER.index(f.way))
    rows = tuple(Row(_finding_cells(f), tuple(_finding_details(f, comparison))) for f in found)
    columns = ("change", "", "code", "verdict", "finding")
    return Section("Findings", (), Table(columns, rows, details_in=4)) if rows else None


def _finding_cells(change: FindingChange) -> tuple[str, ...]:
    finding = change.finding
    return _way(change.way), change.state, finding.code, finding.verdict.value, finding.message


def _finding_details(change: FindingChange, comparison: Comparison) -> list[str]:
    finding = change.finding
    details = [change.note] if change.note else []
    if change.state == "unseen":
        details.append("found then, not looked for now")
    details.append(f"{finding.policy}, {_under(change.where, comparison)}")
    if finding.file:
        details.append(f"at: {found_at(finding)}")
    if finding.reproduce and change.way is Way.WORSE:
        details.append(f"reproduce: {finding.reproduce}")
    return details


def _verdict_section(comparison: Comparison) -> Section | None:
    alike: dict[tuple, list[Change]] = defaultdict(list)
    for change in comparison.verdicts:
        alike[_ORDER.index(change.way), change.of, change.old, change.new].append(change)
    rows = []
    for (_, of, old, new), changes in sorted(alike.items(), key=lambda item: item[0][0]):
        where = [change.where for change in changes if change.where]
        details = [_under(where, comparison)] if where else []
        details += _moved(changes)
        rows.append(Row((_way(changes[0].way), of, old, new), tuple(details)))
    columns = ("change", "of", "then", "now")
    return Section("Verdicts and coverage", (), Table(columns, tuple(rows), details_in=1)) if rows else None


def _moved(changes: Iterable[Change]) -> list[str]:
    """How far the output moved, where it moved farthest; only where that is a matter of the verdict."""
    moved = [c for c in changes if c.moved and Verdict.LEAK in (c.old, c.new)]
    if not moved:
        return []
    top = max(moved, key=lambda c: max(map(magnitude, c.moved or ())))
    then, now = map(number, top.moved or ())
    return [f"moved {then}, now {now} under {top.where}"]


def _stage_section(comparison: Comparison) -> Section | None:
    rows = _stage_rows(comparison)
    table = Table(("change", "stage", "layer", "then, sees", "now, sees"), rows, details_in=1) if rows else None
    lines = []
    if rows:
        both = counted(comparison.stages_compared, "stage")
        lines.append(f"{len(comparison.stages)} of {both} that were measured both times.")
        lines.append("Sees: how many positions ahead at most; ? where the proof has a hole.")
    for name, count in zip(("then", "now"), comparison.stages_alone, strict=True):
        if count:
            lines.append(f"Measured {name} only, so not compared: {counted(count, 'stage')}.")
    return Section("Checkpoints", tuple(lines), table) if lines else None


def _stage_rows(comparison: Comparison) -> tuple[Row, ...]:
    """One row for all layers and configurations of a stage, and for both paths where they say the same."""
    alike: dict[tuple, list[StageChange]] = defaultdict(list)
    for change in comparison.stages:
        new = change.new
        said = (_seen(change.old), _seen(new))
        alike[_ORDER.index(change.way), new.stage, new.function, new.title, *said, new.path].append(change)
    paths: dict[tuple, list[str]] = defaultdict(list)
    for (*stage, path), changes in sorted(alike.items(), key=lambda item: item[0]):
        first = changes[0].new
        layers = span({c.new.layer for c in changes if c.new.layer is not None})
        where = _under({c.new.configuration for c in changes}, comparison)
        named = f"{first.title or first.module}, {place(first.file, first.lines)}"
        paths[*stage, layers, where, named].append(path)
    return tuple(
        Row((_way(_ORDER[way]), function, layers, then, now), (named, f"{' and '.join(path)} path, {where}"))
        for (way, _, function, _, then, now, layers, where, named), path in paths.items()
    )


def _seen(c: Checkpoint) -> str:
    return f"{c.verdict} {ahead(c.horizon)}"


def _way(way: Way) -> str:
    return "" if way is Way.SAME else way.value


def _under(where: Iterable[str], comparison: Comparison) -> str:
    ids = set(where)
    every = sorted(ids.union(comparison.configurations))
    if ids == set(every) and len(every) > 1:
        return f"all {counted(len(every), 'configuration')}"
    return f"{counted(len(ids), 'configuration')}: {among(ids, every)}"
