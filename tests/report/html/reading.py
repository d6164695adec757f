"""A page read back: its elements as a tree, and what a reader sees of them as lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"br", "link", "meta", "wbr"}
_INLINE = {"a", "b", "bdi", "button", "code", "i", "mark", "output", "span", "wbr"}
_UNSEEN = {"head", "script", "svg"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    def all(self) -> Iterator[Element]:
        for child in self.children:
            if isinstance(child, Element):
                yield child
                yield from child.all()

    def find(self, *tags: str, **attributes: str) -> list[Element]:
        """Those with one of these tags, if any are given, and these attributes; `kind` is one of the classes."""
        kind = attributes.pop("kind", None)
        return [
            element
            for element in self.all()
            if (not tags or element.tag in tags)
            and (kind is None or kind in element.attributes.get("class", "").split())
            and all(element.attributes.get(name) == value for name, value in attributes.items())
        ]

    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text() for child in self.children)

    def lines(self) -> list[str]:
        """What is seen: a line for each block, cells of a row beside each other."""
        lines, line = [], ""
        for child in self.children:
            if isinstance(child, str):
                line += child
            elif child.tag in _INLINE:
                line += child.text()
            elif child.tag not in _UNSEEN:
                lines += [line, *child.lines()]
                line = ""
        lines = [" ".join(entry.split()) for entry in (*lines, line)]
        lines = [entry for entry in lines if entry]
        return [" | ".join(lines)] if self.tag == "tr" else lines


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs), f"<{tag}> has an attribute twice: {attrs}"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        assert any(element.tag == "svg" for element in self.open), f"<{tag}/> closes itself in SVG only"
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open[-1].tag == tag, f"</{tag}> where <{self.open[-1].tag}> is open"
        self.open.pop()

    def handle_data(self, data):
        self.open[-1].children.append(data)


def read(page: str) -> Element:
    """The tree of a page; every element has to be closed where it belongs."""
    parser = _Parser()
    parser.feed(page)
    parser.close()
    assert parser.open == [parser.root]
    return parser.root
