"""What a report says, section by section and in this order; how it looks is each renderer's own matter."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import PurePath

from leakcheck.codes import CONTROL_FLOW, NO_RULE, OPAQUE, SOFT_MASK
from leakcheck.errors import ExitCode
from leakcheck.findings import (
    REACH,
    AblationRow,
    AuditResult,
    Conclusion,
    ConfigurationResult,
    Control,
    Fidelity,
    Finding,
    PathStatistics,
    SafetyCheck,
    Verdict,
    Witness,
)
from leakcheck.report.inputs import shown_by
from leakcheck.report.layout import Page, Row, Section, Table
from leakcheck.report.policies import asked_beside, established, evidence, policy_section, worst_policies
from leakcheck.report.stages import checkpoint_section, data_flow_section
from leakcheck.report.words import counted, magnitude, number, place, shortened, verdict

_ESTABLISHED = {
    Verdict.PROVEN: "no past output depends on a future token",
    Verdict.OPEN: "measured clean, not proven",
    Verdict.SUSPECT: "signs of the future, no witness",
    Verdict.LEAK: "the future reaches the past",
    Verdict.NOT_APPLICABLE: "nothing to measure",
}
# The same under a contract other than strict causality.
_KEPT = {
    Verdict.PROVEN: "no output depends on an input that the contract {contract} hides",
    Verdict.OPEN: "measured to keep to the contract {contract}, not proven",
    Verdict.SUSPECT: "signs that the contract {contract} is broken, no witness",
    Verdict.LEAK: "the contract {contract} is broken",
    Verdict.NOT_APPLICABLE: "nothing to measure",
}
_SEEN = {
    Verdict.PROVEN: "every position depends on a later input",
    Verdict.OPEN: "the harness missed a known answer",
    Verdict.SUSPECT: "some position moved with no later input, which is no proof that it depends on none",
    Verdict.LEAK: "some position depends on no later input",
    Verdict.NOT_APPLICABLE: "nothing to measure",
}
CAUSAL, BIDIRECTIONAL = "causal", "bidirectional"
_HOLES = {code.id for code in (NO_RULE, OPAQUE, CONTROL_FLOW)}
_WARNED = f"exit {ExitCode.GATE_HOLDS}: gate holds with a warning, exit {ExitCode.INCONCLUSIVE} under --strict"
_EXIT = {
    Verdict.PROVEN: f"exit {ExitCode.GATE_HOLDS}: gate holds",
    Verdict.OPEN: _WARNED,
    Verdict.SUSPECT: _WARNED,
    Verdict.LEAK: f"exit {ExitCode.LEAK}: leak",
    Verdict.NOT_APPLICABLE: f"exit {ExitCode.NOTHING_CHECKED}: nothing was checked",
}


def page(result: AuditResult) -> Page:
    return Page(subject_line(result), headline(result), tuple(sections(result)), closing(result))


def subject_line(result: AuditResult) -> str:
    """What was audited; what it reads only where that is no matter of course, and a contract only if it is another."""
    subject = result.subject
    if subject.full_size is not None:
        full = subject.full_size
        line = (
            f"{subject.spec}: {subject.class_name}; proof: full size, {full.parameters:,} parameters, weight-free, "
            f"seq_len {full.seq_len}; probes: a shrunken copy of {subject.parameters:,} parameters, "
            f"seq_len {subject.seq_len}, {subject.weights} weights"
        )
    else:
        line = (
            f"{subject.spec}: {subject.class_name}, {subject.parameters:,} parameters, seq_len {subject.seq_len}, "
            f"{subject.weights} weights"
        )
    if not subject.inputs.startswith("int[batch, time]"):
        line += f", reads {subject.inputs}" if subject.inputs else ""
    if subject.outputs not in ("", "0: at each step"):
        line += f", audited outputs {subject.outputs}"
    if subject.accepted:
        line += f", batch coupling accepted in {', '.join(subject.accepted)}"
    return line if subject.contract == CAUSAL else f"{line}, contract {subject.contract}"


def headline(result: AuditResult) -> str:
    """The verdict, and in a sentence what was established and by what."""
    return f"{verdict(result.verdict)}: {_established(result)}. {_evidence(result)}"


def closing(result: AuditResult) -> str:
    return f"{verdict(result.verdict)}: {_established(result)}; {_EXIT[result.verdict]}"


def sections(result: AuditResult) -> list[Section]:
    """All sections that have something to say."""
    checkpoints = result.checkpoints
    return [
        section
        for section in (
            policy_section(result.configurations, partial(_of_time, result))
            if asked_beside(result.configurations)
            else None,
            configuration_section(result.configurations) if result.configurations else None,
            _checkpoints(result) if checkpoints else None,
            statistics_section(result.statistics) if result.statistics else None,
            safety_section(result.safety_checks, len(result.configurations)) if result.safety_checks else None,
            ablation_section(result.ablation) if result.ablation else None,
            fidelity_section(result.fidelity) if result.fidelity else None,
            conclusion_section(result.conclusions) if result.conclusions else None,
            data_flow_section(checkpoints),
            finding_section(result.findings, len(result.configurations), result.witnesses) if result.findings else None,
            control_section(result.controls) if result.controls else None,
        )
        if section
    ]


def _checkpoints(result: AuditResult) -> Section:
    subject = result.subject
    return checkpoint_section(
        result.checkpoints, copy=subject.full_size is not None, promised=subject.contract != CAUSAL
    )


def reach(result: AuditResult) -> str:
    """How far a proof reaches, as the end of a sentence."""
    soft = any(f.code == SOFT_MASK.id for f in result.findings)
    margin = f" It holds as long as scores stay above the soft masks ({SOFT_MASK.id})." if soft else ""
    return f"{REACH}, for each mask and {_positions(result)}.{margin}"


def _positions(result: AuditResult) -> str:
    proven = result.subject.full_size or result.subject
    return counted(proven.seq_len, "position")


def _of_copy(result: AuditResult) -> str:
    return " of the shrunken copy" if result.subject.full_size is not None else ""


def _missed(result: AuditResult) -> list[str]:
    return [control.name for control in result.controls if not control.caught]


def _established(result: AuditResult) -> str:
    if result.verdict is Verdict.OPEN and _missed(result):
        return "the harness missed a known answer"
    if asked_beside(result.configurations):
        named = worst_policies(result.configurations, result.verdict)
        told = [said(result, policy, result.verdict) for policy in named]
        return "; ".join(told) or _ESTABLISHED[Verdict.NOT_APPLICABLE]
    return _of_time(result, result.verdict)


def said(result: AuditResult, policy: str, of: Verdict) -> str:
    """What a verdict of a policy says, in words."""
    return _of_time(result, of) if policy == result.subject.contract else established(policy, of)


def _of_time(result: AuditResult, of: Verdict) -> str:
    """What a verdict of the contract says."""
    if result.subject.contract == BIDIRECTIONAL:
        return _SEEN[of]
    if result.subject.contract != CAUSAL:
        return _KEPT[of].format(contract=result.subject.contract)
    return _ESTABLISHED[of]


def _evidence(result: AuditResult) -> str:
    measured = [c for c in result.configurations if c.verdict is not Verdict.NOT_APPLICABLE]
    everywhere = counted(len(measured), "configuration")
    affected = [c for c in measured if c.verdict is result.verdict]
    if asked_beside(result.configurations) and not (result.verdict is Verdict.OPEN and _missed(result)):
        return f"{evidence(result.configurations)}."
    match result.verdict:
        case _ if result.subject.contract == BIDIRECTIONAL:
            return f"{len(affected)} of {everywhere}; shown by inputs that were changed, {_positions(result)}."
        case Verdict.LEAK:
            return _witness(result, affected, everywhere)
        case Verdict.SUSPECT:
            return f"In {len(affected)} of {everywhere} a dependence on the future is possible; see the findings."
        case Verdict.OPEN if _missed(result):
            return f"What it measured settles nothing. Missed: {', '.join(_missed(result))}."
        case Verdict.OPEN:
            largest = max((c.output_delta for c in measured), key=magnitude, default=0.0)
            beyond = f" beyond rounding (at most {number(largest)})" if largest else ""
            return (
                f"No change of a future token moved any past output{_of_copy(result)}{beyond} in {everywhere}; "
                f"{_coverage(measured)} (past, future) position pairs.{_hole(result)}"
            )
        case Verdict.PROVEN:
            return f"Proven in {everywhere}, {reach(result)}"
        case _:
            return "No configuration could be measured."


def _witness(result: AuditResult, leaking: Sequence[ConfigurationResult], everywhere: str) -> str:
    if not leaking:
        return "See the findings."
    top = max(leaking, key=lambda c: magnitude(c.output_delta))
    whose = "future tokens moved a past" if result.subject.contract == CAUSAL else "what it hides moved an"
    what = f"{whose} output{_of_copy(result)}"
    moved = f"A change of {what} by {number(top.output_delta)} under {top.id}; "
    evidence = f"{moved if top.output_delta else ''}{len(leaking)} of {everywhere} {_verb(leaking)}."
    first = next((f for f in result.findings if f.verdict is Verdict.LEAK and f.file), None)
    if first:
        evidence += f" See {first.code} at {PurePath(first.file).name}{f':{first.line}' if first.line else ''}."
    return evidence


def _hole(result: AuditResult) -> str:
    """Why it is not proven: the first hole."""
    hole = next((f for f in result.findings if f.code in _HOLES), None)
    if hole is None:
        return ""
    return f" The proof ends at {hole.code}{f', {PurePath(hole.file).name}:{hole.line}' if hole.file else ''}."


def _verb(leaking: Sequence[ConfigurationResult]) -> str:
    return "leaks" if len(leaking) == 1 else "leak"


def _coverage(measured: Sequence[ConfigurationResult]) -> str:
    each = {(c.pairs_covered, c.pairs_total) for c in measured}
    if len(each) == 1:
        covered, total = each.pop()
        return f"each covers {covered} of {total}"
    return f"together they cover {sum(c.pairs_covered for c in measured)} of {sum(c.pairs_total for c in measured)}"


def configuration_section(configurations: Sequence[ConfigurationResult]) -> Section:
    masks = tuple(dict.fromkeys(c.mask for c in configurations))
    matrix: dict[tuple[str, str, str], dict[str, str]] = {}
    for c in configurations:
        leaks = c.verdict in (Verdict.LEAK, Verdict.SUSPECT)
        largest = max((c.output_delta, *(d for d in c.policy_deltas.values() if d is not None)), key=magnitude)
        cell = f"{verdict(c.verdict)} {number(largest)}" if leaks else verdict(c.verdict)
        matrix.setdefault((c.attention, c.mode, c.cache), {})[c.mask] = cell
    rows = tuple(
        Row((attention, mode if cache == "none" else f"{mode}, {cache} cache", *(cells.get(m, "-") for m in masks)))
        for (attention, mode, cache), cells in matrix.items()
    )
    padded = sum(c.padded_queries for c in configurations)
    lines = ["Columns: the attention mask given. Number: how far a past output moved."]
    if asked_beside(configurations):
        lines = ["Columns: the attention mask given. The worst of all policies; how far an output moved that must not."]
    if any(c.verdict is Verdict.PROVEN and BIDIRECTIONAL not in c.policies for c in configurations):
        lines.append(f"PROVEN: {REACH}, for this mask and length.")
    if padded:
        moved = sum(c.padded_queries_moved for c in configurations)
        lines.append(f"Padded query rows, never used and so counted apart: {moved} of {padded} moved.")
    return Section("Configurations", tuple(lines), Table(("attention", "mode", *masks), rows))


def statistics_section(statistics: dict[str, PathStatistics]) -> Section:
    rows = tuple(
        Row(
            (
                path,
                _beside(counts.call_depth, counts.claimed_call_depth),
                _beside(counts.nodes, counts.claimed_nodes),
                _beside(counts.safety_checks, counts.claimed_safety_checks),
            )
        )
        for path, counts in statistics.items()
    )
    return Section("Statistics", (), Table(("path", "call depth", "key nodes", "safety checks"), rows))


def _beside(measured: int | None, claimed: int | None) -> str:
    if claimed is None:
        return "-" if measured is None else f"{measured}"
    if measured == claimed:
        return f"{measured}, as claimed"
    return f"{'none' if measured is None else measured} ≠ claimed {claimed}"


def safety_section(checks: Sequence[SafetyCheck], configurations: int) -> Section:
    rows = []
    for check in checks:
        acting = sum(count > 0 for count in check.acted.values())
        acted = f"{sum(check.acted.values())}x, in {acting} of {counted(configurations, 'configuration')}"
        details = [check.evidence] if check.evidence else []
        if check.where:
            details.append(f"{place(check.where.file, check.where.lines)}  {shortened(check.where.operation)}")
        if check.mask is not None:
            details.append(f"mask: {check.mask}")
        idle = [id for id, count in check.acted.items() if not count]
        if acting and idle:
            details.append(f"did not act under {', '.join(idle)}")
        cells = (check.id, verdict(check.verdict), check.claim, acted, "yes" if check.load_bearing else "no")
        rows.append(Row(cells, tuple(details)))
    columns = ("#", "verdict", "claim", "acted", "load-bearing")
    return Section("Safety checks", (), Table(columns, tuple(rows), details_in=2))


def ablation_section(ablation: Sequence[AblationRow]) -> Section:
    checks = tuple(dict.fromkeys(check for row in ablation for check in row.checks))
    paths = tuple(dict.fromkeys(path for row in ablation for path in row.paths))
    configurations = list(dict.fromkeys(row.configuration for row in ablation))
    rows = tuple(
        Row(
            (
                *({True: "on", False: "off", None: "-"}[row.checks.get(check)] for check in checks),
                *(verdict(row.paths[path]) if path in row.paths else "-" for path in paths),
                number(row.output_delta),
                row.first_leak or "-",
            ),
            group=row.configuration,
        )
        for row in sorted(ablation, key=lambda row: configurations.index(row.configuration))
    )
    lines = ("The checks taken away one by one and together, and what is measured then.",)
    return Section("Ablation", lines, Table((*checks, *paths, "delta", "first leak"), rows))


def fidelity_section(fidelity: Fidelity) -> Section:
    at = {"layer": fidelity.layer, "head": fidelity.head, "position": fidelity.position}
    where = ", ".join(f"{name} {index}" for name, index in at.items() if index is not None)
    line = (
        f"The re-mask moves a row of stored weights by up to {number(fidelity.worst)}{where and f' ({where})'}, by "
        f"{number(fidelity.mean)} on average (total variation distance): no leak, but a change of the function."
        if fidelity.worst
        else "The re-mask leaves the stored weights as they are."
    )
    return Section("Fidelity", (line,))


def conclusion_section(conclusions: Sequence[Conclusion]) -> Section:
    rows = tuple(Row((c.id, verdict(c.verdict), c.claim), (c.evidence,) if c.evidence else ()) for c in conclusions)
    return Section("Conclusions", (), Table(("#", "verdict", "claim"), rows, details_in=2))


def finding_section(findings: Sequence[Finding], configurations: int, witnesses: Sequence[Witness] = ()) -> Section:
    rows = tuple(
        Row(
            (group[0].code, verdict(group[0].verdict), group[0].message),
            (found_under(group, configurations), *finding_details(group[0], by_id(witnesses))),
        )
        for group in same_findings(findings)
    )
    return Section("Findings", (), Table(("code", "verdict", "finding"), rows, details_in=2))


def same_findings(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Findings that are the same but for the configuration become one, with the first one's witness."""
    groups: dict[tuple, list[Finding]] = {}
    for finding in findings:
        key = (finding.code, finding.verdict, finding.policy, finding.file, finding.line, finding.message)
        groups.setdefault(key, []).append(finding)
    return list(groups.values())


