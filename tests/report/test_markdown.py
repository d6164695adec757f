import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from leakcheck.findings import Finding
from leakcheck.report import markdown
from leakcheck.report.markdown import render

from .documents import DOCUMENTS, LEAKS_UNDER, future_finding, large

MIB = 2**20


def test_looks_like_this(document, snapshot_of):
    assert render(document) == snapshot_of("md")


def test_every_table_row_has_the_cells_of_its_header(document):
    for table in re.findall(r"(?:^\|.*\n)+", render(document), re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1


@pytest.mark.parametrize("markup", ["<script", "`c`", "[red]", "*bold*", "_x_", "\x1b", "\u202e"])
def test_markup_in_names_is_escaped(markup):
    assert not re.search(rf"(?<!\\){re.escape(markup)}", without_code(render(DOCUMENTS["hostile"])))


def without_code(text: str) -> str:
    """Code is shown as it is, so what follows a fence of its own length is gone from here."""
    return re.sub(r"^(`{3,})\w*\n.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)


def test_code_ends_where_it_ends():
    """Names with backticks in them must not end their own block."""
    ticks = replace(future_finding("a"), reproduce="leakcheck run --model '```\n# heading'")
    text = without_code(render(replace(DOCUMENTS["crash"], findings=(ticks,))))
    assert "heading" not in text
    assert "`" not in text


def tokens(text: str) -> Iterator[Token]:
    """What a Markdown parser makes of it; rich brings one along."""
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text):
        yield token
        yield from token.children or ()


def test_a_parser_finds_no_html_but_what_is_meant(document):
    html = [token.content.strip() for token in tokens(render(document)) if token.type.startswith("html")]
    summary = r"<details><summary>(<b>[A-Z][a-z ]+</b>|The way of the leak: \d+ steps?)</summary>"
    assert all(re.fullmatch(rf"<br>|</details>|{summary}", markup) for markup in html)


def test_a_parser_finds_no_markup_in_names():
    found = {token.type for token in tokens(render(DOCUMENTS["hostile"]))}
    assert not found & {"link_open", "image", "code_inline", "code_block", "s_open", "hr"}
    strong = [t for t in tokens(render(DOCUMENTS["hostile"])) if t.type == "inline" and "**" in t.content]
    assert all(re.findall(r"\*\*(.*?)\*\*", t.content) in (["LEAK"], ["MISSED"]) for t in strong)


def test_a_parser_finds_a_table_for_each_that_is_written(document):
    text = render(document)
    assert sum(token.type == "table_open" for token in tokens(text)) == len(re.findall(r"^\|( --- \|)+$", text, re.M))


def test_the_verdict_comes_first_then_the_findings_then_the_configurations():
    text = render(DOCUMENTS["leak"])
    places = [text.index(said) for said in ("> **LEAK**", "## Findings", "## Configurations", "<details><summary><b>")]
    assert places == sorted(places)


def test_a_finding_shows_its_line_and_ends_with_one_command_to_copy():
    text = render(DOCUMENTS["leak"])
    assert "\n> 208          attn_weights = attn_weights + attention_mask\n" in text
    command = future_finding(LEAKS_UNDER[0]).reproduce
    assert f"To see it again:\n\n```sh\n{command}\n```\n" in text


def test_what_is_folded_is_closed_and_set_apart(document):
    """Markdown within HTML needs an empty line on either side."""
    text = render(document)
    opened = re.findall(r"^<details><summary>.*</summary>\n\n", text, re.MULTILINE)
    assert len(opened) == text.count("<details>") == len(re.findall(r"\n\n</details>\n\n", text))


def size(text: str) -> int:
    return len(text.encode("utf-8", "backslashreplace"))


def test_the_largest_report_is_a_page_that_can_be_read():
    text = render(large())
    assert size(text) < MIB / 20
    assert "is in the JSON report" not in text


def numbered(count: int) -> tuple[Finding, ...]:
    return tuple(replace(future_finding("a"), message=f"leak number {n}") for n in range(count))


def test_too_many_findings_are_counted():
    text = render(replace(DOCUMENTS["leak"], findings=numbered(2000)))
    shown = text.count("leak number")
    assert MIB / 3 < size(text) < MIB
    assert 0 < shown < 2000
    assert f"And {2000 - shown} more findings, which the JSON report has." in text
    assert "## Configurations" in text
    assert "<b>Checkpoints</b>" in text


def test_a_section_that_is_too_long_is_named():
    many = tuple(replace(DOCUMENTS["leak"].checkpoints[0], stage=n) for n in range(9000))
    text = render(replace(DOCUMENTS["leak"], checkpoints=many))
    assert size(text) < MIB
    assert "**Checkpoints** would make this page larger than GitHub shows; it is in the JSON report." in text
    assert "<b>Conclusions</b>" in text


def test_a_name_without_end_is_cut():
    endless = replace(DOCUMENTS["leak"].subject, spec="x" * MIB, class_name="`" * MIB)
    text = render(replace(DOCUMENTS["leak"], subject=endless))
    assert size(text) < MIB / 2
    assert f"({MIB} characters)" in text


@pytest.mark.parametrize("limit", [20_000, 40_000, 100_000])
def test_no_page_is_above_the_limit(limit, monkeypatch):
    monkeypatch.setattr(markdown, "_LIMIT", limit)
    assert size(render(replace(DOCUMENTS["leak"], findings=numbered(300)))) <= limit
