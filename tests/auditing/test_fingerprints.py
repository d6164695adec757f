"""A fault keeps its fingerprint while its line moves and its numbers change; another fault has another one."""

import contextlib
from pathlib import Path

import pytest

from leakcheck import Settings, audit

SOURCE = """
import torch
from torch import nn

class Ours(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(11, 6), nn.Linear(6, 11)

    def forward(self, input_ids):
        x = self.embedding(input_ids)
        if input_ids[0, 0] > 100:
            x = x + 1
        if input_ids[0, 1] > 100:
            x = x + 2
        return self.head(x + SCALE * x.roll(-1, 1))

SCALE = 1.0

def build():
    return Ours()
"""


def prints(folder: Path, source: str) -> dict[tuple[str, str], str]:
    """The fingerprints of the findings of the eval mode, by code and by line and op; each folder is another import."""
    folder.mkdir()
    (folder / "ours.py").write_text(source)
    with contextlib.chdir(folder):
        found = [f for f in audit("ours.py", Settings(seq_len=7)).findings if f.configuration.endswith("eval")]
    told = {}
    for finding in found:
        assert finding.excerpt is not None
        line = finding.excerpt.lines[finding.excerpt.region[0] - finding.excerpt.first].strip()
        told[finding.code, f"{line} {finding.operation}"] = finding.fingerprint
    assert len(told) == len(found)
    return told


def test_every_fault_has_its_own(tmp_path: Path) -> None:
    told = prints(tmp_path / "a", SOURCE)
    assert {code for code, _ in told} == {"LC101", "LC803"}
    assert len(set(told.values())) == len(told) == 3


@pytest.mark.parametrize(
    "edit",
    [
        ("import torch\n", "# one line\n# and one more\nimport torch\n"),  # every line moves
        ("SCALE = 1.0", "SCALE = 0.25"),  # every delta changes
    ],
)
def test_the_same_fault_keeps_it(tmp_path: Path, edit: tuple[str, str]) -> None:
    assert prints(tmp_path / "a", SOURCE) == prints(tmp_path / "b", SOURCE.replace(*edit, 1))
