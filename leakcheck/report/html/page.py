"""What the page says beside the sections of all reports, and in which order all of it comes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from leakcheck.codes import CODES
from leakcheck.findings import AuditResult, Excerpt, Finding, Step
from leakcheck.report import view
from leakcheck.report.html.flowchart import IN_ORDER
from leakcheck.report.html.witnesses import Inputs, inputs_of
from leakcheck.report.layout import Section
from leakcheck.report.words import among

_FIRST = (
    "Policies",
    "Configurations",
    "Findings",
    "Checkpoints",
    "Horizon map",
    "Delta matrix",
    "Data flow",
    "Ablation",
    "Fidelity",
    "Safety checks",
    "Statistics",
    "Conclusions",
)
_LAST = ("How far this reaches", "Controls", "Environment")
# Sections of all reports that the page shows in a way of its own.
_OWN = {
    "Configurations": "configurations",
    "Findings": "findings",
    "Checkpoints": "checkpoints",
    "Data flow": "flow",
    "Ablation": "ablation",
}


@dataclass(frozen=True)
class Part:
    """A section of the page: `kind` says how it is shown, `section` has what all reports say there."""

    kind: str
    section: Section

    @property
    def title(self) -> str:
        return self.section.title

    @property
    def id(self) -> str:
        return self.title.lower().replace(" ", "-")


def parts(result: AuditResult) -> list[Part]:
    """All that have something to say. A section that the page does not know is shown as all reports show it."""
    found = {s.title: Part(_OWN.get(s.title, "section"), s) for s in view.sections(result)}
    if result.horizon_map and result.horizon_map.rows:
        found["Horizon map"] = Part("horizon", Section("Horizon map"))
    if result.delta_matrix and result.delta_matrix.deltas:
        found["Delta matrix"] = Part("deltas", Section("Delta matrix"))
    if result.checkpoints:
        found.setdefault("Data flow", Part("stages", Section("Data flow", (IN_ORDER,))))
    found["How far this reaches"] = Part("reach", Section("How far this reaches"))
    if result.environment:
        found["Environment"] = Part("environment", Section("Environment"))
    unknown = [title for title in found if title not in (*_FIRST, *_LAST)]
    return [found[title] for title in (*_FIRST, *unknown, *_LAST) if title in found]


def facts(result: AuditResult) -> dict[str, str]:
    """What to know first: under what, where, and the command that shows it again."""
    every = [c.id for c in result.configurations]
    same = [c.id for c in result.configurations if c.verdict is result.verdict]
    first = next((f for f in result.findings if f.verdict is result.verdict), None)
    known = {}
    if same:
        known["Configurations"] = f"{len(same)} of {len(every)}"
        if len(same) < len(every):
            known["Configurations"] += f": {among(same, every)}"
    if first and first.file:
        known["Where"] = view.found_at(first)
    if first and first.reproduce:
        known["See it again"] = first.reproduce
    return known


@dataclass(frozen=True)
class Stop:
    """Steps of the way that lie at one place; `here` marks the place that is to blame."""

    steps: tuple[Step, ...]
    excerpt: Excerpt | None
    here: bool


@dataclass(frozen=True)
class Told:
    """A finding in all its configurations, and in words what belongs to it."""

    finding: Finding
    title: str
    remedy: str
    meaning: str
    under: str
    at: str
    witness: str
    stops: tuple[Stop, ...]
    inputs: Inputs | None


def told(group: Sequence[Finding], result: AuditResult) -> Told:
    """`group`: findings that are the same but for the configuration."""
    first = group[0]
    code = CODES.get(first.code)
    alike = groupby(first.steps, key=lambda step: step.excerpt)
    return Told(
        finding=first,
        title=code.title if code else "",
        remedy=code.remedy if code else "",
        meaning=code.description if code else "",
        under=view.found_under(group, len(result.configurations)),
        at=view.found_at(first),
        witness=view.witness_facts(first.witness) if first.witness else "",
        stops=tuple(Stop(tuple(steps), at, at is not None and at == first.excerpt) for at, steps in alike),
        inputs=inputs_of(first, result.witnesses),
    )
