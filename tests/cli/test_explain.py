"""`leakcheck explain`: the pages of finding codes, in a terminal and in a pipe."""

import subprocess
import sys

import pytest

from leakcheck.codes import CODES
from tests.cli.command import command


@pytest.mark.parametrize("names", [("LC101",), ("lc202", "LC101")])
def test_pages_are_printed_as_they_are_when_piped(names, monkeypatch, capsys) -> None:
    pages = "\n".join(CODES[name.upper()].page for name in names)
    assert command(monkeypatch, capsys, "explain", *names) == (0, pages + "\n", "")


def test_in_a_terminal_markdown_is_set(monkeypatch, capsys) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    code, out, _ = command(monkeypatch, capsys, "explain", "LC101")
    assert code == 0
    assert "\x1b[" in out
    assert "How it comes about" in out
    assert "##" not in out
    assert "```" not in out


def test_without_a_code_all_are_listed(monkeypatch, capsys) -> None:
    code, out, _ = command(monkeypatch, capsys, "explain")
    assert code == 0
    assert out.splitlines() == [f"{code.id}  {code.title}" for code in CODES.values()]


@pytest.mark.parametrize(
    ("name", "near"), [("LC999", "near it: LC901, LC902"), ("101", "near it: LC101"), ("mask", "'mask'; `leakcheck")]
)
def test_an_unknown_code_is_one_line_that_names_near_ones(name, near, monkeypatch, capsys) -> None:
    code, out, err = command(monkeypatch, capsys, "explain", "LC101", name)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert f"no finding code {name!r}" in err
    assert near in err


def test_it_is_the_whole_process_without_torch() -> None:
    code = "import sys, atexit; sys.argv = ['leakcheck', 'explain', 'LC101']\nfrom leakcheck import cli\n"
    code += "atexit.register(lambda: print('torch' in sys.modules))\ncli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("# LC101: ")
    assert done.stdout.rstrip().endswith("False")
