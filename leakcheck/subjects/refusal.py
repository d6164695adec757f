"""Turn whatever a library or the user's code raises into one line that says what was refused."""

from collections.abc import Iterator
from contextlib import contextmanager

from leakcheck.errors import UsageError

_LONGEST = 300


@contextmanager
def refusing(what: str, advice: str = "") -> Iterator[None]:
    """Report any error in the block as `what: its type and message; advice`.

    Raises:
        UsageError: the block raised, or tried to exit the process.
    """
    try:
        yield
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"{what}: {one_line(error)}{advice}") from error


def one_line(error: BaseException) -> str:
    """The error's type and message without line breaks; a long message is cut."""
    message = " ".join(str(error).split())
    if len(message) > _LONGEST:
        message = message[:_LONGEST] + "..."
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
