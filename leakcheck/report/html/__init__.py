"""The audit as one HTML file that fetches nothing: verdict first, then all that was found and measured."""

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import groupby

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from leakcheck.findings import AuditResult, Excerpt
from leakcheck.report import layout, view
from leakcheck.report.html.flowchart import phases
from leakcheck.report.html.heatmap import delta_heatmap, horizon_heatmap
from leakcheck.report.html.page import facts, parts, told
from leakcheck.report.html.reach import reach
from leakcheck.report.html.unfolded import unfold
from leakcheck.report.registry import renders
from leakcheck.report.stages import ON_RECOMPUTE, ON_STANDARD, data_flow_nodes, paths_of
from leakcheck.report.words import ahead, number, verdict, visible

# What a word at the start of a cell looks like; each kind has a colour and a sign of its own.
_KINDS = {
    **dict.fromkeys(layout.ALARMS, "bad"),
    **dict.fromkeys(layout.WARNINGS, "warn"),
    **dict.fromkeys(layout.GOOD | {"caught"}, "good"),
    "CONTAMINATED": "carried",
    "OPEN": "open",
    "n/a": "none",
}


@renders(".html")
def render(result: AuditResult) -> str:
    style, script = _asset("report.css"), _asset("report.js")
    word, _, said = view.headline(result).partition(": ")
    established, _, evidence = said.partition(". ")
    horizon, deltas = result.horizon_map, result.delta_matrix
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            result=result,
            style=style,
            script=script,
            policy=_content_policy(style, script),
            verdict=word,
            kind=_KINDS[word],
            established=established,
            evidence=evidence,
            facts=facts(result),
            subject=view.subject_line(result),
            closing=view.closing(result).rpartition("; ")[2],
            parts=parts(result),
            findings=[told(group, result) for group in view.same_findings(result.findings)],
            paths=paths_of(result.checkpoints),
            unfolded=unfold(result.checkpoints),
            horizon=horizon_heatmap(horizon) if horizon and horizon.rows else None,
            deltas=delta_heatmap(deltas, result.subject.contract) if deltas and deltas.deltas else None,
            nodes=data_flow_nodes(result.checkpoints),
            lanes={"standard": ON_STANDARD, "recompute": ON_RECOMPUTE},
            phases=phases(result.checkpoints),
            reach=reach(result),
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("leakcheck.report.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_shown,
    )
    environment.filters.update(
        ahead=ahead,
        badge=_badge,
        breakable=_breakable,
        capitalised=_capitalised,
        groups=lambda rows: [(group, list(members)) for group, members in groupby(rows, key=lambda row: row.group)],
        lines=_lines,
        number=number,
        prose=_prose,
        verdict=verdict,
    )
    environment.globals["kinds"] = _KINDS
    return environment


def _shown(value: object) -> object:
    """What stands in braces in a template, with what is not printable spelled out."""
    if isinstance(value, Markup):
        return value
    if value is None:
        raise TypeError("a template shows what is not there")
    return visible(str(value))


def _breakable(text: object) -> Markup:
    """A name too long for a line goes on in the next where a part of it ends."""
    escaped = str(escape(_shown(text)))
    return Markup(re.sub(r"\S{25,}", lambda name: re.sub(r"(?<=\w)([._/])(?=\w)", r"\1<wbr>", name[0]), escaped))


def _prose(text: object) -> Markup:
    """What stands between backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(_breakable(text))))


def _capitalised(text: str) -> str:
    """As the beginning of a sentence, unless it begins with a name."""
    return text[:1].upper() + text[1:] if re.match(r"[a-z-]+[,:;]?( |$)", text) else text


def _badge(text: str) -> Markup:
    """A verdict at the start of a text set off by colour and sign."""
    word, space, rest = text.partition(" ")
    if word not in _KINDS:
        return _breakable(text)
    badge = Markup('<span class="badge {}">{}</span>').format(_KINDS[word], word)
    return badge + space + _breakable(rest)


@dataclass(frozen=True)
class Line:
    """A line of source: what is before, in and after the region that is marked."""

    number: int
    marked: bool
    before: str
    region: str
    after: str


def _lines(excerpt: Excerpt) -> list[Line]:
    """Without the indentation that all lines share."""
    first, start, last, end = excerpt.region
    indents = [text[: len(text) - len(text.lstrip())] for text in excerpt.lines if text.strip()]
    least = min(indents, key=len, default="")
    shared = len(least) if all(indent.startswith(least) for indent in indents) else 0  # or tabs and spaces mixed
    lines = []
    for at, whole in enumerate(excerpt.lines, excerpt.first):
        text = whole[shared:]
        right = max(0, end - 1 - shared) if at == last else len(text)
        left = min(right, max(0, start - 1 - shared) if at == first else len(text) - len(text.lstrip()))
        marked = first <= at <= last
        cut = (text[:left], text[left:right], text[right:]) if marked else (text, "", "")
        lines.append(Line(at, marked, *(part.replace("\t", "    ") for part in cut)))
    return lines


def _asset(name: str) -> Markup:
    return Markup((files("leakcheck.report.html") / "templates" / name).read_text(encoding="utf-8"))


def _content_policy(style: str, script: str) -> str:
    """Nothing is fetched, and no other style or script than these two has any effect."""
    style_hash, script_hash = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)
    )
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{style_hash}'; script-src 'sha256-{script_hash}'; "
        "base-uri 'none'; form-action 'none'"
    )
