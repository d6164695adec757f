"""Excerpts: the line, what belongs to it, and what lies around it."""

import os
from pathlib import Path

import pytest

from leakcheck.checkpoints.source import excerpt, short_path
from leakcheck.findings import Excerpt

LINES = [
    "def forward(self, x):",
    "    x = self.mix(",
    "        x,",
    "        mask=None,",
    "    )",
    "    for layer in (",
    "        self.layers",
    "    ):",
    "        x = layer(x)",
    "    return x  # the last",
]


@pytest.fixture
def file(tmp_path: Path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ours.py").write_text("\n".join(LINES) + "\n")
    return str(tmp_path / "ours.py")


@pytest.mark.parametrize(
    ("line", "region"),
    [
        (1, (1, 1, 1, 22)),  # without its body
        (2, (2, 5, 5, 6)),  # the whole call
        (4, (4, 9, 4, 19)),  # within a statement: the line alone
        (6, (6, 5, 8, 7)),  # the head of a loop
        (10, (10, 5, 10, 25)),
    ],
)
def test_what_is_marked(file: str, line: int, region: tuple[int, int, int, int]) -> None:
    found = excerpt(file, line)
    assert found.file == "ours.py"
    assert found.region == region
    assert found.first == max(1, line - 3)
    assert list(found.lines) == LINES[found.first - 1 : region[2] + 3]


def test_a_short_path_finds_its_file_again(file: str, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    assert short_path(file) == "ours.py"
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert excerpt("ours.py", 2).lines[1] == LINES[1]


def test_a_file_that_changed_is_read_again(file: str) -> None:
    assert excerpt(file, 10).lines[-1] == LINES[-1]
    Path(file).write_text("x = 1\n")
    os.utime(file, (1, 1))
    assert excerpt(file, 1).lines == ("x = 1",)


@pytest.mark.parametrize("line", [0, 11, 10**9])
def test_a_line_that_is_not_there_has_no_text(file: str, line: int) -> None:
    assert excerpt(file, line) == Excerpt("ours.py", (line, 1, line, 1), line, ())


def test_a_file_that_is_not_there_has_no_text() -> None:
    assert excerpt("<string>", 3).lines == ()


def test_a_file_that_is_no_python_has_its_line(tmp_path: Path) -> None:
    (tmp_path / "template.txt").write_text("{% if x %}\n  y\n")
    assert excerpt(str(tmp_path / "template.txt"), 2).region == (2, 3, 2, 4)
