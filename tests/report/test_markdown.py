import re

import pytest

from leakcheck.report.markdown import render

from .documents import DOCUMENTS


def test_looks_like_this(document, snapshot_of):
    assert render(document) == snapshot_of("md")


def test_every_table_row_has_the_cells_of_its_header(document):
    for table in re.findall(r"(?:^\|.*\n)+", render(document), re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1


@pytest.mark.parametrize("markup", ["<script", "`c`", "[red]", "*bold*", "_x_", "\x1b", "\u202e"])
def test_markup_in_names_is_escaped(markup):
    text = render(DOCUMENTS["hostile"])
    assert not re.search(rf"(?<!\\){re.escape(markup)}", text)
