"""Options that say what a model reads and what it promises, as they are written on a command line."""

import json

import pytest

from tests.cli.test_run import run, written  # noqa: F401  (run is a fixture)

CUMULATIVE = """
import torch
from torch import nn
from leakcheck import Inputs

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.out = nn.BatchNorm1d(4), nn.Linear(4, 3)

    def forward(self, x, ahead=1):  # [batch, time, 4]
        seen = torch.nn.functional.pad(x, (0, 0, 0, ahead))[:, ahead:]
        return {"raw": x.flip(1), "seen": self.out(seen.cumsum(1)), "normed": self.norm(x.transpose(1, 2))}

def build():
    return Model()

def described():
    return Model(), Inputs({"x": "float[batch, time, 4]"}, {"seen": "[batch, time, 3]"})

def function():
    return lambda x: x.cumsum(1)
"""
SEEN = ("--output", "seen=[batch, time, 3]")


@pytest.fixture
def audit(run, tmp_path):  # noqa: F811
    def audited(name: str, *options: str) -> tuple[int, str, dict, str]:
        written(tmp_path, CUMULATIVE)
        (tmp_path / "report.json").unlink(missing_ok=True)
        code, out, err = run("--model", f"subject.py:{name}", "--report", "report.json", *options)
        report = tmp_path / "report.json"
        return code, out, json.loads(report.read_text()) if report.exists() else {}, err

    return audited


def test_all_outputs_are_audited_unless_some_are_named(audit):
    code, out, report, _ = audit("build")
    assert code == 1
    assert "reads x: float[batch, time, 4]" in " ".join(out.split())
    assert report["subject"]["inputs"] == "x: float[batch, time, 4]"
    assert audit("build", *SEEN)[0] == 1  # one step ahead
    code, out, report, _ = audit("build", *SEEN, "--contract", "lookahead:1")
    assert code == 0
    assert "audited outputs seen: at each step, contract lookahead:1" in " ".join(out.split())
    assert report["subject"]["outputs"] == "seen: at each step"
    assert "how many positions beyond what the contract allows at most" in " ".join(out.split())


def test_a_factory_may_say_what_its_model_reads(audit):
    code, _, report, _ = audit("described", "--contract", "lookahead:1", "--strict")
    assert (code, report["verdict"], report["subject"]["contract"]) == (0, "PROVEN", "lookahead:1")
    assert {tuple(c["policies"]) for c in report["configurations"]} == {("lookahead:1",)}


def test_the_coupling_of_a_batch_is_accepted_by_name(audit):
    normed = ("--output", "normed=[batch, 4, time]")
    code, _, report, _ = audit("build", *normed)
    assert code == 1
    assert report["witnesses"][0]["settings"]["outputs"] == ["normed=[batch, 4, time]"]  # which a replay looks at
    code, out, report, _ = audit("build", *normed, "--accept-batch", "BatchNorm1d")
    assert (code, report["subject"]["accepted"]) == (0, ["norm"])
    assert "batch coupling accepted in norm" in " ".join(out.split())


def test_a_function_needs_a_description(audit):
    code, _, report, err = audit("function")
    assert (code, report) == (2, {})
    assert err.count("\n") == 1
    assert "describe them: --input" in err
    assert audit("function", "--input", "x=float[batch, time, 4]")[0] == 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--contract", "window"), "--contract window: known are causal, lookahead:N"),
        (("--input", "x=float[batch]"), "no argument has a `time` axis"),
        (("--input", "float[batch, time]"), "NAME=DESCRIPTION is needed"),
        (("--output", "seen=[batch]"), "not a description of an output"),
        (("--input", "y=float[batch, time]"), "its forward has no parameter 'y'; it takes x, ahead"),
        (("--accept-batch", "norm1"), "Model has no module of that name or class"),
        (("--output", "heard=[batch, time]"), "there is no output 'heard' over time; there are raw, seen, normed"),
    ],
)
def test_what_does_not_fit_is_one_line(audit, options, reason):
    code, out, report, err = audit("build", *options)
    assert (code, out, report) == (2, "", {})
    assert reason in err
    assert err.count("\n") == 1
