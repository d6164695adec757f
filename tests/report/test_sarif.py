import gzip
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from jsonschema import Draft4Validator, FormatChecker
from sarif_pydantic import Sarif

from leakcheck.codes import CODES
from leakcheck.findings import Excerpt, Step, Verdict
from leakcheck.report import sarif

from .documents import DOCUMENTS, MODELING, configuration, end_of_proof, excerpt, future_finding, large

# The schema of the OASIS standard SARIF 2.1.0, as SchemaStore publishes it and the npm package @microsoft/jest-sarif
# 1.0.0-beta.0 (MIT) ships it. Copyright (c) OASIS Open 2020. All Rights Reserved. It may be copied with this
# notice: https://docs.oasis-open.org/sarif/sarif/v2.1.0/
VALIDATOR = Draft4Validator(
    json.loads((Path(__file__).parent / "sarif-schema-2.1.0.json").read_text()), format_checker=FormatChecker()
)


def log_of(document) -> dict:
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(sarif.render(document), parse_constant=refuse)


def run_of(document) -> dict:
    return log_of(document)["runs"][0]


def results_of(document) -> list[dict]:
    return run_of(document)["results"]


def result_of(**changes) -> dict:
    """The result of one finding, of a document with a checkpoint in `MODELING`."""
    finding = replace(future_finding("sdpa/none/eval"), **changes)
    return results_of(replace(DOCUMENTS["leak"], findings=(finding,)))[0]


def refused(log: dict) -> list[str]:
    """What GitHub refuses, or leaves out, though the schema allows it."""
    found = []

    def texts(value, where=""):
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(entry, dict | list):
                texts(entry, f"{where}/{key}")
            elif entry == "":
                found.append(f"{where}/{key} is empty")

    texts(log)
    found += [key for key in ("$schema", "version") if key not in log]
    found += ["more than 20 runs"] if len(log["runs"]) > 20 else []
    for run in log["runs"]:
        rules, results = run["tool"]["driver"]["rules"], run["results"]
        found += ["more than 25,000 results"] if len(results) > 25_000 else []
        for rule in rules:
            long = {**rule["shortDescription"], "full": rule["fullDescription"]["text"], "name": rule["name"] * 4}
            found += [f"{rule['id']}: {key} is too long" for key, text in long.items() if len(text) > 1024]
            found += [] if rule["help"]["text"] and rule["help"]["markdown"] else ["no help"]
        for result in results:
            flows = [flow for code in result.get("codeFlows", ()) for flow in code["threadFlows"]]
            steps = [step["location"] for flow in flows for step in flow["locations"]]
            found += ["another rule"] if rules[result["ruleIndex"]]["id"] != result["ruleId"] else []
            found += ["not one location"] if len(result["locations"]) != 1 else []
            found += ["too many steps"] if len(steps) > 1_000 else []
            for location in (*result["locations"], *steps):
                region = location.get("physicalLocation", {}).get("region", {})
                full = {"startLine", "startColumn", "endLine", "endColumn"} <= region.keys()
                found += [] if full else ["no full region"]
    return found


def test_looks_like_this(document, snapshot_of):
    assert sarif.render(document) == snapshot_of("sarif")


def test_is_what_the_schema_asks_for(document):
    assert [error.message for error in VALIDATOR.iter_errors(log_of(document))] == []


def test_github_takes_it(document):
    assert refused(log_of(document)) == []


def test_the_largest_report_is_no_exception():
    log = log_of(large())
    assert VALIDATOR.is_valid(log)
    assert refused(log) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda run: run["results"][0].update(locations=[]), "not one location"),
        (lambda run: run["results"][0]["locations"][0].pop("physicalLocation"), "no full region"),
        (lambda run: run["results"][0].update(ruleIndex=-1) or run["tool"]["driver"]["rules"].append({
            **run["tool"]["driver"]["rules"][0], "id": "LC101"}), "another rule"),
        (lambda run: run["results"][0]["message"].update(text=""), "is empty"),
        (lambda run: run["tool"]["driver"]["rules"][0]["fullDescription"].update(text="x" * 1025), "is too long"),
    ],
)  # fmt: skip
def test_these_checks_see_what_is_wrong(change, reason):
    log = log_of(DOCUMENTS["leak"])
    change(log["runs"][0])
    assert reason in "".join(refused(log))


