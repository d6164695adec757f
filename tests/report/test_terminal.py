import re
from dataclasses import replace
from io import StringIO

import pytest
from rich.cells import cell_len
from rich.console import Console

from leakcheck.findings import Verdict
from leakcheck.report import print_audit

from .documents import DOCUMENTS


def printed(document, width: int = 100, **options) -> str:
    output = StringIO()
    print_audit(document, Console(width=width, file=output, **{"color_system": None, **options}))
    return output.getvalue()


def test_looks_like_this(document, snapshot_of):
    assert printed(document) == snapshot_of("txt")


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_no_line_is_wider_than_the_console(document, width):
    assert max(cell_len(line) for line in printed(document, width).splitlines()) <= width


def test_nothing_that_a_terminal_obeys_comes_through(document):
    assert all(c == "\n" or c.isprintable() for c in printed(document))


def test_markup_in_names_is_printed_as_it_is():
    output = printed(DOCUMENTS["hostile"], width=200)
    assert "[red]a|b`c`[/red]<script>" in output
    assert ":smile:" in output


def test_colour_adds_nothing_but_escapes(document):
    coloured = printed(document, color_system="truecolor", force_terminal=True)
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == printed(document)


def test_nobody_is_told_to_be_safe(document):
    assert not re.search(r"\bsafe\b", printed(document), re.IGNORECASE)


def test_verdict_comes_second_and_last(document):
    lines = printed(document, width=2000).splitlines()
    word = "n/a" if document.verdict is Verdict.NOT_APPLICABLE else document.verdict.value
    assert lines[1].startswith(f"{word}: ")
    assert re.match(rf"{word}: .*exit \d", lines[-1])


@pytest.mark.parametrize(
    ("verdict", "exit_meaning"),
    [
        (Verdict.PROVEN, "exit 0: gate holds"),
        (Verdict.OPEN, "exit 0: gate holds with a warning, exit 4 under --strict"),
        (Verdict.SUSPECT, "exit 0: gate holds with a warning, exit 4 under --strict"),
        (Verdict.LEAK, "exit 1: leak"),
        (Verdict.NOT_APPLICABLE, "exit 5: nothing was checked"),
    ],
)
def test_every_verdict_says_how_the_command_ends(verdict, exit_meaning):
    document = replace(DOCUMENTS["clean"], verdict=verdict)
    assert printed(document).rstrip().endswith(exit_meaning)
