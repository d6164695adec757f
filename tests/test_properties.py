"""`pytest properties --model SPEC` as a user runs it: what it prints, its exit code, and its replay line."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

SUBJECT = """
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self, leaky):
        super().__init__()
        self.leaky = leaky
        self.embedding = nn.Embedding(23, 8)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.head = nn.Linear(8, 23)

    def forward(self, input_ids):
        x = self.embedding(input_ids)
        for number, layer in enumerate(self.layers):
            x = x + layer(x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None])
            if number == 1 and self.leaky and x.shape[1] > 4:
                x = x + 1e-6 * x.roll(-2, 1)
        return self.head(x)

def leaky():
    return Model(True)

def clean():
    return Model(False)
"""


@pytest.fixture
def suite(tmp_path: Path):
    """Runs pytest with these options in the repository: exit code and standard output."""
    (tmp_path / "subject.py").write_text(SUBJECT)

    def run(*options: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
            cwd=ROOT,
            env={**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path / "stored"), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            encoding="utf-8",
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_a_leak_is_found_stored_and_replayed(suite, tmp_path: Path) -> None:
    code, out = suite("properties", f"--model={tmp_path}/subject.py:leaky", "-k", "causal or repeatable", "--soak=3")
    assert code == 1
    assert "1 failed" in out
    assert "tokens  = [[0, 0, 0, 0, 0]]" in out  # the shortest that leaks
    assert "first in layers.2 (layer 2)" in out
    assert "Traceback" not in out
    lines = re.findall(r"^python -m pytest .*--replay=\S+$", out, re.MULTILINE)
    assert len(lines) == 1

    (finding,) = [json.loads(line) for line in (tmp_path / "stored" / "findings.jsonl").read_text().splitlines()]
    assert finding["counterexample"]["law"] == "causal"
    assert finding["replay"] == lines[0]
    assert list((tmp_path / "stored" / "examples").iterdir())

    code, out = suite(*shlex.split(lines[0])[3:])
    assert code == 1
    assert "tokens  = [[0, 0, 0, 0, 0]]" in out


def test_a_clean_model_passes(suite, tmp_path: Path) -> None:
    code, out = suite("properties", f"--model={tmp_path}/subject.py:clean", "-rs")
    assert code == 0
    assert re.search(r"5 passed, 5 skipped, \d+ deselected", out)
    assert "takes no cache" in out


def test_a_spec_that_cannot_be_loaded_is_one_line(suite, tmp_path: Path) -> None:
    code, out = suite("properties", f"--model={tmp_path}/missing.py:build")
    assert code == 4
    (line,) = out.strip().splitlines()
    assert "missing.py:build: there is no such file or folder" in line