@pytest.mark.parametrize(
    "change",
    [
        lambda result: result.update(kind="LEAK"),
        lambda result: result["locations"][0]["physicalLocation"]["region"].update(startColumn=0),
        lambda result: result["locations"][0]["physicalLocation"]["artifactLocation"].update(uri="my model.py"),
    ],
)
def test_the_schema_sees_what_is_wrong(change):
    log = log_of(DOCUMENTS["leak"])
    change(log["runs"][0]["results"][0])
    assert not VALIDATOR.is_valid(log)


@pytest.mark.parametrize(
    ("verdict", "kind", "level"),
    [
        (Verdict.LEAK, "fail", "error"),
        (Verdict.SUSPECT, "open", "none"),
        (Verdict.OPEN, "open", "none"),
        (Verdict.PROVEN, "pass", "none"),
        (Verdict.NOT_APPLICABLE, "notApplicable", "none"),
    ],
)
def test_a_severity_only_for_what_fails(verdict, kind, level):
    result = result_of(verdict=verdict)
    assert (result["kind"], result["level"]) == (kind, level)


def test_a_consumer_is_shown_rule_file_line_and_flow():
    run = Sarif.model_validate_json(sarif.render(DOCUMENTS["leak"])).runs[0]
    (result,) = run.results
    place = result.locations[0].physical_location
    assert run.tool.driver.rules[result.rule_index].id == result.rule_id == "LC201"
    assert place.artifact_location.uri == "transformers/models/llama/modeling_llama.py"
    assert (place.region.start_line, place.region.start_column, place.region.end_column) == (208, 9, 53)
    assert run_of(DOCUMENTS["leak"])["columnKind"] == "unicodeCodePoints"
    assert place.region.snippet.text == "attn_weights = attn_weights + attention_mask"
    steps = [step.location for step in result.code_flows[0].thread_flows[0].locations]
    assert [step.physical_location.region.start_line for step in steps] == [157, 208]
    assert steps[1].message.text == "add, position 1 -> 0, [2, 4, 13, 13] in model.layers.0.self_attn"
    assert "delta 4.5" in result.message.text
    assert "leakcheck replay .leakcheck/witnesses/LC201-sdpa-none-eval-0123abcd.json" in result.message.text


def region_of(**changes) -> dict:
    return result_of(**changes)["locations"][0]["physicalLocation"]["region"]


def test_the_region_is_the_excerpts():
    two = Excerpt(MODELING, (8, 5, 9, 6), 7, ("if a:", "    深 = f(", "    1)", "else:"))
    assert region_of(excerpt=two) == {
        "startLine": 8, "startColumn": 5, "endLine": 9, "endColumn": 6, "snippet": {"text": "深 = f(\n    1"}
    }  # fmt: skip


def test_a_line_without_columns_is_the_point_at_its_start():
    assert region_of(excerpt=None) == {"startLine": 208, "startColumn": 1, "endLine": 208, "endColumn": 1}
    assert region_of(excerpt=None, line=None)["startLine"] == 1


def test_the_surroundings_are_more_than_the_region():
    around = result_of()["locations"][0]["physicalLocation"]["contextRegion"]
    assert (around["startLine"], around["endLine"]) == (207, 209)
    alone = Excerpt(MODELING, (8, 1, 8, 5), 8, ("pass",))
    assert "contextRegion" not in result_of(excerpt=alone)["locations"][0]["physicalLocation"]


