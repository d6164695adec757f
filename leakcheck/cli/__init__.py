"""The command line: options in, an exit code out; no logic of its own and, until a command runs, no torch."""

import sys
import traceback
from typing import Annotated

import typer

from leakcheck import __version__
from leakcheck.cli import bench, compare, explain, models, replay, run
from leakcheck.errors import ExitCode, LeakcheckError, crashed

app = typer.Typer(
    name="leakcheck",
    help="Can anything at or before position t be influenced by an input after t? leakcheck measures it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("run")(run.run)
app.command("replay")(replay.replay)
app.command("models")(models.models)
app.command("compare")(compare.compare)
app.command("bench")(bench.bench)
app.command("explain")(explain.explain)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"leakcheck {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command. One line and the documented exit code for every error; a crash is never a leak or a pass."""
    try:
        app()
    except LeakcheckError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _say("interrupted")
        sys.exit(130)
    except Exception as error:
        _say(crashed(error))
        if _wants_traceback():
            traceback.print_exception(error)
        sys.exit(ExitCode.CRASH)


def _say(what: str) -> None:
    """One line, whatever the names of files and the subject's messages hold."""
    from leakcheck.report.words import visible

    print("leakcheck:", visible(what), file=sys.stderr)


def _wants_traceback() -> bool:
    import os

    return bool(os.environ.get("LEAKCHECK_TRACEBACK"))
