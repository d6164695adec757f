"""The workflow in README.md, run as the runner would run it.

Mapped away: the step `Install`, for which a script `leakcheck` on the path stands in, and the actions (`uses`), which
need GitHub. Every other step is run as it stands.
"""

import os
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from leakcheck.errors import ExitCode

ROOT = Path(__file__).resolve().parents[2]
MODEL = """
    import torch
    from torch import nn

    class Mixer(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(50, 8), nn.Linear(8, 50)

        def forward(self, input_ids):
            x = self.embed(input_ids)
            return self.head({mixed})

    def build():
        torch.manual_seed(0)
        return Mixer()
"""


def workflow() -> dict:
    (block,) = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    return yaml.safe_load(block)


def job() -> dict:
    (only,) = workflow()["jobs"].values()
    return only


@dataclass
class Outcome:
    codes: dict[str, int]  # exit code by step that ran
    summary: str
    folder: Path


@pytest.fixture
def run_job(tmp_path):
    """Run the job on a folder that holds the model; a step after a failed one runs only with `if: always()`."""

    def run(source: str | None) -> Outcome:
        folder, tools = tmp_path / "checkout", tmp_path / "bin"
        model = folder / job()["env"]["MODEL"]
        model.parent.mkdir(parents=True)
        if source is not None:
            model.write_text(textwrap.dedent(source), encoding="utf-8")
        tools.mkdir()
        (tools / "leakcheck").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m leakcheck "$@"\n', encoding="utf-8")
        (tools / "leakcheck").chmod(0o755)
        summary = tmp_path / "summary.md"
        env = {
            **os.environ,
            **job()["env"],
            "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "GITHUB_STEP_SUMMARY": str(summary),
        }
        codes: dict[str, int] = {}
        for step in job()["steps"]:
            wanted = step.get("if") == "always()" or not any(codes.values())
            if "run" in step and step["name"] != "Install" and wanted:
                done = subprocess.run(["bash", "-e", "-c", step["run"]], cwd=folder, env=env)
                codes[step["name"]] = done.returncode
        return Outcome(codes, summary.read_text(encoding="utf-8") if summary.exists() else "", folder)

    return run


def test_only_installing_is_mapped_away():
    (install,) = (step["run"] for step in job()["steps"] if step.get("name") == "Install")
    assert all(line.startswith("pip install ") for line in install.splitlines())
    assert "./.leakcheck" in install


def test_a_causal_model_passes(run_job):
    outcome = run_job(MODEL.format(mixed="x.cumsum(1)"))
    assert outcome.codes == {"Audit": ExitCode.GATE_HOLDS, "Summary": 0}
    assert "PROVEN" in outcome.summary
    assert (outcome.folder / "leakcheck.json").exists()


def test_a_leaking_model_fails_and_says_so_in_the_summary(run_job):
    outcome = run_job(MODEL.format(mixed="x + x.mean(1, keepdim=True)"))
    assert outcome.codes == {"Audit": ExitCode.LEAK, "Summary": 0}
    assert "**LEAK**" in outcome.summary
    assert "LC101" in outcome.summary
    assert "To see it again:\n\n```sh\nleakcheck replay .leakcheck/witnesses/LC101" in outcome.summary
    assert (outcome.folder / "leakcheck.json").exists()


def test_a_missing_model_fails_without_a_report(run_job):
    outcome = run_job(None)
    assert outcome.codes == {"Audit": ExitCode.USAGE, "Summary": 0}
    assert "no report" in outcome.summary
    assert not (outcome.folder / "leakcheck.json").exists()
