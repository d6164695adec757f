"""`leakcheck bench`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from leakcheck.cli.progress import Bar
from leakcheck.errors import ExitCode, UsageError


def bench(
    names: Annotated[list[str] | None, typer.Argument(help="Leaks and controls of the zoo. Default: all.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="Name the leaks and controls, and run nothing.")] = False,
    report: Annotated[
        list[Path] | None, typer.Option(help="Also write the scoreboard here (.json or .md); may be repeated.")
    ] = None,
) -> None:
    """Put known leaks and correct models to every detector; exit 4 if leakcheck misses one or raises a false alarm."""
    from leakcheck.report.registry import check_writable, put

    reports = report or []
    for path in reports:
        if path.suffix.lower() not in (".json", ".md"):
            raise UsageError(f"--report {path}: the scoreboard is written as .json or .md")
        check_writable(path)
    from leakcheck.scoreboard import summary
    from leakcheck.scoreboard.board import board
    from leakcheck.zoo import CONTROLS, LEAKS

    if list_:
        for found in (LEAKS, CONTROLS):
            for name in found:
                typer.echo(name)
        return
    with Bar() as bar:
        rows = board(names or (), progress=bar.step)
    scores = summary.scores(rows)
    table = Table(*summary.COLUMNS, box=None)
    for score in scores:
        table.add_row(*summary.cells(score))
    Console().print(table)
    for path in reports:
        put(summary.to_json(rows) if path.suffix.lower() == ".json" else summary.to_markdown(rows), path)
    raise typer.Exit(ExitCode.GATE_HOLDS if summary.passes(scores) else ExitCode.INCONCLUSIVE)
