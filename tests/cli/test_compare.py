"""`leakcheck compare` as a user meets it; what is worse and what is better is tested in tests/report."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import command

REPORTS = Path(__file__).parents[2] / "reports"
FIXED, PUBLISHED = str(REPORTS / "method1_v3.json"), str(REPORTS / "method1_v3_as_published.json")


@pytest.fixture
def compare(monkeypatch, capsys):
    return lambda *arguments: command(monkeypatch, capsys, "compare", *arguments)


def test_worse_is_exit_1(compare):
    code, out, err = compare(FIXED, PUBLISHED)
    assert (code, err) == (1, "")
    assert "\x1b" not in out
    assert out.rstrip().endswith("WORSE: something is worse than it was; exit 1")


@pytest.mark.parametrize(("old", "word"), [(PUBLISHED, "BETTER"), (FIXED, "UNCHANGED")])
def test_nothing_worse_is_exit_0(compare, old, word):
    code, out, _ = compare(old, FIXED)
    assert code == 0
    assert f"{word}: nothing is worse than it was; exit 0" in out


@pytest.mark.parametrize("arguments", [("nowhere.json", FIXED), (FIXED, "nowhere.json")])
def test_an_unreadable_report_is_one_line_and_exit_2(compare, arguments):
    code, out, err = compare(*arguments)
    assert (code, out) == (2, "")
    assert err == (
        "leakcheck: cannot read report 'nowhere.json': No such file or directory; name one that "
        "`leakcheck run --report NAME.json` wrote\n"
    )


def test_it_needs_no_torch():
    code = (
        "import sys; from leakcheck import cli; sys.argv = ['leakcheck', 'compare', *sys.argv[1:]]\n"
        "try: cli.main()\n"
        "finally: assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, FIXED, FIXED], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
