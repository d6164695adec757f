"""One audit in a process of its own: whatever the subject does there, the answer is a result or one line.

The subject's code may hang, exhaust memory, exit, fork, kill its process or write anywhere. The process that listens
runs none of it and imports no torch. What it is sent is JSON, never pickle, and is held against the plain data of
`findings.py`. This guards against accidents, not against malice: the subject runs with the user's rights.
"""

import contextlib
import ctypes
import json
import os
import re
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NoReturn

from pydantic import TypeAdapter, ValidationError

from leakcheck.config import Limits, Settings
from leakcheck.errors import LeakcheckError, NothingChecked, SubjectCrash, UsageError, crashed
from leakcheck.findings import AuditResult, Replayed, Witness

Progress = Callable[[int, int, str], None]  # steps done, steps in all, what is being done
Step = tuple[Literal["progress"], int, int, str]
Failure = tuple[Literal["error"], str, str]  # the error's class and message
Result = AuditResult | Replayed
Message = Step | Failure | tuple[Literal["result"], AuditResult] | tuple[Literal["replayed"], Replayed]
Job = Callable[[Progress], tuple[str, Any]]  # the kind and the content of its last message

_MESSAGE: TypeAdapter[Message] = TypeAdapter(Message)
_ERRORS = {error.__name__: error for error in (LeakcheckError, UsageError, SubjectCrash, NothingChecked)}
_PATIENCE = 0.1  # seconds between two looks at the clock, at the memory and at the process
_LONGEST = 2**28  # message, in bytes
_CLOSED = "closed the files of the audit"
_GARBAGE = "the subject wrote into the files of the audit: what came back is no result"
_UNHEARD = 121  # exit status of a child whose pipe was closed by the subject
_DEATH_SIGNAL, _SUBREAPER = 1, 36  # options of prctl
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(?:([KMGT])(i?))?B?", re.IGNORECASE)


def audit(
    spec: str, settings: Settings | None = None, limits: Limits | None = None, *, progress: Progress | None = None
) -> AuditResult:
    """`auditing.audit` of a SPEC in a child process, which has ended on return, with all that it started.

    The subject's standard output goes to standard error; from standard input it reads nothing. One audit at a time: a
    process that another thread starts meanwhile would be taken for one of the subject's.

    Raises:
        UsageError, NothingChecked: as `auditing.audit` does; or a limit is none, or cannot be watched on this system.
        SubjectCrash: as it does; or the subject ended the process, or took more time or memory than `limits` give.
        LeakcheckError: `auditing.audit` crashed.
    """

    def job(told: Progress) -> tuple[str, Any]:
        from leakcheck.auditing import audit

        return "result", asdict(audit(spec, settings, progress=told))

    result = _alone(job, limits or Limits(), progress)
    assert isinstance(result, AuditResult)
    return result


def replay(witness: Witness, limits: Limits | None = None) -> Replayed:
    """`auditing.replaying.replay` in a child process, as `audit` does it; raises as that and as it does."""

    def job(told: Progress) -> tuple[str, Any]:
        from leakcheck.auditing.replaying import replay

        return "replayed", asdict(replay(witness))

    result = _alone(job, limits or Limits(), None)
    assert isinstance(result, Replayed)
    return result


def _alone(job: Job, limits: Limits, progress: Progress | None) -> Result:
    if limits.timeout is not None and not limits.timeout > 0:
        raise UsageError(f"--timeout {limits.timeout:g}: give the seconds that the audit may take, more than none")
    if limits.memory is not None and not Path("/proc/self/status").exists():
        raise UsageError("--memory-limit: this system has no /proc, from which leakcheck reads the memory in use")
    with _adopting() as bystanders:
        reader, writer = os.pipe()
        inherited = _occupied(os.getpid())
        child = os.fork()
        if not child:
            os.close(reader)
            _run(job, writer)
        try:
            os.close(writer)
            return _listen(reader, child, limits, progress, lambda: _occupied_below(bystanders) - inherited)
        finally:
            os.close(reader)
            _end(child, bystanders)


def parse_size(text: str) -> int:
    """Bytes from `8GiB`, `500MB`, `2G` or a bare number.

    Raises:
        UsageError: it is none of them.
    """
    match = _SIZE.fullmatch(text.strip())
    size = 0
    if match:
        number, prefix, binary = match.groups()
        size = int(float(number) * (1024 if binary else 1000) ** " KMGT".index((prefix or " ").upper()))
    if not size:
        raise UsageError(f"--memory-limit {text}: no size; write it as 8GiB, 500MB or a number of bytes")
    return size


def _run(job: Job, writer: int) -> NoReturn:
    """The child: do the job, send what comes of it, and end without running handlers of the parent or the subject."""
    own = os.getpid()

    def send(*message: Any) -> None:
        if os.getpid() == own:  # the subject may have forked, and then its copy comes here as well
            data = json.dumps(message).encode() + b"\n"
            try:
                while data:
                    data = data[os.write(writer, data) :]
            except OSError:
                os._exit(_UNHEARD)

    try:
        _settle()
        send(*job(lambda *step: send("progress", *step)))
    except BaseException as error:
        if not isinstance(error, LeakcheckError) and os.environ.get("LEAKCHECK_TRACEBACK"):
            traceback.print_exception(error)
        send("error", *_told(error))
    finally:
        os._exit(0)


