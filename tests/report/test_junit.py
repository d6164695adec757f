from dataclasses import replace
from xml.etree import ElementTree

import pytest
from junitparser import Error, Failure, JUnitXml, Skipped

from leakcheck.findings import Verdict
from leakcheck.report import junit

from .documents import DOCUMENTS, configuration, end_of_proof, future_finding


def suite_of(document):
    suites = JUnitXml.fromstring(junit.render(document).encode())
    assert [suites.tests, suites.failures, suites.errors, suites.skipped] == [
        sum(getattr(suite, count) for suite in suites) for count in ("tests", "failures", "errors", "skipped")
    ]
    (suite,) = suites
    return suite


def outcomes(document) -> dict[str, str]:
    """For each case what became of it, as a parser tells."""
    found = {}
    for case in suite_of(document):
        (outcome,) = case.result or [None]
        found[case.name] = f"{type(outcome).__name__} {outcome.type}" if outcome is not None else "passed"
    return found


def test_looks_like_this(document, snapshot_of):
    assert junit.render(document) == snapshot_of("xml")


def test_is_read_back_whole(document):
    suite = suite_of(document)
    cases = list(suite)
    assert ElementTree.fromstring(junit.render(document)).tag == "testsuites"
    assert len({(case.classname, case.name) for case in cases}) == len(cases) == suite.tests
    results = [result for case in cases for result in case.result]
    assert [suite.failures, suite.errors, suite.skipped] == [
        sum(isinstance(result, kind) for result in results) for kind in (Failure, Error, Skipped)
    ]


@pytest.mark.parametrize(
    ("verdict", "outcome"),
    [
        (Verdict.PROVEN, "passed"),
        (Verdict.LEAK, "Failure LEAK"),
        (Verdict.SUSPECT, "Skipped SUSPECT"),
        (Verdict.OPEN, "Skipped OPEN"),
        (Verdict.NOT_APPLICABLE, "Skipped NOT_APPLICABLE"),
    ],
)
def test_each_verdict_has_an_outcome(verdict, outcome):
    one = configuration("eager", "ones", "eval", policies={"causal": verdict})
    assert outcomes(replace(DOCUMENTS["clean"], configurations=(one,))) == {"causal [eager/ones/eval]": outcome}


def test_a_case_is_a_policy_under_a_configuration():
    one = configuration(
        "eager", "ones", "eval", policies={"causal": Verdict.PROVEN, "batch": Verdict.OPEN, "cache": Verdict.OPEN}
    )
    document = replace(DOCUMENTS["clean"], configurations=(one,))
    assert outcomes(document) == {
        "causal [eager/ones/eval]": "passed",
        "batch [eager/ones/eval]": "Skipped OPEN",
        "cache [eager/ones/eval]": "Skipped OPEN",
    }
    reasons = {case.name: [result.message for result in case.result] for case in suite_of(document)}
    assert reasons["cache [eager/ones/eval]"] == [
        "OPEN: cached and full decoding agree as far as was measured; that two ways of running agree is measured, "
        "never proven"
    ]


def test_a_failure_tells_all_that_it_takes_to_see_it_again():
    leaking = {case.name: case for case in suite_of(DOCUMENTS["leak"]) if case.result}
    assert list(leaking) == ["causal [sdpa/none/eval]", "causal [sdpa/none/train]"]
    (failure,) = leaking["causal [sdpa/none/eval]"].result
    assert failure.type == "LC201"
    assert failure.message.startswith("the attention mask was None")
    for told in ("modeling_llama.py:208", "delta 4.5", "leakcheck replay", "-> LlamaAttention.forward"):
        assert told in failure.text


def test_the_leak_comes_before_what_else_was_found():
    hole = replace(end_of_proof("LC801", 3, "an op"), configuration="sdpa/none/eval")
    document = replace(DOCUMENTS["leak"], findings=(hole, *DOCUMENTS["leak"].findings))
    assert outcomes(document)["causal [sdpa/none/eval]"] == "Failure LC201"


def test_what_was_not_asked_is_no_reason():
    """A hole in the proof of one policy leaves the case of another as it is."""
    hole = replace(end_of_proof("LC801", 3, "an op"), configuration="eager/ones/eval", policy="batch")
    one = configuration("eager", "ones", "eval", policies={"causal": Verdict.PROVEN, "batch": Verdict.OPEN})
    document = replace(DOCUMENTS["clean"], configurations=(one,), findings=(hole,))
    assert outcomes(document) == {"causal [eager/ones/eval]": "passed", "batch [eager/ones/eval]": "Skipped OPEN"}


def test_what_a_proof_rests_on_is_told_where_it_passes():
    soft = replace(end_of_proof("LC202", 3, "soft mask"), configuration="eager/none/eval")
    case = next(iter(suite_of(replace(DOCUMENTS["clean"], findings=(soft,)))))
    assert not case.result
    assert "LC202 soft mask" in case.system_out


def test_a_configuration_that_did_not_run_is_an_error():
    assert outcomes(DOCUMENTS["crash"]) == {
        "causal [default/none/eval]": "Failure LC201",
        "causal [default/ones/eval]": "Error LC904",
    }


def test_a_policy_that_did_not_run_is_an_error():
    raised = replace(end_of_proof("LC904", 1, "raised"), configuration="eager/ones/eval", policy="batch")
    one = configuration("eager", "ones", "eval", policies={"causal": Verdict.PROVEN, "batch": Verdict.OPEN})
    document = replace(DOCUMENTS["clean"], configurations=(one,), findings=(raised,))
    assert outcomes(document) == {"causal [eager/ones/eval]": "passed", "batch [eager/ones/eval]": "Error LC904"}


def test_a_finding_without_a_configuration_of_its_own_is_not_lost():
    lost = replace(future_finding("eager/odd/eval"), policy="causal")
    assert outcomes(replace(DOCUMENTS["clean"], findings=(lost,)))["causal [eager/odd/eval]"] == "Failure LC201"


def test_nothing_checked_is_no_pass():
    assert outcomes(DOCUMENTS["empty"]) == {"audit": "Error None"}


def test_names_that_read_the_same_are_told_apart():
    same = [configuration("a\x1b", "m", "eval"), configuration("a\\x1b", "m", "eval")]
    document = replace(DOCUMENTS["clean"], configurations=tuple(same))
    assert list(outcomes(document)) == ["causal [a\\x1b/m/eval]", "causal [a\\x1b/m/eval] (2)"]


@pytest.mark.parametrize("character", ["\x00", "\x08", "\x0b", "\x1f", "\ufffe", "\uffff", "\ud800"])
def test_what_xml_forbids_is_spelled_out(character):
    odd = replace(future_finding("sdpa/none/eval"), message=character, module=character, witness={character: 1})
    text = junit.render(replace(DOCUMENTS["leak"], findings=(odd,)))
    assert character not in text
    ElementTree.fromstring(text.encode())
