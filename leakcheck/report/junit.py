"""The audit as JUnit XML, for CI servers: a suite for the subject, a case for each policy under each configuration."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from leakcheck.codes import DID_NOT_RUN
from leakcheck.findings import AuditResult, Finding, Verdict, Witness, worst
from leakcheck.report import view
from leakcheck.report.registry import renders
from leakcheck.report.words import verdict, visible


@renders(".xml")
def render(result: AuditResult) -> str:
    suite = Element("testsuite", name=visible(result.subject.spec))
    properties = SubElement(suite, "properties")
    for name, value in (("leakcheck", result.tool.version), ("verdict", view.headline(result))):
        SubElement(properties, "property", name=name, value=visible(value))
    named: Counter[str] = Counter()
    for (policy, configuration), (of, found) in _cases(result).items():
        name = visible(f"{policy} [{configuration}]")
        named[name] += 1
        if named[name] > 1:
            name += f" ({named[name]})"
        case = SubElement(suite, "testcase", classname=visible(f"leakcheck.{result.subject.spec}"), name=name)
        _fill(case, of, found, view.said(result, policy, of), view.by_id(result.witnesses))
    if not named:
        _add(SubElement(suite, "testcase", classname="leakcheck", name="audit"), "error", "", "nothing was checked")
    outcomes = {"tests": "testcase", "failures": "testcase/failure", "errors": "testcase/error"}
    counts = {key: str(len(suite.findall(path))) for key, path in {**outcomes, "skipped": "testcase/skipped"}.items()}
    suite.attrib.update(counts)
    suites = Element("testsuites", {"name": "leakcheck", **counts})
    suites.append(suite)
    ElementTree.indent(suites)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(suites, encoding="unicode")}\n'


def _cases(result: AuditResult) -> dict[tuple[str, str], tuple[Verdict, list[Finding]]]:
    """The verdict of each policy under each configuration, with its findings; one that did not run has only those."""
    found = defaultdict(list)
    for finding in result.findings:
        found[finding.policy, finding.configuration].append(finding)
    verdicts = {(policy, c.id): of for c in result.configurations for policy, of in c.policies.items()}
    for key, findings in found.items():
        verdicts.setdefault(key, worst(finding.verdict for finding in findings))
    return {key: (of, found[key]) for key, of in verdicts.items()}


def _fill(case: Element, of: Verdict, found: Sequence[Finding], said: str, witnesses: Mapping[str, Witness]) -> None:
    crashed = [finding for finding in found if finding.code == DID_NOT_RUN.id]
    blamed = crashed or [finding for finding in found if finding.verdict is of] or found
    code, message = (blamed[0].code, blamed[0].message) if blamed else ("", said)
    lines = ([f"{f.code} {f.message}", *view.finding_details(f, witnesses)] for f in found)
    told = "\n\n".join("\n".join(map(visible, each)) for each in lines)
    if crashed:
        _add(case, "error", code, message, told)
    elif of is Verdict.LEAK:
        _add(case, "failure", code or of.value, message, told)
    elif of is not Verdict.PROVEN:
        _add(case, "skipped", of.value, f"{verdict(of)}: {message}", told)
    elif told:
        SubElement(case, "system-out").text = told


def _add(case: Element, outcome: str, type: str, message: str, text: str = "") -> None:
    attributes = {"message": visible(message), **({"type": type} if type else {})}
    SubElement(case, outcome, attributes).text = text or None
