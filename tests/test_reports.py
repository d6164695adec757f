"""The committed audits under reports/ are what a fresh audit finds."""

import json
from pathlib import Path

import pytest

from leakcheck import audit
from leakcheck.report import json as json_report
from leakcheck.report import markdown
from leakcheck.subjects.names import BUILTIN

REPORTS = Path(__file__).parent.parent / "reports"


@pytest.mark.parametrize("name", BUILTIN)
def test_a_fresh_audit_agrees_with_the_committed_one(name: str) -> None:
    committed = json.loads((REPORTS / f"{name}.json").read_text())
    fresh = json.loads(json_report.render(audit(name)))
    assert differences(committed, fresh) == []


@pytest.mark.parametrize("name", BUILTIN)
def test_the_committed_markdown_renders_the_committed_json(name: str) -> None:
    result = json_report.read((REPORTS / f"{name}.json").read_text())
    assert markdown.render(result) == (REPORTS / f"{name}.md").read_text()


def test_a_changed_number_is_noticed() -> None:
    committed = {"a": [1.0, 2.0], "environment": {"seconds": 1}}
    assert differences(committed, {"a": [1.0, 2.0], "environment": {"seconds": 9}}) == []
    assert differences(committed, {"a": [1.0, 2.1], "environment": {}}) == ["a[1]: 2.0 is 2.1"]
    assert differences(committed, {"a": [1.0], "environment": {}}) == ["a: 2 entries are 1"]
    assert differences(committed, {"environment": {}}) == ["keys: ['a', 'environment'] are ['environment']"]


def differences(old: object, new: object, where: str = "") -> list[str]:
    """Where two reports differ, the environment left out; floats within what another processor may round."""
    if isinstance(old, dict) and isinstance(new, dict):
        if old.keys() != new.keys():
            return [f"{where}keys: {sorted(old)} are {sorted(new)}"]
        return [
            line
            for key in old
            if key != "environment"
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
