import json
from dataclasses import replace

import pytest

from leakcheck.errors import UsageError
from leakcheck.report.json import read, render

from .documents import DOCUMENTS


def altered(**changes) -> str:
    return json.dumps({**json.loads(render(DOCUMENTS["leak"])), **changes})


def test_looks_like_this(document, snapshot_of):
    """As in the file. One checkpoint is written like the other: some are enough."""
    text = render(replace(document, checkpoints=document.checkpoints[::20]))
    assert text.encode("utf-8", "backslashreplace").decode() == snapshot_of("json")


def test_round_trip_is_exact_after_rounding(document):
    text = render(document)
    assert render(read(text)) == text


@pytest.mark.parametrize("name", ["clean", "empty"])
def test_a_document_without_long_numbers_comes_back_equal(name):
    assert read(render(DOCUMENTS[name])) == DOCUMENTS[name]


def test_keys_that_others_rely_on():
    report = json.loads(render(DOCUMENTS["leak"]))
    assert {"schema_version", "tool", "subject", "verdict", "environment"} <= report.keys()
    assert {"spec", "class", "parameters"} <= report["subject"].keys()
    assert "class_name" not in report["subject"]
    assert {"id", "attention", "mask", "mode", "cache", "verdict", "policies"} <= report["configurations"][0].keys()
    assert {
        "stage", "phase", "path", "layer", "configuration", "module", "function", "file", "lines", "operation",
        "passes", "horizon", "output_delta", "gradient_delta", "local_delta", "verdict",
    } <= report["checkpoints"][0].keys()  # fmt: skip
    assert {"call_depth", "nodes", "safety_checks"} <= report["statistics"]["total"].keys()
    assert {"id", "where", "active", "load_bearing", "verdict"} <= report["safety_checks"][0].keys()
    assert report["conclusions"][0].keys() == {"id", "claim", "verdict", "evidence"}
    assert {
        "code", "verdict", "policy", "configuration", "message", "module", "file", "line", "chain", "witness",
        "reproduce",
    } <= report["findings"][0].keys()  # fmt: skip
    assert report["controls"][0].keys() == {"name", "expected", "caught"}


def test_one_line_for_each_checkpoint():
    checkpoints = DOCUMENTS["leak"].checkpoints
    assert sum(line.startswith('    {"stage": ') for line in render(DOCUMENTS["leak"]).splitlines()) == len(checkpoints)


def test_numbers_keep_six_digits_and_what_is_no_number_becomes_a_string():
    report = json.loads(render(DOCUMENTS["leak"]), parse_constant=pytest.fail)
    assert report["findings"][0]["witness"]["delta"] == 4.51235
    hostile = json.loads(render(DOCUMENTS["hostile"]), parse_constant=pytest.fail)
    assert hostile["fidelity"]["worst"] == "NaN"
    assert hostile["configurations"][0]["output_delta"] == "Infinity"
    assert hostile["checkpoints"][0]["local_delta"] == "-Infinity"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "no schema_version"),
        ("{}", "no schema_version"),
        (altered(schema_version="2.0"), "schema_version '2.0'"),
        (altered(surprise=1), "surprise: Unexpected keyword argument"),
        (altered(tool={"name": "leakcheck", "version": "1", "surprise": 1}), "tool.surprise: Unexpected"),
        (altered(verdict="SAFE"), "verdict: Input should be"),
        (altered(findings=[{}]), "findings.0.code: Field required"),
    ],
)
def test_what_is_no_report_is_refused_in_one_line(text, message):
    with pytest.raises(UsageError) as refused:
        read(text)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_torch_object_in_the_environment_is_an_error_not_a_guess():
    with pytest.raises(TypeError):
        render(replace(DOCUMENTS["empty"], environment={"device": object()}))
