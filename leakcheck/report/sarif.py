"""The audit as SARIF 2.1.0, for code scanning: a result for each fault, and one for each policy without a finding.

What GitHub refuses in a log is kept out of it: results without a place, more than it takes, empty strings.
"""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from leakcheck import codes
from leakcheck.codes import CODES, Code
from leakcheck.findings import AuditResult, Excerpt, Finding, Step, Verdict, worst
from leakcheck.report import view
from leakcheck.report.groups import Group, grouped
from leakcheck.report.places import Base, file_of, place_of, uri
from leakcheck.report.policies import by_policy
from leakcheck.report.registry import renders
from leakcheck.report.words import counted, verdict, visible

Object = dict[str, Any]

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_MOST_RESULTS, _MOST_STEPS = 25_000, 1_000  # of a run: GitHub refuses more; of a flow: it shows no more
_KINDS = {
    Verdict.LEAK: "fail",
    Verdict.SUSPECT: "open",
    Verdict.OPEN: "open",
    Verdict.PROVEN: "pass",
    Verdict.NOT_APPLICABLE: "notApplicable",
}
_SEVERITIES = {Verdict.LEAK: "error", Verdict.SUSPECT: "warning", Verdict.OPEN: "warning"}
_OF_POLICY = {
    "bidirectional": codes.SEES_NO_LATER,
    "padding": codes.PADDING_DEPENDENCE,
    "document": codes.DOCUMENT_DEPENDENCE,
    "cache": codes.CACHE_DISAGREES,
    "batch": codes.ROW_DEPENDENCE,
}
# What these say is of the run as well: an error means that its other results are incomplete, or not to be trusted.
_OF_RUN = {
    codes.NO_RULE.id: "warning",
    codes.OPAQUE.id: "warning",
    codes.CONTROL_FLOW.id: "warning",
    codes.VACUOUS.id: "warning",
    codes.CONTRADICTION.id: "error",
    codes.DID_NOT_RUN.id: "error",
}
_NAMES = {
    code.id: name.title().replace("_", "") for name, code in vars(codes).items() if isinstance(code, Code)
}  # FUTURE_DEPENDENCE: FutureDependence


