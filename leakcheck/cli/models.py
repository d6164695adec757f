"""`leakcheck models`."""

import typer

from leakcheck.subjects.names import BUILTIN


def models() -> None:
    """List the built-in subjects."""
    width = max(map(len, BUILTIN))
    for name, description in BUILTIN.items():
        typer.echo(f"{name:<{width}}  {description}")