def test_an_excerpt_that_lacks_the_region_shows_none_of_it():
    for lacking in (Excerpt(MODELING, (8, 1, 9, 5), 8, ("pass",)), Excerpt(MODELING, (8, 1, 8, 5), 9, ("pass",))):
        assert "snippet" not in region_of(excerpt=lacking)


def artifact_of(file: str) -> dict:
    return result_of(file=file, excerpt=None)["locations"][0]["physicalLocation"]["artifactLocation"]


@pytest.mark.parametrize(
    ("file", "uri"),
    [
        (MODELING, MODELING),
        ("models/my model.py", "models/my%20model.py"),
        ("models/50%.py", "models/50%25.py"),
        ("a:b/深.py", "a%3Ab/%E6%B7%B1.py"),
        ("models/\udcff.py", "models/%FF.py"),
        ("models/\ud800.py", "models/%5Cud800.py"),
    ],
)
def test_a_file_of_the_repository(file, uri):
    assert artifact_of(file) == {"uri": uri, "uriBaseId": "%SRCROOT%"}


def test_a_file_of_a_package_is_none_of_the_repository():
    package = {"uri": "transformers/masking_utils.py", "uriBaseId": "SITE_PACKAGES"}
    assert artifact_of("/opt/venv/lib/python3.11/site-packages/transformers/masking_utils.py") == package
    assert artifact_of("transformers/masking_utils.py") == package


def test_a_file_elsewhere_is_named_whole():
    assert artifact_of("/srv/models/ours.py") == {"uri": "file:///srv/models/ours.py"}


def test_files_are_told_from_the_root_of_the_repository(tmp_path, monkeypatch):
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "model.py").touch()
    monkeypatch.chdir(tmp_path / "part")
    assert artifact_of("model.py")["uri"] == artifact_of(str(tmp_path / "part" / "model.py"))["uri"] == "model.py"
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    assert artifact_of("model.py") == {"uri": "part/model.py", "uriBaseId": "%SRCROOT%"}


def test_a_folder_of_the_repository_may_be_called_like_a_package(tmp_path, monkeypatch):
    (tmp_path / "transformers").mkdir()
    (tmp_path / "transformers" / "masking_utils.py").touch()
    monkeypatch.chdir(tmp_path)
    assert artifact_of("transformers/masking_utils.py")["uriBaseId"] == "%SRCROOT%"


def model_at(spec: str, **changes) -> tuple[str, int]:
    """Where a finding without a file is told."""
    subject = replace(DOCUMENTS["leak"].subject, spec=spec)
    finding = replace(future_finding("sdpa/none/eval"), file="", line=None, excerpt=None)
    (result,) = results_of(replace(DOCUMENTS["leak"], subject=subject, findings=(finding,), **changes))
    place = result["locations"][0]["physicalLocation"]
    return place["artifactLocation"]["uri"], place["region"]["startLine"]


def test_what_has_no_file_is_told_of_the_model(tmp_path):
    first = DOCUMENTS["leak"].checkpoints[0]
    assert model_at("method1_v3") == (MODELING, first.lines[0])
    assert model_at(f"{MODELING}:build") == (MODELING, first.lines[0])
    assert model_at("models/other.py:build") == ("models/other.py", 1)
    assert model_at("models/config.json") == ("models/config.json", 1)
    assert model_at("hf:org/name", checkpoints=()) == ("hf%3Aorg/name", 1)
    (tmp_path / "config.json").touch()
    assert model_at(str(tmp_path)) == (f"file://{tmp_path}/config.json", 1)


def flow_of(*steps: Step) -> list[tuple[str, int]]:
    (flow,) = result_of(steps=steps)["codeFlows"]
    located = [step["location"] for step in flow["threadFlows"][0]["locations"]]
    return [(at["message"]["text"], at["physicalLocation"]["region"]["startLine"]) for at in located]


def placed(line: int) -> Excerpt:
    return excerpt(MODELING, line, "before", "    marked", "after")


