"""The benchmark runs, and writes what it says."""

import json
import math
import sys

import pytest

from benchmarks import flow_cost


def run(monkeypatch, tmp_path):
    small = [
        "--layers",
        "1",
        "--hidden",
        "36",
        "--vocabulary",
        "20",
        "--repeats",
        "2",
        "--output",
        str(tmp_path / "cost"),
    ]
    monkeypatch.setattr(sys, "argv", ["flow_cost", "--lengths", "5", "--attention", "sdpa", *small])
    flow_cost.main()
    assert {path.name for path in tmp_path.iterdir()} == {"cost.json", "cost.md"}
    return json.loads((tmp_path / "cost.json").read_text()), (tmp_path / "cost.md").read_text()


def test_writes_ratios_of_what_it_ran(monkeypatch, tmp_path):
    monkeypatch.setattr(flow_cost, "certify", None)
    document, page = run(monkeypatch, tmp_path)
    (cost,) = document["costs"]
    assert (cost["attention"], cost["length"], cost["proven"]) == ("sdpa", 5, True)
    assert math.isfinite(cost["flow_forwards"])
    assert cost["flow_forwards"] > 0
    assert cost["operations"] > 0
    assert cost["certificate_forwards"] is None
    assert "not run" in page


@pytest.mark.parametrize(("longest", "note"), [(5, False), (4, True)])
def test_certificate_beside_it_says_when_it_is_extrapolated(monkeypatch, tmp_path, longest, note):
    pytest.importorskip("causal_certificate")
    monkeypatch.setattr(flow_cost, "EXHAUSTIVE", longest)
    monkeypatch.setattr(flow_cost, "CUTS", 2)
    document, page = run(monkeypatch, tmp_path)
    (cost,) = document["costs"]
    assert cost["certificate_passes"] is True
    assert cost["certificate_cuts"] == (2 if note else 4)
    assert ("extrapolated from 2 of 4 cuts" in page) is note
