"""`leakcheck explain`."""

from difflib import get_close_matches
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from leakcheck.codes import CODES, Code
from leakcheck.errors import UsageError


def explain(
    codes: Annotated[list[str] | None, typer.Argument(help="Finding codes, as LC101. Default: list them all.")] = None,
) -> None:
    """Say what a finding code means: what it finds, why that is bad, how it comes about, an example, the remedy."""
    if not codes:
        for code in CODES.values():
            typer.echo(f"{code.id}  {code.title}")
        return
    console = Console()
    for page in [_named(name).page for name in codes]:
        if console.is_terminal:
            console.print(Markdown(page, code_theme="ansi_dark"))
        else:
            typer.echo(page)


def _named(name: str) -> Code:
    code = CODES.get(name.upper())
    if code is None:
        near = get_close_matches(name.upper(), CODES, n=6)
        meant = f"; near it: {', '.join(sorted(near))}" if near else ""
        raise UsageError(f"no finding code {name!r}{meant}; `leakcheck explain` lists them all")
    return code
