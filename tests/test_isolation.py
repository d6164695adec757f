"""Subjects that do what no model should: the audit ends with a verdict or one line, and nothing is left running."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

import leakcheck.auditing  # noqa: F401  (here, so that no subject has to wait for torch and transformers)
from leakcheck import isolation
from leakcheck.config import Limits, Settings
from leakcheck.errors import SubjectCrash, UsageError
from leakcheck.findings import Verdict
from tests.cli.command import command

MODEL = """
import atexit, ctypes, multiprocessing, os, signal, subprocess, sys, threading, time
import torch
from torch import nn

def note(pid):
    with open("pids", "a") as file:
        file.write(f"{pid}\\n")

note(os.getpid())
AT_IMPORT

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head, self.calls = nn.Embedding(11, 8), nn.Linear(8, 11), 0

    def forward(self, input_ids):
        IN_FORWARD
        return self.head(self.embed(input_ids).cumsum(1))

def build():
    IN_FACTORY
    return Model()
"""


def written(folder: Path, at: str, code: str) -> None:
    text = MODEL
    for place in ("AT_IMPORT", "IN_FORWARD", "IN_FACTORY"):
        indent = {"AT_IMPORT": 0, "IN_FORWARD": 8, "IN_FACTORY": 4}[place]
        lines = code.strip().splitlines() if place == at else ["pass"]
        text = text.replace(place, ("\n" + " " * indent).join(lines))
    (folder / "subject.py").write_text(text)


def running(pids: list[int]) -> list[int]:
    """Those that still run; a zombie does not."""
    states = {pid: Path(f"/proc/{pid}/stat") for pid in pids}
    return [
        pid for pid, stat in states.items() if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
    ]


@pytest.fixture
def audited(tmp_path, monkeypatch):
    """Audit a subject with this code at this place; whatever comes of it, no process that it noted is left."""
    monkeypatch.chdir(tmp_path)

    def audit(at: str, code: str, **limits):
        written(tmp_path, at, code)
        try:
            return isolation.audit("subject.py", Settings(), Limits(**limits))
        finally:
            pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
            assert pids
            assert not running(pids)

    return audit


HOLDING_THE_INTERPRETER = "ctypes.PyDLL(None).pause()"
ENDS = {
    "exits when imported": ("AT_IMPORT", "os._exit(0)", "exit status 0 while the subject was loaded"),
    "exits in the factory": ("IN_FACTORY", "os._exit(7)", "exit status 7"),
    "exits in forward": ("IN_FORWARD", "os._exit(0)", "exit status 0 while the subject was loaded"),
    "exits when it is measured": (
        "IN_FORWARD",
        "if len(input_ids) > 2: os._exit(0)",
        "exit status 0 at default/none/eval",
    ),
    "calls sys.exit in forward": ("IN_FORWARD", "sys.exit(0)", "sys.exit(0)"),
    "is interrupted when imported": ("AT_IMPORT", "raise KeyboardInterrupt", "raised KeyboardInterrupt"),
    "is interrupted in forward": ("IN_FORWARD", "raise KeyboardInterrupt", "raised KeyboardInterrupt"),
    "kills itself": ("IN_FORWARD", "os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
    "kills its group": ("IN_FORWARD", "os.killpg(0, signal.SIGTERM)", "SIGTERM"),
    "reads where nothing is": ("IN_FORWARD", "ctypes.string_at(0)", "SIGSEGV"),
    "aborts": ("IN_FORWARD", "os.abort()", "SIGABRT"),
    "sets an alarm": ("IN_FORWARD", "signal.setitimer(signal.ITIMER_VIRTUAL, 0.01)\nwhile True: pass", "SIGVTALRM"),
    "closes all files": ("IN_FORWARD", "os.closerange(0, 4096)", "closed the files"),
    "asks the user": ("IN_FORWARD", "input('continue? ')", "EOFError"),
}  # fmt: skip
STAYS = {
    "a loop at import": ("AT_IMPORT", "while True: pass"),
    "a sleep in the factory": ("IN_FACTORY", "time.sleep(600)"),
    "a lock in forward": ("IN_FORWARD", "lock = threading.Lock(); lock.acquire(); lock.acquire()"),
    "C code that holds the interpreter": ("IN_FORWARD", HOLDING_THE_INTERPRETER),
    "a loop that catches everything": (
        "IN_FORWARD",
        "while True:\n    try:\n        time.sleep(600)\n    except BaseException:\n        pass",
    ),
    "every signal ignored": (
        "AT_IMPORT",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)",
    ),
    "a hanging child that left the session": (
        "IN_FORWARD",
        "note(subprocess.Popen(['sleep', '600'], start_new_session=True).pid); time.sleep(600)",
    ),
}
HARMLESS = {
    "prints": ("IN_FORWARD", "print('noise'); os.write(1, b'noise\\n'); ctypes.CDLL(None).puts(b'noise')"),
    "closes standard output": ("AT_IMPORT", "os.close(1); sys.stdout.close()"),
    "goes on twice": (
        "IN_FORWARD",
        "if 'twice' not in globals():\n    globals()['twice'] = os.fork()\n    note(os.getpid())",
    ),
    "goes on twice from the start": ("AT_IMPORT", "os.fork(); note(os.getpid())"),
    "leaves a child with our pipes": ("AT_IMPORT", "note(subprocess.Popen(['sleep', '600'], close_fds=False).pid)"),
    "leaves a child in another session": (
        "AT_IMPORT",
        "note(subprocess.Popen(['sleep', '600'], start_new_session=True).pid)",
    ),
    "leaves a daemon": (
        "AT_IMPORT",
        "if not os.fork():\n    os.setsid()\n    if os.fork():\n        os._exit(0)\n    note(os.getpid())\n"
        "    time.sleep(600)\ntime.sleep(0.3)",
    ),
    "uses processes of its own": (
        "IN_FACTORY",
        "with multiprocessing.get_context('fork').Pool(2) as pool:\n    assert pool.map(abs, [-1, 1]) == [1, 1]",
    ),
    "leaves a thread": ("AT_IMPORT", "threading.Thread(target=time.sleep, args=(600,)).start()"),
    "hangs at exit": ("AT_IMPORT", "atexit.register(time.sleep, 600)"),
}


@pytest.mark.parametrize("case", ENDS)
def test_a_subject_that_ends_the_process(case: str, audited) -> None:
    at, code, said = ENDS[case]
    with pytest.raises(SubjectCrash) as caught:
        audited(at, code, timeout=60)
    assert said in str(caught.value)


@pytest.mark.parametrize("case", STAYS)
def test_a_subject_that_hangs(case: str, audited) -> None:
    with pytest.raises(SubjectCrash, match=r"no verdict after 3 seconds \(--timeout\): stopped"):
        audited(*STAYS[case], timeout=3)


@pytest.mark.parametrize("case", HARMLESS)
def test_a_subject_that_is_only_odd(case: str, audited, capfd) -> None:
    result = audited(*HARMLESS[case], timeout=60)
    assert result.verdict is Verdict.PROVEN
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("noise") % 3 == 0
    assert bool(err) == (case == "prints")


GROWS = "kept = []\nwhile True:\n    kept.append(torch.ones(2**22))\n    time.sleep(0.005)"


@pytest.mark.parametrize("at", ["AT_IMPORT", "IN_FORWARD"])
def test_memory_is_limited(at: str, audited) -> None:
    with pytest.raises(SubjectCrash, match="GiB of memory are in use, more than --memory-limit allows"):
        audited(at, GROWS, memory=isolation.parse_size("1500MB"), timeout=60)


def test_memory_of_its_children_counts(audited) -> None:
    code = "for _ in range(3):\n    if not os.fork():\n        note(os.getpid())\n        hold = b'x' * 5 * 10**8\n"
    with pytest.raises(SubjectCrash, match="of memory"):
        audited("AT_IMPORT", code + "        time.sleep(600)\ntime.sleep(600)", memory=1_500_000_000, timeout=60)


def test_files_that_are_mapped_do_not_count(audited, tmp_path) -> None:
    with open(tmp_path / "large", "wb") as file:
        file.truncate(4 * 10**9)
    code = "import mmap\nfile = open('large', 'rb')\nmapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)\n"
    code += "assert not any(mapped[i] for i in range(0, 2**31, 4096))"
    assert audited("AT_IMPORT", code, memory=1_500_000_000, timeout=120).verdict is Verdict.PROVEN


def test_the_memory_of_whoever_asks_does_not_count(audited) -> None:
    held = b"x" * 2 * 10**9
    assert audited("AT_IMPORT", "pass", memory=1_500_000_000, timeout=120).verdict is Verdict.PROVEN
    assert held


def test_the_result_is_that_of_the_audit_itself(audited) -> None:
    from leakcheck.auditing import audit

    isolated = audited("AT_IMPORT", "pass")
    here = audit("subject.py")
    for field in ("verdict", "configurations", "checkpoints", "findings", "controls", "subject", "conclusions"):
        assert getattr(isolated, field) == getattr(here, field), field


def test_a_name_that_is_not_utf8(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "AT_IMPORT", "pass")
    name = os.fsdecode(b"subject\xff.py")
    os.rename("subject.py", name)
    with pytest.raises(UsageError) as caught:  # Python cannot import such a file
        isolation.audit(name)
    assert name in str(caught.value)


def test_steps_are_told(audited, tmp_path) -> None:
    steps: list = []
    written(tmp_path, "AT_IMPORT", "pass")
    isolation.audit("subject.py", progress=lambda *step: steps.append(step))
    assert steps == [(0, 2, "default/none/eval"), (1, 2, "default/none/train")]


def process(folder: Path, *options: str, **more) -> subprocess.Popen:
    arguments = [sys.executable, "-m", "leakcheck", "run", "--model", "subject.py", *options]
    return subprocess.Popen(arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def test_what_is_written_into_the_files_of_the_audit_is_no_result(tmp_path) -> None:
    """In a process of its own, since the files of this one are open in the subject as well."""
    code = "for file in range(3, 64):\n    try:\n        os.write(file, b'[\"result\", {}]\\n')\n    except OSError:\n"
    written(tmp_path, "IN_FORWARD", code + "        pass")
    command = process(tmp_path)
    out, err = command.communicate(timeout=120)
    assert (command.returncode, out, len(err.splitlines())) == (3, "", 1)
    assert "no result" in err


@pytest.mark.parametrize("end", ["interrupted", "killed"])
def test_nothing_goes_on_without_the_command(end: str, tmp_path) -> None:
    written(tmp_path, "IN_FORWARD", "note(os.getpid()); time.sleep(600)")
    # A suite that a shell runs in the background inherits that Ctrl-C is ignored.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    command = process(tmp_path, start_new_session=True, preexec_fn=heard)
    deadline = time.monotonic() + 60
    while not (tmp_path / "pids").exists() or len((tmp_path / "pids").read_text().split()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    command.send_signal(2 if end == "interrupted" else 9)
    out, err = command.communicate(timeout=60)
    assert (command.returncode, out, err) == (130 if end == "interrupted" else -9, "", "")
    time.sleep(0.2)
    assert not running([int(line) for line in (tmp_path / "pids").read_text().split()])


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GiB", 8 * 2**30), ("500MB", 500_000_000), ("2g", 2 * 10**9), ("1.5 KiB", 1536), ("1000", 1000), ("7B", 7)],
)
def test_sizes(text: str, size: int) -> None:
    assert isolation.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "much", "-1GB", "8Gi B", "8PB", "0.1B"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="--memory-limit"):
        isolation.parse_size(text)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_what_is_no_time(seconds: float) -> None:
    with pytest.raises(UsageError, match="--timeout"):
        isolation.audit("llama", limits=Limits(timeout=seconds))


@pytest.mark.parametrize("asked", [False, True])
def test_a_crash_of_the_tool_shows_where_if_asked(asked: bool, tmp_path, monkeypatch, capfd) -> None:
    written(tmp_path, "AT_IMPORT", "import leakcheck.auditing\nleakcheck.auditing.matrix = lambda *_: 1 / 0")
    monkeypatch.chdir(tmp_path)
    if asked:
        monkeypatch.setenv("LEAKCHECK_TRACEBACK", "1")
    code, out, err = command(monkeypatch, capfd, "run", "--model", "subject.py")
    assert (code, out) == (3, "")
    assert "leakcheck: crashed: ZeroDivisionError: division by zero" in err
    assert ("Traceback" in err) == asked


def test_the_parent_imports_no_torch() -> None:
    code = "import sys, leakcheck.isolation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=dict(os.environ), check=False).returncode == 0