def test_every_step_is_told_at_a_place_that_is_true():
    steps = (
        Step("read", "", None),
        Step("mixed", "model", placed(3)),
        Step("in the kernel", "", None),
        Step("added", "model", placed(9)),
    )
    assert flow_of(*steps) == [
        ("read; then mixed in model", 3),
        ("in the kernel (no line of its own)", 3),
        ("added in model", 9),
    ]


def test_steps_without_any_place_are_no_flow():
    assert "codeFlows" not in result_of(steps=(Step("read", "", None),))


def test_a_long_flow_keeps_both_its_ends():
    flow = flow_of(*(Step(f"step {n}", "", placed(n + 2)) for n in range(1500)))
    assert len(flow) == 1000
    assert flow[0] == ("step 0", 2)
    assert flow[500] == ("501 steps are left out", 502)
    assert flow[501:] == [(f"step {n}", n + 2) for n in range(1001, 1500)]


def test_one_result_for_each_fault():
    first, second = future_finding("sdpa/none/eval"), future_finding("sdpa/none/train")
    suspect = replace(second, verdict=Verdict.SUSPECT)
    other = replace(second, fingerprint="0123456789abcdef")
    results = results_of(replace(DOCUMENTS["leak"], findings=(suspect, first, other, second)))
    assert [(r["kind"], r["properties"]["configurations"]) for r in results] == [
        ("fail", ["sdpa/none/eval", "sdpa/none/train"]),
        ("fail", ["sdpa/none/train"]),
        ("open", ["sdpa/none/train"]),
    ]


def test_findings_of_older_documents_are_told_apart_by_what_they_say():
    first = replace(future_finding("sdpa/none/eval"), fingerprint="", steps=(), excerpt=None, operation="")
    second, other = replace(first, configuration="sdpa/none/train"), replace(first, line=9)
    results = results_of(replace(DOCUMENTS["leak"], findings=(first, second, other)))
    assert [len(r["properties"]["configurations"]) for r in results] == [2, 1]
    assert not any("partialFingerprints" in r for r in results)


def test_a_fingerprint_stays_when_the_line_moves():
    here, moved = result_of(), result_of(line=300, excerpt=placed(300))
    assert here["partialFingerprints"] == moved["partialFingerprints"] == {"leakcheck/v1": "e1971c80e7cd41da"}


def kinds(document) -> list[str]:
    return [result["kind"] for result in results_of(document)]


def test_a_pass_is_only_what_is_proven_everywhere():
    clean = DOCUMENTS["clean"]
    first, *others = clean.configurations
    assert kinds(clean) == ["pass"]
    assert "all token sequences and all weights" in results_of(clean)[0]["message"]["text"]
    for verdict, kind in ((Verdict.OPEN, "open"), (Verdict.SUSPECT, "open"), (Verdict.LEAK, "fail")):
        mixed = replace(first, verdict=verdict, policies={"causal": verdict})
        assert kinds(replace(clean, verdict=verdict, configurations=(mixed, *others))) == [kind]


def test_a_finding_beside_a_proof_does_not_hide_it():
    gradient = replace(end_of_proof("LC103", 3, "a gradient"), verdict=Verdict.PROVEN)
    results = results_of(replace(DOCUMENTS["clean"], findings=(gradient,)))
    assert [(r["ruleId"], r["kind"]) for r in results] == [("LC103", "pass"), ("LC101", "pass")]


def test_a_configuration_to_which_the_policy_does_not_apply_takes_nothing_away():
    idle = configuration("eager", "odd", "eval", policies={"causal": Verdict.NOT_APPLICABLE})
    clean = DOCUMENTS["clean"]
    assert kinds(replace(clean, configurations=(*clean.configurations, idle))) == ["pass"]


