"""`leakcheck replay`."""

from pathlib import Path
from typing import Annotated

import typer

from leakcheck.errors import ExitCode


def replay(
    witness: Annotated[Path, typer.Argument(metavar="WITNESS", help="A .json file that `leakcheck run` wrote.")],
    emit_test: Annotated[
        Path | None,
        typer.Option(
            help="Also write a pytest file that fails until it is fixed; it needs torch and the subject alone."
        ),
    ] = None,
) -> None:
    """Run a recorded counterexample again; exit 1 while it still leaks, 0 when it is fixed, 2 or 3 if it cannot run."""
    from leakcheck import isolation
    from leakcheck.report import pytest_file
    from leakcheck.report.registry import put
    from leakcheck.report.witness import read
    from leakcheck.report.words import number, visible

    recorded = read(witness)
    if emit_test is not None:
        put(pytest_file.render(recorded), emit_test)
    found = isolation.replay(recorded)
    where = f"{recorded.spec} under {recorded.configuration['id']}"
    if found.leaks:
        same = "the same delta to the last bit" if found.exact else f"recorded: {number(recorded.delta)}"
        at = f"position {found.position} of row {found.row}"
        typer.echo(visible(f"STILL LEAKS: {where}: {at} moves by {number(found.delta)}, which may not ({same})"))
    else:
        beyond = ", and flow proves that at the length of an audit none can" if found.proven else ""
        at = f"position {recorded.position} of row {recorded.row}"
        typer.echo(visible(f"FIXED: {where}: {at} does not move any more{beyond}"))
    if not found.same_weights:
        typer.echo("The weights are not those that it was found with.")
    if found.changed:
        typer.echo(f"Since then: {', '.join(found.changed)}.")
    if not found.leaks:
        rest = "The other configurations" if found.proven else "That these inputs move nothing is no proof"
        typer.echo(visible(f"{rest}: leakcheck run --model {recorded.spec}"))
    raise typer.Exit(ExitCode.LEAK if found.leaks else ExitCode.GATE_HOLDS)
