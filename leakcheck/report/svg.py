"""The tables of the terminal as a picture: what fits one, without the details below the rows. Fetches nothing."""

import re
from dataclasses import replace
from html import escape, unescape
from io import StringIO

from rich.cells import cell_len
from rich.console import Console
from rich.terminal_theme import TerminalTheme

from leakcheck.findings import AuditResult
from leakcheck.report import view
from leakcheck.report.layout import Page, Section
from leakcheck.report.registry import renders
from leakcheck.report.terminal import print_page
from leakcheck.report.words import visible

_SECTIONS = ("Policies", "Configurations", "Checkpoints", "Findings")
_WIDTH = 100
_CELL = 12.2  # how wide the export makes one


def _theme(background: str, foreground: str, red: str, green: str, yellow: str) -> TerminalTheme:
    """Only these colours are used; each is legible on the background, the foreground dimmed, too."""
    paper, ink, *signal = (
        (int(code[:2], 16), int(code[2:4], 16), int(code[4:], 16))
        for code in (background, foreground, red, green, yellow)
    )
    return TerminalTheme(paper, ink, [ink, *signal, *[ink] * 4])


_LIGHT = _theme("ffffff", "101418", "b42318", "1a7f37", "8a5a00")
_DARK = _theme("0d1117", "f0f3f6", "ff7b72", "3fb950", "d29922")
_FORMAT = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="{unique_id}-title">
<title id="{unique_id}-title"></title>
<style>
text {{ font: {char_height}px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre }}
rect {{ fill: %s; stroke: #8b949e; stroke-width: 2px }}
{styles}
@media (prefers-color-scheme: dark) {{
rect {{ fill: %s }}
%s
}}
</style>
<rect width="100%%" height="100%%" rx="8"/>
<g transform="translate({terminal_x}, {terminal_y})">
{matrix}
</g>
</svg>
"""


@renders(".svg")
def render(result: AuditResult) -> str:
    page = view.page(result)
    console = Console(
        file=StringIO(), record=True, width=_WIDTH, height=1, force_terminal=True, color_system="truecolor"
    )
    print_page(_pictured(page), console)
    dark = console.export_svg(theme=_DARK, clear=False, code_format="{styles}", unique_id="leakcheck")
    colours = (_LIGHT.background_color.hex, _DARK.background_color.hex, dark.replace("{", "{{").replace("}", "}}"))
    picture = console.export_svg(theme=_LIGHT, code_format=_FORMAT % colours, unique_id="leakcheck")
    title = escape(visible(f"{page.title}. {page.headline}"))
    return _fitted(picture).replace("></title>", f">{title}</title>", 1)


def _pictured(page: Page) -> Page:
    return replace(page, sections=tuple(_bare(s) for s in page.sections if s.title in _SECTIONS))


def _bare(section: Section) -> Section:
    if section.table is None:
        return section
    return replace(
        section, table=replace(section.table, rows=tuple(replace(r, details=()) for r in section.table.rows))
    )


def _fitted(picture: str) -> str:
    """Each text as long as its cells, of which some characters take two; line ends as such; no line is clipped."""
    picture = re.sub(r"<text [^>]*>\n</text>", "\n", picture)
    return re.sub(
        r'textLength="[^"]*" clip-path="[^"]*">([^<]*)<',
        lambda text: f'textLength="{cell_len(unescape(text[1])) * _CELL:g}">{text[1]}<',
        picture,
    )