def test_every_policy_has_its_rule():
    verdicts = {
        "causal": Verdict.PROVEN, "batch": Verdict.PROVEN, "document": Verdict.PROVEN, "padding": Verdict.PROVEN,
        "cache": Verdict.OPEN,
    }  # fmt: skip
    document = replace(DOCUMENTS["clean"], configurations=(configuration("eager", "ones", "eval", policies=verdicts),))
    told = {(r["properties"]["policy"], r["ruleId"], r["kind"]) for r in results_of(document)}
    assert told == {
        ("causal", "LC101", "pass"), ("batch", "LC401", "pass"), ("document", "LC205", "pass"),
        ("padding", "LC204", "pass"), ("cache", "LC301", "open"),
    }  # fmt: skip


def succeeded(document) -> bool:
    (invocation,) = run_of(document)["invocations"]
    return invocation["executionSuccessful"]


def notes(document) -> list[tuple[str, str]]:
    (invocation,) = run_of(document)["invocations"]
    return [(n.get("descriptor", {}).get("id", ""), n["level"]) for n in invocation["toolExecutionNotifications"]]


def test_a_run_that_did_not_see_everything_says_so_and_claims_no_pass():
    clean = DOCUMENTS["clean"]
    crashed = replace(end_of_proof("LC904", 1, "raised"), configuration="eager/odd/eval")
    assert succeeded(clean)
    assert notes(clean) == []
    for document, note in (
        (replace(clean, findings=(crashed,)), "LC904"),
        (replace(clean, controls=(replace(clean.controls[0], caught=False),)), "LC901"),
        (DOCUMENTS["empty"], ""),
    ):
        assert notes(document) == [(note, "error")]
        assert not succeeded(document)
        assert "pass" not in kinds(document)


def test_a_hole_in_the_proof_is_a_note_with_its_place():
    document = replace(DOCUMENTS["clean"], findings=(end_of_proof("LC802", 52, "aten::_fft_r2c"),))
    assert notes(document) == [("LC802", "warning")]
    assert succeeded(document)


def test_more_faults_than_github_takes(monkeypatch):
    assert sarif._MOST_RESULTS <= 25_000
    monkeypatch.setattr(sarif, "_MOST_RESULTS", 100)
    leak = future_finding("sdpa/none/eval")
    suspects = [replace(leak, verdict=Verdict.SUSPECT, fingerprint=f"{n:016x}") for n in range(100)]
    document = replace(DOCUMENTS["leak"], findings=(*suspects, leak))
    run = run_of(document)
    assert [result["kind"] for result in run["results"]] == ["fail", *["open"] * 99]
    assert "1 more findings" in run["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"]
    assert len(gzip.compress(sarif.render(document).encode())) * 250 < 10_000_000  # as many as GitHub takes


def test_every_code_is_a_rule_with_a_name_of_its_own():
    findings = tuple(replace(future_finding("sdpa/none/eval"), code=code, fingerprint=code) for code in CODES)
    log = log_of(replace(DOCUMENTS["leak"], findings=findings))
    rules = log["runs"][0]["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == list(CODES)
    assert len({rule["name"] for rule in rules}) == len(rules)
    assert all(rule["name"].isalnum() for rule in rules)
    # Formatted text must hold no HTML; braces would be placeholders.
    assert not any(re.search(r"<[a-z/!]|[{}]", rule["help"]["markdown"]) for rule in rules)
    assert refused(log) == []


def test_a_message_holds_no_placeholder_and_no_link():
    text = result_of(message="see {0} at [here](https://example.org), x[0]")["message"]["text"]
    assert text.startswith("see {{0}} at [here\\](https://example.org), x[0].\n")


def test_whatever_the_names_are_it_can_be_read_as_utf8():
    hostile = replace(
        DOCUMENTS["hostile"].findings[0],
        excerpt=Excerpt("a\udcff.py", (1, 1, 1, 3), 1, ("\udcff\x00\u202e",)),
        steps=(Step("\udcff", "\udcff", placed(3)),),
        witness={"\udcff": float("inf")},
    )
    text = sarif.render(replace(DOCUMENTS["hostile"], findings=(hostile,)))
    assert json.loads(text.encode())["runs"][0]["results"][0]["properties"]["witness"] == {"\\udcff": "inf"}
