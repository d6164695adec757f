"""`leakcheck compare`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from leakcheck.errors import ExitCode


def compare(
    old: Annotated[Path, typer.Argument(help="A JSON report that `leakcheck run --report` wrote.")],
    new: Annotated[Path, typer.Argument(help="A later one.")],
) -> None:
    """Compare two reports; exit 1 if anything is worse than it was."""
    from leakcheck.report import json
    from leakcheck.report.comparison import Way
    from leakcheck.report.comparison import compare as compared
    from leakcheck.report.comparison_page import page
    from leakcheck.report.terminal import print_page

    comparison = compared(json.load(old), json.load(new))
    print_page(page(comparison, str(old), str(new)), Console())
    raise typer.Exit(ExitCode.LEAK if comparison.way is Way.WORSE else ExitCode.GATE_HOLDS)