@renders(".sarif", ".sarif.json")
def render(result: AuditResult) -> str:
    log = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [_run(result)]}
    return json.dumps(log, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def _run(result: AuditResult) -> Object:
    groups = grouped(result)
    notifications = _notifications(result, groups)
    successful = not any(notification["level"] == "error" for notification in notifications)
    results = [_of_group(group, result) for group in groups[:_MOST_RESULTS]]
    results += _of_policies(result, successful=successful)[: _MOST_RESULTS - len(results)]

    used = {entry["ruleId"] for entry in results}
    rules = [code for code in CODES.values() if code.id in used]
    index = {code.id: number for number, code in enumerate(rules)}
    for entry in results:
        entry["ruleIndex"] = index[entry["ruleId"]]
    return {
        "tool": {
            "driver": {
                "name": result.tool.name,
                "version": result.tool.version,
                "rules": [_rule(code, results) for code in rules],
            }
        },
        "automationDetails": {"id": f"leakcheck/{visible(result.subject.spec)}/"},
        "invocations": [{"executionSuccessful": successful, "toolExecutionNotifications": notifications}],
        "originalUriBaseIds": {
            Base.REPOSITORY.value: {"description": {"text": "The root of the repository, or where leakcheck was run."}},
            Base.INSTALLED.value: {"description": {"text": "The folder of installed Python packages."}},
        },
        "columnKind": "unicodeCodePoints",
        "results": results,
        "properties": {"subject": visible(view.subject_line(result)), "verdict": result.verdict.value},
    }


def _rule(code: Code, results: Sequence[Object]) -> Object:
    found = worst(Verdict(entry["properties"]["verdict"]) for entry in results if entry["ruleId"] == code.id)
    return {
        "id": code.id,
        "name": _NAMES[code.id],
        "shortDescription": {"text": f"{code.title[:1].upper()}{code.title[1:]}."},
        "fullDescription": {"text": code.description},
        "help": {
            "text": f"{code.description} To fix it: {code.remedy}.",
            "markdown": code.page,
        },
        "properties": {"problem.severity": _SEVERITIES.get(found, "recommendation")},
    }


def _of_group(group: Group, result: AuditResult) -> Object:
    first = group.first
    flow = _flow(first.steps)
    message = first.message or CODES[first.code].title
    said = [message if message.endswith(".") else f"{message}.", f"Policy {first.policy}, under {group.under}."]
    said += [f"{line[:1].upper()}{line[1:]}" for line in view.shown_again(first, view.by_id(result.witnesses))]
    return _result(
        first.code,
        first.verdict,
        _message(said),
        _place(first, result),
        _module(first.module),
        {
            "policy": visible(first.policy),
            "configurations": [visible(id) for id in group.configurations],
            "operation": visible(first.operation),
            "chain": [] if flow else [visible(step) for step in first.chain],
            "witness": {visible(key): _value(value) for key, value in (first.witness or {}).items()},
            "reproduce": visible(first.reproduce),
        },
        partialFingerprints={"leakcheck/v1": visible(first.fingerprint)} if first.fingerprint else {},
        codeFlows=[{"threadFlows": [{"locations": flow}]}] if flow else [],
    )


def _of_policies(result: AuditResult, *, successful: bool) -> list[Object]:
    """What is proven, unless the run failed; and what was left open without a finding that says where."""
    told = {(f.policy, f.verdict) for f in result.findings if f.verdict is not Verdict.PROVEN}
    found = []
    for policy, verdicts in by_policy(result.configurations).items():
        of = worst(each for _, each in verdicts)
        if of is Verdict.NOT_APPLICABLE or (policy, of) in told or (of is Verdict.PROVEN and not successful):
            continue
        ids = [visible(c.id) for c, each in verdicts if each is of]
        said = (
            f"{view.said(result, policy, of)}: {verdict(of)} in {len(ids)} of {counted(len(verdicts), 'configuration')}"
        )
        said += f", {view.reach(result)}" if of is Verdict.PROVEN else "."
        code = _OF_POLICY.get(policy, codes.FUTURE_DEPENDENCE)
        found.append(
            _result(
                code.id,
                of,
                _message([f"{said[:1].upper()}{said[1:]}"]),
                _place_of_model(result),
                [],
                {"policy": visible(policy), "configurations": ids},
            )
        )
    return found


def _result(
    code: str, of: Verdict, message: Object, place: Object, module: list[Object], properties: Object, **more: Any
) -> Object:
    return {
        "ruleId": code,
        "kind": _KINDS[of],
        "level": "error" if _KINDS[of] == "fail" else "none",
        "message": message,
        "locations": [{"physicalLocation": place, **_filled(logicalLocations=module)}],
        **_filled(**more),
        "properties": {"verdict": of.value, **_filled(**properties)},
    }


def _notifications(result: AuditResult, groups: Sequence[Group]) -> list[Object]:
    """Why the run is not to be read as one that saw everything."""
    found = [
        _notification(_OF_RUN[first.code], first.code, first.message, [{"physicalLocation": _place(first, result)}])
        for first in (group.first for group in groups)
        if first.code in _OF_RUN
    ]
    found += [
        _notification("error", codes.CONTROL_MISSED.id, f"control missed: {control.name}")
        for control in result.controls
        if not control.caught
    ]
    if result.verdict is Verdict.NOT_APPLICABLE:
        found.append(_notification("error", "", "nothing was checked"))
    if len(groups) > _MOST_RESULTS:
        found.append(
            _notification("warning", "", f"{len(groups) - _MOST_RESULTS} more findings are in the JSON report")
        )
    return found


def _notification(level: str, code: str, text: str, locations: Sequence[Object] = ()) -> Object:
    descriptor = {"id": code} if code else {}
    return {"level": level, "message": _message([text]), **_filled(descriptor=descriptor, locations=list(locations))}


def _flow(steps: Sequence[Step]) -> list[Object]:
    """The steps at their places. One without a line is told, as such, at the step before; the first ones are
    told together with the step after. Without any place there is no flow."""
    located: list[tuple[str, Object, list[Object]]] = []
    waiting = ""
    for step in steps:
        text = f"{waiting}{step.text} in {step.module}" if step.module else f"{waiting}{step.text}"
        if step.excerpt or located:
            at = _at(step.excerpt) if step.excerpt else located[-1][1]
            located.append((text if step.excerpt else f"{text} (no line of its own)", at, _module(step.module)))
        waiting = "" if located else f"{text}; then "
    if len(located) > _MOST_STEPS:
        half, left_out = _MOST_STEPS // 2, len(located) - _MOST_STEPS + 1
        located[half : half + left_out] = [(f"{left_out} steps are left out", located[half][1], [])]
    return [
        {"location": {"message": _message([text]), "physicalLocation": at, **_filled(logicalLocations=module)}}
        for text, at, module in located
    ]


def _place(finding: Finding, result: AuditResult) -> Object:
    if finding.excerpt:
        return _at(finding.excerpt)
    return _physical(finding.file, finding.line or 1) if finding.file else _place_of_model(result)


def _place_of_model(result: AuditResult) -> Object:
    """Where the SPEC's file begins with the model, as far as it is one; else where the forward does."""
    file = file_of(result.subject.spec)
    for c in result.checkpoints:
        if file is None or place_of(c.file) == place_of(file):
            return _physical(c.file, c.lines[0])
    return _physical(file or result.subject.spec, 1)


def _physical(file: str, line: int) -> Object:
    """A line of which no columns are known: the point at its start."""
    return {"artifactLocation": _artifact(file), "region": _region(line, 1, line, 1)}


def _at(excerpt: Excerpt) -> Object:
    first, column, last, end = excerpt.region
    lines = [_source(line) for line in excerpt.lines]
    marked = lines[first - excerpt.first : last - excerpt.first + 1] if first >= excerpt.first else []
    place = {"artifactLocation": _artifact(excerpt.file), "region": _region(*excerpt.region)}
    if len(marked) == last - first + 1:
        marked[-1] = marked[-1][: end - 1]
        marked[0] = marked[0][column - 1 :]
        place["region"] |= _filled(snippet=_filled(text="\n".join(marked)))
    if len(lines) > last - first + 1:
        around = {"startLine": excerpt.first, "endLine": excerpt.first + len(lines) - 1}
        place["contextRegion"] = {**around, "snippet": {"text": "\n".join(lines)}}
    return place


def _region(first: int, column: int, last: int, end: int) -> Object:
    return {"startLine": first, "startColumn": column, "endLine": last, "endColumn": end}


def _artifact(file: str) -> Object:
    base, path = place_of(file)
    return {"uri": uri(path), **_filled(uriBaseId=base.value)}


def _module(name: str) -> list[Object]:
    shown = visible(name)
    return [{"name": shown.rpartition(".")[2] or shown, "fullyQualifiedName": shown, "kind": "module"}] if name else []


def _message(said: Iterable[str]) -> Object:
    """Plain text, in which braces would be placeholders and `[...](...)` a link."""
    text = "\n".join(map(visible, said))
    return {"text": text.replace("{", "{{").replace("}", "}}").replace("](", "\\](")}


def _source(text: str) -> str:
    """Source as it is, but for what no UTF-8 can say."""
    return text.encode("utf-8", "backslashreplace").decode()


def _value(value: Any) -> Any:
    finite = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    return value if finite else visible(str(value))


def _filled(**properties: Any) -> Object:
    """Without what is empty, which says nothing and which GitHub refuses."""
    return {key: value for key, value in properties.items() if value}
