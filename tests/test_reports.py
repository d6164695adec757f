"""The committed audits under reports/ are what the command finds today, and say what is known of the subjects.

Each takes many seconds, so what else is asked of them is asked of the committed files.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from leakcheck.auditing.replaying import replay
from leakcheck.errors import ExitCode
from leakcheck.report import RENDERERS, view
from leakcheck.report import json as json_report
from leakcheck.report.witness import read
from leakcheck.subjects.names import BUILTIN
from tests.cli.command import command

REPORTS = Path(__file__).parent.parent / "reports"


@pytest.mark.parametrize("name", BUILTIN)
def test_the_command_finds_what_is_committed(name: str, monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    reports = ("--report", "a.json", "--report", "a.md", "--witnesses", "reports/witnesses")
    code, out, _ = command(monkeypatch, capsys, "run", "--model", name, *reports)
    fresh = (tmp_path / "a.json").read_text()
    assert differences(committed(name), json.loads(fresh)) == []
    assert code == (ExitCode.LEAK if name == "method1_v3_as_published" else ExitCode.GATE_HOLDS)
    assert " ".join(view.headline(json_report.read(fresh)).split()) in " ".join(out.split())
    assert (tmp_path / "a.md").read_text().startswith("#")


def test_the_committed_audit_of_llama_is_proven_under_every_configuration() -> None:
    report = committed("llama")
    assert report["verdict"] == "PROVEN"
    assert len(report["configurations"]) == 2 * 4 * 3
    assert {(c["verdict"], c["horizon"]) for c in report["configurations"]} == {("PROVEN", 0)}
    measured = [c for c in report["checkpoints"] if c["output_delta"] is not None]
    assert {(c["verdict"], c["horizon"]) for c in measured} == {("PROVEN", 0)}
    assert report["findings"] == report["ablation"] == []
    assert report["statistics"] == {}
    flow = [c for c in report["controls"] if c["name"].startswith("flow")]
    assert {c["expected"] for c in flow} == {"violation", "no violation"}
    assert all(c["caught"] for c in report["controls"])


def test_the_committed_audit_of_the_causal_subject() -> None:
    report = committed("method1_v3")
    assert report["verdict"] == "PROVEN"
    assert len(report["configurations"]) == 2 * 4 * 3
    paths = [("standard", "PROVEN"), ("recompute", "PROVEN")]
    assert all(list(c["paths"].items()) == paths for c in report["configurations"])
    assert all(c["pairs_covered"] <= c["pairs_total"] for c in report["configurations"])
    assert report["findings"] == []
    measured = [c for c in report["checkpoints"] if c["output_delta"] is not None]
    assert {c["path"] for c in measured} == {"standard", "recompute"}
    assert {c["stage"] for c in report["checkpoints"]} == set(range(1, 15))
    assert {c["stage"] for c in report["checkpoints"] if c["verdict"] == "PROVEN"} == set(range(1, 15)) - {3, 4}
    assert all(c["output_delta"] == 0 and c["gradient_delta"] == 0 and c["local_delta"] == 0 for c in measured)
    assert all(c["horizon"] == 0 and c["verdict"] == "PROVEN" for c in measured)
    assert all(c["caught"] for c in report["controls"])
    evidence = {c["id"]: c["evidence"] for c in report["conclusions"]}
    assert "proven on both paths in 24 configurations, for all token sequences" in evidence["C2"]
    assert "is proven in 24 of 24 configurations, the LLaMA control: PROVEN" in evidence["C5"]
    assert "the logits equal LLaMA's" in evidence["C5"]
    assert {c["id"]: c["verdict"] for c in report["conclusions"]} == {
        "C1": "HOLDS",
        "C2": "HOLDS",
        "C3": "REFUTED",  # S1 alone bears the load
        "C4": "REFUTED",  # checks act at two stages only
        "C5": "HOLDS",
    }
    assert {c["id"]: (c["verdict"], c["load_bearing"]) for c in report["safety_checks"]} == {
        "S1": ("HOLDS", True),
        "S2": ("HOLDS", False),
        "S3": ("OPEN", False),  # its path is causal, but not thanks to it
    }
    assert report["fidelity"]["worst"] > 0.1
    assert len(report["ablation"]) == 2**3
    assert all((row["paths"]["standard"] == "LEAK") != row["checks"]["S1"] for row in report["ablation"])
    headline = view.headline(json_report.read((REPORTS / "method1_v3.json").read_text()))
    assert "PROVEN: no past output depends on a future token. Proven in 24 configurations" in headline


def test_the_committed_audit_of_the_published_subject_says_where_it_leaks() -> None:
    report = committed("method1_v3_as_published")
    assert report["verdict"] == "LEAK"
    assert len(report["configurations"]) == 2 * 4 * 3
    for configuration in report["configurations"]:
        leaks = configuration["attention"] == "sdpa" and configuration["mask"] in ("none", "ones")
        assert configuration["verdict"] == ("LEAK" if leaks else "PROVEN")
        assert configuration["paths"] == dict.fromkeys(("standard", "recompute"), "LEAK" if leaks else "PROVEN")
        findings = [f for f in report["findings"] if f["configuration"] == configuration["id"]]
        told = {f["code"]: f["message"].partition(" (")[0] for f in findings if f["code"] != "LC201"}
        assert told == ({"LC101": "standard path: stage 8", "LC501": "recompute path: stage 11"} if leaks else {})
    finding = report["findings"][0]
    assert finding["code"] == "LC201"
    assert "None" in finding["message"]
    assert finding["file"] == "transformers/masking_utils.py"
    verdicts = {c["id"]: c["verdict"] for c in report["conclusions"]}
    assert verdicts["C2"] == verdicts["C3"] == verdicts["C5"] == "REFUTED"
    evidence = {c["id"]: c["evidence"] for c in report["conclusions"]}
    assert "leaks with all three checks in place under sdpa/none/eval" in evidence["C3"]
    assert "the logits differ from LLaMA's" in evidence["C5"]
    born, handed_on = finding["chain"][2], finding["chain"][3:]
    assert born.startswith("transformers/masking_utils.py:")
    assert len(handed_on) == 4  # model, layer, attention, parent class
    assert all("attention_mask=None" in step for step in handed_on)


@pytest.mark.parametrize("suffix", [".md", ".html", ".svg"])
@pytest.mark.parametrize("name", BUILTIN)
def test_the_committed_renderings_are_of_the_committed_json(name: str, suffix: str) -> None:
    result = json_report.read((REPORTS / f"{name}.json").read_text())
    assert RENDERERS[suffix](result) == (REPORTS / f"{name}{suffix}").read_text()


def test_the_committed_witnesses_are_of_the_committed_audit() -> None:
    told = json_report.read((REPORTS / "method1_v3_as_published.json").read_text()).witnesses
    files = sorted((REPORTS / "witnesses").glob("*.json"))
    assert {file.stem for file in files} == {witness.id for witness in told} != set()
    for witness in told:
        stored = read(REPORTS / "witnesses" / f"{witness.id}.json")
        assert stored.delta == pytest.approx(witness.delta, rel=1e-5)
        assert (stored.tokens, stored.changed) == (witness.tokens, witness.changed)
    assert replay(read(files[0])).leaks


def test_a_changed_number_is_noticed() -> None:
    old = {"a": [1.0, 2.0], "environment": {"seconds": 1}}
    assert differences(old, {"a": [1.0, 2.0], "environment": {"seconds": 9}}) == []
    assert differences(old, {"a": [1.0, 2.1], "environment": {}}) == ["a[1]: 2.0 is 2.1"]
    assert differences(old, {"a": [1.0], "environment": {}}) == ["a: 2 entries are 1"]
    assert differences(old, {"environment": {}}) == ["keys: ['a', 'environment'] are ['environment']"]


def committed(name: str) -> Any:
    return json.loads((REPORTS / f"{name}.json").read_text())


def differences(old: object, new: object, where: str = "") -> list[str]:
    """Where two reports differ, the environment left out; floats within what another processor may round.

    Of a witness versions and the hash of the weights belong to the environment too.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        if old.keys() != new.keys():
            return [f"{where}keys: {sorted(old)} are {sorted(new)}"]
        return [
            line
            for key in old
            if key not in ("environment", "versions") and not (key == "weights" and where.startswith("witnesses"))
            for line in differences(old[key], new[key], f"{where}.{key}".lstrip("."))
        ]
    if isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            return [f"{where}: {len(old)} entries are {len(new)}"]
        return [
            line
            for index, pair in enumerate(zip(old, new, strict=True))
            for line in differences(*pair, f"{where}[{index}]")
        ]
    if isinstance(old, float) and isinstance(new, float):
        return [] if new == pytest.approx(old, rel=1e-3, abs=1e-6) else [f"{where}: {old} is {new}"]
    return [] if old == new else [f"{where}: {old} is {new}"]
