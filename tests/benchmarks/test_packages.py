"""Models of other packages: those that are installed, and what the report on all of them must show."""

import json
from pathlib import Path

import pytest

from benchmarks import packages
from leakcheck import audit
from tests.versions.test_packages import MODELS as FEW

REPORT = json.loads((packages.REPORTS / "third_party.json").read_text(encoding="utf-8"))
ROWS = {Path(row["spec"]).stem: row for row in REPORT["rows"]}
OTHERS = [model for model in packages.MODELS if model.file not in {file for file, *_ in FEW}]  # those are audited there


@pytest.mark.parametrize("model", OTHERS, ids=[model.file for model in OTHERS])
@pytest.mark.filterwarnings("ignore")
def test_installed_package(model):
    if packages.version_of(model) is None:
        pytest.skip(f"{model.package} is not installed: make third-party")
    assert audit(str(packages.ROOT / model.spec)).verdict == model.expected


def test_every_file_is_audited():
    files = {path.stem for path in (packages.ROOT / "benchmarks" / "third_party").glob("*.py")}
    assert files == {model.file for model in packages.MODELS} == set(ROWS)


def test_report_agrees_with_brute_force():
    for row in ROWS.values():
        assert row["verdict"] == row["expected"], row
        assert row["moved"] == (row["verdict"] == packages.LEAK), row
        assert row["exit_code"] == (1 if row["verdict"] == packages.LEAK else 0), row


def test_report_says_what_is_not_proven():
    assert sum(row["verdict"] == packages.PROVEN for row in ROWS.values()) >= 20
    assert all(row["why"] and row["finding"] for row in ROWS.values() if row["verdict"] != packages.PROVEN)


def test_report_is_of_the_pinned_versions():
    folder = packages.ROOT / "benchmarks" / "third_party"
    text = "".join((folder / name).read_text(encoding="utf-8") for name in ("few.txt", "requirements.txt"))
    pinned = dict(line.lower().split("==") for line in text.splitlines() if "==" in line)
    assert all(pinned[row["package"].lower()] == row["version"] for row in ROWS.values())


def test_markdown_renders_the_json():
    assert (packages.REPORTS / "third_party.md").read_text(encoding="utf-8") == packages.markdown(REPORT)
