import base64
import hashlib
import re
from dataclasses import replace
from itertools import count

import pytest
from jinja2 import UndefinedError

from leakcheck.codes import CODES
from leakcheck.findings import Verdict
from leakcheck.report.html import _environment, render
from leakcheck.report.json import read as read_json
from leakcheck.report.json import render as render_json

from ..documents import DOCUMENTS, large
from .reading import read

WHOLE = [
    "Configurations",
    "Findings",
    "Checkpoints",
    "Horizon map",
    "Delta matrix",
    "Data flow",
    "Ablation",
    "Fidelity",
    "Safety checks",
    "Statistics",
    "Conclusions",
    "How far this reaches",
    "Controls",
    "Environment",
]


def titles(document) -> list[str]:
    return [heading.text() for heading in read(render(document)).find("h2")]


def test_reads_like_this(document, snapshot_of):
    text = "\n".join(read(render(document)).lines()) + "\n"
    for code in CODES.values():
        text = text.replace(" ".join(code.description.split()), f"({code.id} explained)")
    assert text == snapshot_of("txt")


def test_the_verdict_comes_first(document):
    page = read(render(document))
    word = "n/a" if document.verdict is Verdict.NOT_APPLICABLE else document.verdict.value
    assert page.find("h1")[0].text().split()[0] == word
    main = page.find("main")[0]
    assert next(main.all()) is page.find("header", kind="verdict")[0]


def test_sections_in_their_order():
    assert titles(DOCUMENTS["leak"]) == WHOLE
    assert titles(DOCUMENTS["clean"]) == [title for title in WHOLE if title != "Findings"]


def test_sections_without_data_are_left_out():
    assert titles(DOCUMENTS["empty"]) == ["How far this reaches"]
    assert "Horizon map" not in titles(DOCUMENTS["generic"])


def test_an_older_report_is_shown_without_what_it_lacks():
    old = replace(
        DOCUMENTS["leak"],
        findings=tuple(replace(f, excerpt=None, steps=(), witness={"cut": 1}) for f in DOCUMENTS["leak"].findings),
        horizon_map=None,
        delta_matrix=None,
        witnesses=(),
    )
    page = read(render(read_json(render_json(old))))
    assert not page.find("mark")
    assert not page.find("figure")
    assert [step.text() for step in page.find("ol", kind="chain")[0].find("li")] == list(old.findings[0].chain)


def test_references_lead_somewhere(document):
    page = read(render(document))
    ids = [element.attributes["id"] for element in page.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    for element in page.all():
        for name in ("aria-controls", "aria-labelledby"):
            assert element.attributes.get(name, ids[0]) in ids
        if element.tag == "a":
            assert element.attributes["href"].removeprefix("#") in ids


def test_nothing_is_fetched(document):
    text = render(document)
    page = read(text)
    assert not page.find("iframe", "img", "object", "embed", "audio", "video", "base", "form")
    for element in page.all():
        assert "src" not in element.attributes
        assert element.attributes.get("href", "#").startswith(("#", "data:"))
    assert not re.search(
        r"@import|@font-face|url\((?!#)|https?:|fetch\(|XMLHttp|import\(", page.find("style")[0].text()
    )
    assert not re.search(r"https?:|fetch\(|XMLHttp|import\(", page.find("script")[-1].text())


def test_no_other_style_or_script_has_any_effect(document):
    page = read(render(document))
    policy = page.find("meta", **{"http-equiv": "Content-Security-Policy"})[0].attributes["content"]
    scripts = [script for script in page.find("script") if "type" not in script.attributes]
    for kind, (element,) in {"style": page.find("style"), "script": scripts}.items():
        digest = base64.b64encode(hashlib.sha256(element.text().encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none'; ")
    for element in page.all():
        assert not [name for name in element.attributes if name == "style" or name.startswith("on")]


def test_nothing_that_is_not_printable_comes_through(document):
    assert all(c == "\n" or c.isprintable() for c in render(document))


def test_names_are_shown_as_they_are():
    page = read(render(DOCUMENTS["hostile"]))
    assert "[red]a|b`c`[/red]<script>alert(1)</script>\\x1b[31m\\u202e *bold*" in page.find("h1")[0].text() + " ".join(
        page.find("p", kind="subject")[0].text().split()
    )
    assert {script.attributes.get("type") for script in page.find("script")} == {"application/json", None}
    assert "alert" not in "".join(script.text() for script in page.find("script") if not script.attributes)


def test_code_in_a_sentence_is_code_and_a_name_keeps_its_case():
    text = "{{ text|capitalised|prose }}"
    shown = _environment().from_string(text).render
    assert shown(text="the mask `a<b` is `None`") == "The mask <code>a&lt;b</code> is <code>None</code>"
    assert shown(text="aten::add: mixes") == "aten::add: mixes"
    assert shown(text="batch, 2") == "Batch, 2"


def test_nobody_is_told_to_be_safe(document):
    assert not re.search(r"\bsafe\b", "\n".join(read(render(document)).lines()), re.IGNORECASE)


def test_the_same_document_gives_the_same_page(document):
    assert render(document) == render(document)


def test_a_template_cannot_show_what_is_not_there():
    with pytest.raises(UndefinedError):
        _environment().from_string("{{ document.nothing }}").render(document=DOCUMENTS["clean"])
    with pytest.raises(TypeError):
        _environment().from_string("{{ nothing }}").render(nothing=None)


def test_five_megabytes_are_enough_for_32_layers_that_are_all_different():
    document = large()
    numbers = count(1)
    checkpoints = tuple(
        c if c.output_delta is None else replace(c, output_delta=1.01 ** -next(numbers))
        for c in document.checkpoints
        if c.layer is None or c.layer < 32
    )
    page = render(replace(document, checkpoints=checkpoints))
    measured = {(c.stage, c.layer, c.configuration) for c in checkpoints if c.output_delta is not None}
    assert page.count('<tr class="layer">') >= len(measured) > 6000
    assert len(page.encode()) < 5e6


def test_a_section_that_the_page_does_not_know_is_shown(monkeypatch):
    from leakcheck.report import view
    from leakcheck.report.layout import Section

    news = Section("News", ("something",), drawing="a\n b <c>")
    known = view.sections
    monkeypatch.setattr(view, "sections", lambda result: [news, *known(result)])
    page = read(render(DOCUMENTS["clean"]))
    assert [heading.text() for heading in page.find("h2")][-5:-2] == ["Conclusions", "News", "How far this reaches"]
    assert page.find("pre")[0].text() == "a\n b <c>\n"
