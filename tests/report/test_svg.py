import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from leakcheck.report.svg import render
from leakcheck.report.words import visible

from .documents import DOCUMENTS, large

SVG = "{http://www.w3.org/2000/svg}"


def texts(picture: str) -> list[ElementTree.Element]:
    return ElementTree.fromstring(picture).findall(f".//{SVG}text")


def said(picture: str) -> str:
    """All that it shows, without regard to where lines end."""
    return "".join("".join(entry.itertext()) for entry in texts(picture)).replace("\xa0", "").replace(" ", "")


def test_looks_like_this(document, snapshot_of):
    assert render(document) == snapshot_of("svg")


def test_it_is_well_formed_and_of_nothing_but_text(document):
    tags = {element.tag.removeprefix(SVG) for element in ElementTree.fromstring(render(document)).iter()}
    assert tags == {"svg", "title", "style", "rect", "g", "text"}


def test_it_fetches_nothing(document):
    picture = render(document).replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?:|url\(|@import|@font-face|href", picture)


def test_it_says_the_verdict_to_those_who_do_not_see_it(document):
    root = ElementTree.fromstring(render(document))
    title = root.find(f"{SVG}title")
    assert title is not None
    assert root.get("aria-labelledby") == title.get("id")
    assert visible(document.subject.spec) in (title.text or "")


@pytest.mark.parametrize("name", ["clean", "leak"])
def test_it_has_the_tables_without_their_details(name):
    picture = said(render(DOCUMENTS[name]))
    document = DOCUMENTS[name]
    for c in document.configurations:
        assert c.attention in picture
    assert "14Method1LlamaModel_v3.forward" in picture
    assert "passes:" not in picture
    assert "chain:" not in picture
    assert ("LC201LEAKtheattentionmaskwasNone" in picture) == (name == "leak")
    assert "SafetyChecks" not in picture.title()


def test_no_text_leaves_the_picture(document):
    for entry in texts(render(document)):
        assert float(entry.get("x", "nan")) + float(entry.get("textLength", "nan")) <= 100 * 12.2 + 1e-6


def test_a_wide_character_takes_two_cells():
    wide = replace(DOCUMENTS["empty"], subject=replace(DOCUMENTS["empty"].subject, spec="深度"))
    first = texts(render(wide))[0]
    narrow = replace(DOCUMENTS["empty"], subject=replace(DOCUMENTS["empty"].subject, spec="abcd"))
    assert first.get("textLength") == texts(render(narrow))[0].get("textLength")


def styles(picture: str) -> list[dict[str, str]]:
    """Class -> colour of the light picture, then of the dark one; `paper` is the background."""
    found = ElementTree.fromstring(picture).find(f"{SVG}style")
    assert found is not None
    assert found.text
    found_in = re.sub(r"rect \{", ".paper {", found.text).split("@media (prefers-color-scheme: dark)")
    return [dict(re.findall(r"\.([\w-]+) \{ fill: #([0-9a-f]{6})", part)) for part in found_in]


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_every_colour_is_legible_in_light_and_dark(document):
    """WCAG AA: a contrast of 4.5 to 1."""
    light, dark = styles(render(document))
    assert light.keys() == dark.keys()
    assert light["paper"] != dark["paper"]
    for colours in (light, dark):
        paper = luminance(colours.pop("paper"))
        for colour in colours.values():
            darker, lighter = sorted((paper, luminance(colour)))
            assert (lighter + 0.05) / (darker + 0.05) >= 4.5


def test_a_leak_has_a_colour_of_its_own():
    entries = texts(render(DOCUMENTS["leak"]))
    classes = {word: {e.get("class") for e in entries if e.text == word} for word in ("LEAK", "PROVEN", "CONTAMINATED")}
    assert all(len(found) == 1 for found in classes.values())
    assert len(set.union(*classes.values())) == 3


@pytest.mark.parametrize(
    ("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb"), ("COLUMNS", "40"), ("FORCE_COLOR", "0")]
)
def test_the_terminal_it_is_made_in_makes_no_difference(name, value, monkeypatch):
    expected = render(DOCUMENTS["leak"])
    monkeypatch.setenv(name, value)
    assert render(DOCUMENTS["leak"]) == expected


def test_the_largest_report_is_a_small_picture():
    assert len(render(large())) < 50_000
