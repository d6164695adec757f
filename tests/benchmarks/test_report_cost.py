"""The benchmark runs, and writes what it says."""

import json
import sys

import pytest

from benchmarks import report_cost
from leakcheck.report import RENDERERS


def test_every_format_has_its_share(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["report_cost", "--repeats", "1", "--output", str(tmp_path / "cost")])
    report_cost.main()
    assert {path.name for path in tmp_path.iterdir()} == {"cost.json", "cost.md"}
    document = json.loads((tmp_path / "cost.json").read_text())
    costs = {cost["format"]: cost for cost in document["costs"]}
    assert {"terminal", "github"} < costs.keys() < {"terminal", "github", *RENDERERS}
    assert len(costs) == 2 + len(set(RENDERERS.values()))  # two endings can name one format
    assert sum(cost["share"] for cost in costs.values()) == pytest.approx(1)
    assert sum(cost["seconds"] for cost in costs.values()) == pytest.approx(document["about"]["seconds"])
    assert all(cost["bytes"] > 500 for cost in costs.values())
    assert (document["about"]["layers"], document["about"]["configurations"]) == (40, 24)
    page = (tmp_path / "cost.md").read_text()
    assert all(f"\n| {name} | " in page for name in costs)


def test_the_committed_page_says_what_was_measured_and_keeps_the_promise():
    document = json.loads((report_cost.REPORTS / "report_cost.json").read_text())
    found = [report_cost.Cost(**cost) for cost in document["costs"]]
    assert report_cost.table(found, document["about"]) == (report_cost.REPORTS / "report_cost.md").read_text()
    assert {cost.format for cost in found} == set(report_cost.formats())
    assert document["about"]["seconds"] < 5