def found_under(group: Sequence[Finding], configurations: int) -> str:
    """The policy, and the configurations in which the finding is the same."""
    ids = list(dict.fromkeys(finding.configuration for finding in group))
    if len(ids) == configurations > 1:
        return f"{group[0].policy}, all {counted(len(ids), 'configuration')}"
    return f"{group[0].policy}, {counted(len(ids), 'configuration')}: {', '.join(ids)}"


def found_at(finding: Finding) -> str:
    """File, line and module; empty where no file is known."""
    if not finding.file:
        return ""
    at = finding.file if finding.line is None else f"{finding.file}:{finding.line}"
    return at + (f" in {finding.module}" if finding.module else "")


def witness_facts(witness: dict) -> str:
    facts = ((name, value) for name, value in witness.items() if name != "id")
    return ", ".join(f"{name} {number(value) if isinstance(value, float) else value}" for name, value in facts)


def by_id(witnesses: Sequence[Witness]) -> dict[str, Witness]:
    return {witness.id: witness for witness in witnesses}


def finding_details(finding: Finding, witnesses: Mapping[str, Witness]) -> list[str]:
    """All lines about a finding but its message and configuration."""
    details = []
    if finding.file:
        details.append(f"at: {found_at(finding)}")
    if finding.chain:
        details.append("chain:")
        details.extend(f"-> {step}" for step in finding.chain)
    return details + shown_again(finding, witnesses)


def shown_again(finding: Finding, witnesses: Mapping[str, Witness]) -> list[str]:
    """What was seen, and how to see it again."""
    details = []
    if finding.witness:
        details.append(f"witness: {witness_facts(finding.witness)}")
        smallest = witnesses.get(finding.witness.get("id", ""))
        if smallest:
            details.append(f"smallest: {shown_by(smallest)}")
    if finding.reproduce:
        details.append(f"reproduce: {finding.reproduce}")
    return details


def control_section(controls: Sequence[Control]) -> Section:
    rows = tuple(Row(("caught" if c.caught else "MISSED", f"{c.name} (expected: {c.expected})")) for c in controls)
    return Section("Controls", ("Known answers put to the harness itself.",), Table(("outcome", "control"), rows))
