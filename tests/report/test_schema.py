"""The committed JSON Schema says what the JSON report is."""

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from leakcheck.report import schema
from leakcheck.report.json import render

from .documents import DOCUMENTS

ROOT = Path(__file__).parents[2]
COMMITTED = Path(schema.__file__).with_name("report.v1.json")
AUDITS = [path for path in (ROOT / "reports").glob("*.json") if '"schema_version"' in path.read_text()[:100]]


@pytest.fixture(scope="module")
def validator():
    committed = json.loads(COMMITTED.read_text())
    jsonschema.Draft202012Validator.check_schema(committed)
    return jsonschema.Draft202012Validator(committed)


def test_the_committed_schema_is_the_generated_one():
    """If not: python -m leakcheck.report.schema > leakcheck/report/report.v1.json"""
    assert COMMITTED.read_text() == schema.render()


def test_every_document_is_valid(document, validator):
    validator.validate(json.loads(render(document)))


@pytest.mark.parametrize("path", AUDITS, ids=lambda path: path.stem)
def test_every_committed_report_is_valid(path, validator):
    validator.validate(json.loads(path.read_text()))


def test_the_committed_reports_are_found():
    assert {"method1_v3", "method1_v3_as_published", "llama"} <= {path.stem for path in AUDITS}


SMALL = render(replace(DOCUMENTS["leak"], checkpoints=DOCUMENTS["leak"].checkpoints[:2]))


def edited(*where: str | int, value: object) -> dict:
    document = json.loads(SMALL)
    entry = document
    for key in where[:-1]:
        entry = entry[key]
    entry[where[-1]] = value
    return document


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("schema_version",), "2.0"),
        (("verdict",), "SAFE"),
        (("checkpoints", 0, "output_delta"), "large"),
        (("checkpoints", 0, "lines"), [1]),
        (("subject", "class"), None),
        (("findings", 0, "excerpt", "region"), [1, 2, 3]),
        (("delta_matrix", "deltas"), [["-Inf"]]),
        (("witnesses", 0, "tokens", "shape"), "1x2"),
    ],
)
def test_what_is_wrong_is_refused(where, value, validator):
    assert not validator.is_valid(edited(*where, value=value))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", 0, 1e-300])
def test_a_number_that_is_none_is_a_string(number, validator):
    assert validator.is_valid(edited("checkpoints", 0, "output_delta", value=number))


def test_a_key_is_required_under_the_name_that_the_report_has(validator):
    document = edited("subject", "class", value="Model")
    del document["subject"]["class"]
    assert not validator.is_valid(document)


@pytest.mark.parametrize("where", [("surprise",), ("subject", "surprise"), ("findings", 0, "surprise")])
def test_keys_of_a_later_minor_version_are_to_be_ignored(where, validator):
    assert validator.is_valid(edited(*where, value=1))


def test_what_a_later_minor_version_added_may_be_missing(validator):
    document = json.loads(SMALL)
    for key in ("horizon_map", "delta_matrix", "witnesses"):
        del document[key]
    for finding in document["findings"]:
        del finding["fingerprint"], finding["excerpt"], finding["steps"]
    document["schema_version"] = "1.0"
    assert validator.is_valid(document)


def test_whoever_reads_it_is_told_the_rules(validator):
    told = " ".join(validator.schema["description"].split())
    assert "ignore those that you do not know" in told
    assert "one of the strings NaN, Infinity and -Infinity" in told
