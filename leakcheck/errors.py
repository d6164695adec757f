"""What can go wrong, and the exit code of the command for each."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the command, in words; see `precedence` for which wins."""

    GATE_HOLDS = 0
    LEAK = 1
    USAGE = 2
    CRASH = 3
    INCONCLUSIVE = 4
    NOTHING_CHECKED = 5


class LeakcheckError(Exception):
    """An error that the user can act on: one line, no traceback. Subclasses fix the exit code."""

    exit_code = ExitCode.CRASH


class UsageError(LeakcheckError):
    """An option, a configuration or a SPEC that cannot be used; the message says what and how to fix it."""

    exit_code = ExitCode.USAGE


class SubjectCrash(LeakcheckError):
    """The subject's forward raised, or returned something that cannot be judged (NaN, no logits)."""

    exit_code = ExitCode.CRASH


class NothingChecked(LeakcheckError):
    """There was no position pair to compare; an empty audit is never a pass."""

    exit_code = ExitCode.NOTHING_CHECKED


def crashed(error: Exception) -> str:
    """The line for an error that nobody expected."""
    line = (str(error).splitlines() or ["no message"])[0]
    return f"crashed: {type(error).__name__}: {line} (LEAKCHECK_TRACEBACK=1 shows where)"