def _settle() -> None:
    """A session of its own, out of reach of Ctrl-C; nothing on standard input, all output to standard error."""
    os.setsid()
    _prctl(_DEATH_SIGNAL, signal.SIGKILL)  # if the parent is killed
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)


def _told(error: BaseException) -> tuple[str, str]:
    """The class and the message of what the parent shall raise."""
    if isinstance(error, LeakcheckError):
        return next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _ERRORS), str(error)
    if isinstance(error, SystemExit):
        return "SubjectCrash", f"the subject ended the audit: sys.exit({error.code!r})"
    if isinstance(error, Exception):
        return "LeakcheckError", crashed(error)
    return "SubjectCrash", f"the subject raised {type(error).__name__}"


def _listen(
    reader: int, child: int, limits: Limits, progress: Progress | None, memory_in_use: Callable[[], int]
) -> Result:
    """The result that the child sends; an error if it sends one, ends without, or exceeds its limits."""
    started, where = time.monotonic(), "while the subject was loaded"
    received, ending = bytearray(), ""
    while True:
        ready, _, _ = select.select([reader], [], [], _PATIENCE)
        data = os.read(reader, 2**16) if ready else b""
        if not data and ending:
            raise SubjectCrash(f"the subject {ending} {where}; the audit was not over")
        received += data
        if len(received) > _LONGEST:
            raise SubjectCrash(_GARBAGE)
        for line in _lines(received) if b"\n" in data else ():
            match _understood(line):
                case ("progress", done, total, what):
                    where = f"at {what}"
                    if progress:
                        progress(done, total, what)
                case ("error", kind, text):
                    raise _ERRORS.get(kind, SubjectCrash)(text)
                case ("result" | "replayed", result):
                    return result
        if not data:
            if ready:  # closed by the subject, or by the end of the child, which may take a moment
                time.sleep(_PATIENCE)
            ending = _ending(child) or (_CLOSED if ready else "")
        if limits.timeout is not None and time.monotonic() - started > limits.timeout:
            raise SubjectCrash(f"no verdict after {limits.timeout:g} seconds (--timeout): stopped {where}")
        if limits.memory is not None and (used := memory_in_use()) > limits.memory:
            gigabytes = f"{used / 2**30:.2g} GiB of memory are in use, more than --memory-limit"
            raise SubjectCrash(f"{gigabytes} allows: stopped {where}")


def _lines(received: bytearray) -> list[bytes]:
    """The complete lines, taken out of what was received."""
    *lines, rest = bytes(received).split(b"\n")
    received[:] = rest
    return lines


def _understood(line: bytes) -> Message:
    try:
        # Not `validate_json`, which takes no name of a file that is not UTF-8.
        return _MESSAGE.validate_python(json.loads(line))
    except (ValidationError, ValueError, RecursionError) as error:
        raise SubjectCrash(_GARBAGE) from error


def _ending(child: int) -> str:
    """How the process has ended, in words; nothing while it runs."""
    pid, status = os.waitpid(child, os.WNOHANG)
    if not pid:
        return ""
    code = os.waitstatus_to_exitcode(status)
    if code == _UNHEARD:
        return _CLOSED
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended its process with exit status {code}"


def _end(child: int, bystanders: set[int]) -> None:
    """Kill the child, its group, and whoever left the group: as their parents end, they become ours."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(OSError):
            kill(child, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(child, 0)
    while strays := [pid for pid, parent in _parents().items() if parent == os.getpid() and pid not in bystanders]:
        for pid in strays:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@contextlib.contextmanager
def _adopting() -> Iterator[set[int]]:
    """Processes whose parent ends become ours, as far as the system can; yields our children from before."""
    _prctl(_SUBREAPER, 1)
    try:
        yield {pid for pid, parent in _parents().items() if parent == os.getpid()}
    finally:
        _prctl(_SUBREAPER, 0)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _parents() -> dict[int, int]:
    """The parent of every process that can be seen; nothing on a system without /proc."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            after_name = (folder / "stat").read_text(errors="replace").rpartition(")")[2]
            parents[int(folder.name)] = int(after_name.split()[1])
    return parents


def _occupied_below(bystanders: set[int]) -> int:
    """Bytes that the child and all below it occupy, with what the child has in common with us from the fork."""
    parents = _parents()
    family = [pid for pid, parent in parents.items() if parent == os.getpid() and pid not in bystanders]
    for pid in family:
        family += [child for child, parent in parents.items() if parent == pid]
    return sum(_occupied(pid) for pid in family)


def _occupied(pid: int) -> int:
    """Bytes that a process occupies, swap included; files that it has mapped are not counted."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it has ended, or the system has no /proc
        return 0
    return sum(int(size) for size in re.findall(r"(?:RssAnon|RssShmem|VmSwap):\s*(\d+) kB", status)) * 1024
