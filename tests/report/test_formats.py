"""What holds for every format, the next one included."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from leakcheck.report import RENDERERS, github

from .documents import DOCUMENTS, large

HERE = Path(__file__).parent
SNAPSHOTS = [path.relative_to(HERE).as_posix() for path in HERE.rglob("__snapshots__/**/*[[]*")]

FORMATS = {**RENDERERS, "github": github.render}  # the one that is printed, not written

every_format = pytest.mark.parametrize("suffix", sorted(FORMATS))


@every_format
@pytest.mark.parametrize("name", DOCUMENTS)
def test_it_has_a_snapshot_of_every_document(suffix, name):
    """In the tests of the module that renders it: tests/report/test_markdown.py for markdown.py."""
    module = FORMATS[suffix].__module__.rpartition(".")[2]
    assert [path for path in SNAPSHOTS if module in path and f"[{name}]" in path]


@every_format
def test_it_ends_with_a_line_end(suffix, document):
    text = FORMATS[suffix](document)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


@every_format
def test_nothing_hostile_comes_through_as_a_command(suffix):
    """Control characters, and what is no character at all: a file name that is not UTF-8."""
    text = FORMATS[suffix](DOCUMENTS["hostile"]).encode("utf-8", "backslashreplace").decode()
    assert all(c in "\n\t" or ord(c) >= 32 for c in text)


DIGESTS = """
from tests.report.test_formats import digests
print("\\n".join(digests()))
"""


def digests() -> list[str]:
    return [
        f"{suffix} {name} {hashlib.sha256(render(document).encode('utf-8', 'backslashreplace')).hexdigest()}"
        for suffix, render in sorted(FORMATS.items())
        for name, document in DOCUMENTS.items()
    ]


def test_the_same_document_gives_the_same_text_in_every_process():
    """Another seed of hashes puts sets into another order."""
    environment = {**os.environ, "PYTHONHASHSEED": "1", "COLUMNS": "60", "TERM": "dumb"}
    printed = subprocess.run(
        [sys.executable, "-c", DIGESTS],
        cwd=HERE.parents[1],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert printed.splitlines() == digests()


def calls(render, document) -> int:
    """How many functions are entered and left for it: what a clock says, without the clock."""
    count = 0

    def tally(*_) -> None:
        nonlocal count
        count += 1

    sys.setprofile(tally)
    try:
        render(document)
    finally:
        sys.setprofile(None)
    return count


@every_format
def test_the_work_grows_with_the_layers_and_no_faster(suffix):
    render = FORMATS[suffix]
    render(large(2))  # whatever is made once
    few, more, most = (calls(render, large(layers)) for layers in (2, 3, 4))
    assert most - more <= 1.1 * (more - few) + 100
