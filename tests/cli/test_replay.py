"""From a leak to its fix, as a user goes: run, replay, repair, replay; and all that can be in the way."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import command
from tests.cli.test_run import written

LEAKY = """
import torch
from torch import nn

class Ours(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(11, 6), nn.Linear(6, 11)

    def forward(self, input_ids):
        x = self.embedding(input_ids)
        return self.head(x + x.roll(-1, 1))

def build():
    return Ours()
"""
FIXED = LEAKY.replace("x.roll(-1, 1)", "x.cumsum(1)")
UNPROVEN = LEAKY.replace("x.roll(-1, 1)", "torch.fft.ifft(torch.fft.fft(x, dim=1), dim=1).real")


@pytest.fixture
def leakcheck(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: command(monkeypatch, capsys, *arguments)


@pytest.fixture
def witness(leakcheck, tmp_path: Path) -> str:
    """The file of the witness that the finding names."""
    code, out, err = leakcheck("run", "--model", written(tmp_path, LEAKY), "--seq-len", "7")
    assert (code, err) == (1, "")
    (line,) = {" ".join(part.split()[:3]) for part in out.split("reproduce: ")[1:] if "eval" in part.split()[2]}
    return line.removeprefix("leakcheck replay ")


def test_a_witness_is_replayed_until_it_is_fixed(leakcheck, witness: str, tmp_path: Path) -> None:
    assert witness.startswith(".leakcheck/witnesses/LC101-default-none-eval-")
    code, out, err = leakcheck("replay", witness, "--emit-test", "test_leak.py")
    assert (code, err) == (1, "")
    assert out.startswith("STILL LEAKS: subject.py under default/none/eval: position 0 of row 0 moves by ")
    assert "(the same delta to the last bit)" in out
    assert pytest_says(tmp_path) == 1

    written(tmp_path, FIXED)
    code, out, err = leakcheck("replay", witness)
    assert (code, err) == (0, "")
    assert out.startswith(
        "FIXED: subject.py under default/none/eval: position 0 of row 0 does not move any more, and flow proves"
    )
    assert "The other configurations: leakcheck run --model subject.py" in out
    assert pytest_says(tmp_path) == 0


def test_other_weights_are_a_fix_only_with_a_proof(leakcheck, witness: str, tmp_path: Path) -> None:
    written(tmp_path, FIXED.replace("nn.Linear(6, 11)", "nn.Linear(6, 9)"))
    code, out, _ = leakcheck("replay", witness)
    assert code == 0
    assert "flow proves that at the length of an audit none can\nThe weights are not those" in out

    written(tmp_path, UNPROVEN)
    code, out, _ = leakcheck("replay", witness)
    assert code == 0
    assert "does not move any more\nThat these inputs move nothing is no proof" in out


def pytest_says(folder: Path) -> int:
    """The exit code of pytest on the test that was written, where leakcheck cannot be imported."""
    blocked = (
        "import sys; sys.modules['leakcheck'] = None; import pytest; sys.exit(pytest.main(['-q', 'test_leak.py']))"
    )
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run([sys.executable, "-c", blocked], cwd=folder, env=environment, capture_output=True).returncode


@pytest.mark.parametrize(
    ("source", "code", "message"),
    [
        (UNPROVEN.replace("nn.Linear(6, 11)", "nn.Linear(6, 9)"), 2, "has other weights"),
        (FIXED.replace("def build", "def _build"), 2, "no model in it"),
        (FIXED.replace("x = self", "raise ValueError('not now'); x = self"), 3, "ValueError: not now"),
        (FIXED.replace("x = self", "import os; os._exit(7); x = self"), 3, "ended its process with exit status 7"),
    ],
)
def test_what_cannot_run_is_one_line(leakcheck, witness: str, tmp_path: Path, source: str, code: int, message) -> None:
    written(tmp_path, source)
    found, out, err = leakcheck("replay", witness)
    assert (found, out) == (code, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_no_witness_is_one_line(leakcheck, tmp_path: Path) -> None:
    code, out, err = leakcheck("replay", "nowhere.json")
    assert (code, out) == (2, "")
    assert err == "leakcheck: nowhere.json: no such witness can be read: No such file or directory\n"


def test_a_folder_that_cannot_be_written_hides_no_leak(leakcheck, tmp_path: Path) -> None:
    written(tmp_path, "", "taken")
    code, out, err = leakcheck(
        "run",
        "--model",
        written(tmp_path, LEAKY),
        "--seq-len",
        "7",
        "--witnesses",
        "taken",
        "--emit-test",
        "taken/t.py",
    )
    assert code == 1
    assert "reproduce: leakcheck run --model subject.py" in out
    assert [line.partition(" '")[0] for line in err.splitlines()] == [
        "leakcheck: cannot make folder",
        "leakcheck: cannot write report",
    ]


def test_without_a_leak_no_test_is_written(leakcheck, tmp_path: Path) -> None:
    code, _, err = leakcheck(
        "run", "--model", written(tmp_path, FIXED), "--seq-len", "7", "--emit-test", "test_leak.py", "--witnesses", "w"
    )
    assert code == 0
    assert err == "leakcheck: no test is written to test_leak.py: no inputs are known that show a leak\n"
    assert not (tmp_path / "test_leak.py").exists()
    assert not (tmp_path / "w").exists()
