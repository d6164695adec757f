"""The suite in one warmed process: what each test runs is recorded once, and mutants are tried in forks.

pytest collects once. `record` runs every test and notes how long it took, which entries of the registry and which
statements it ran. `tried` forks, breaks the child, and runs in it the tests that touch what is broken, until one fails.
"""

import json
import os
import signal
import sys
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from benchmarks.mutation.mutant import Mutant
from benchmarks.mutation.rules import Seen, Watched
from benchmarks.mutation.source import Module, Statements

# Slow, and few mutants are noticed there alone: whole architectures, who is to blame for a leak.
SLOW = tuple(f"tests/flow/test_{name}.py" for name in ("architectures", "blame", "routing", "weightless"))
HANGS = 60  # seconds of one test, far beyond what any takes


class Collected:
    """A pytest plugin: calls a function with the collected tests instead of running them."""

    def __init__(self, function: Callable[[dict[str, pytest.Item]], None]):
        self.function = function

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.function({item.nodeid: item for item in session.items})
        return True


def with_tests(paths: Sequence[str], function: Callable[[dict[str, pytest.Item]], None]) -> None:
    """Call a function with the tests of some folders, by name.

    Raises:
        RuntimeError: pytest cannot collect them.
    """
    plain = ["-q", "-s", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:timeout"]
    code = pytest.main([*plain, *(f"--ignore={path}" for path in SLOW), *paths], plugins=[Collected(function)])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise RuntimeError(f"pytest ended with {code!r}")


def passes(item: pytest.Item) -> bool:
    return not any(report.failed for report in runtestprotocol(item, log=False, nextitem=None))


@dataclass(frozen=True)
class Record:
    """What each test that passes takes in seconds, and touches; and what each entry of the registry was seen doing."""

    seconds: dict[str, float]
    touched: dict[str, list[str]]  # tests by entry, and by statement
    seen: dict[str, Seen]

    def save(self, path: Path) -> None:
        names = {test: number for number, test in enumerate(self.seconds)}
        document = {
            "seconds": self.seconds,
            "touched": {what: [names[test] for test in tests] for what, tests in self.touched.items()},
            "seen": {key: seen.document() for key, seen in self.seen.items()},
        }
        path.write_text(json.dumps(document))

    @classmethod
    def load(cls, path: Path) -> "Record":
        document = json.loads(path.read_text())
        tests = list(document["seconds"])
        return cls(
            document["seconds"],
            {what: [tests[number] for number in numbers] for what, numbers in document["touched"].items()},
            {key: Seen.read(seen) for key, seen in document["seen"].items()},
        )

    def joined(self, other: "Record") -> "Record":
        """Of the tests of both."""
        touched = defaultdict(list, {what: list(tests) for what, tests in self.touched.items()})
        for what, tests in other.touched.items():
            touched[what] += tests
        seen = dict(self.seen)
        for key, more in other.seen.items():
            seen[key] = seen[key].joined(more) if key in seen else more
        return Record({**self.seconds, **other.seconds}, dict(touched), seen)

    def within(self, tests: Iterable[str]) -> "Record":
        """Without tests that are no more."""
        there = set(tests)
        touched = {what: [test for test in names if test in there] for what, names in self.touched.items()}
        return Record({test: n for test, n in self.seconds.items() if test in there}, touched, self.seen)

    def order(self, mutant: Mutant) -> list[str]:
        """The tests that can notice it: first those that have the entry's name, then the fastest, of many functions."""
        tests = self.touched.get(mutant.touches, [])
        own = [test for test in tests if test.endswith(f"[{mutant.touches}]")]
        turns: Counter[str] = Counter()
        waits: dict[str, float] = {}
        for test in sorted(set(tests) - set(own), key=lambda test: (self.seconds[test], test)):
            function = test.partition("[")[0]
            turns[function] += 1
            waits[test] = turns[function] * self.seconds[test]
        return [*own, *sorted(waits, key=lambda test: (waits[test], test))]


def record(tests: dict[str, pytest.Item], modules: list[Module]) -> Record:
    """Run all tests as they are. One that fails is left out: it could not tell anything."""
    seconds: dict[str, float] = {}
    touched: dict[str, list[str]] = defaultdict(list)
    with Watched() as rules, Statements(modules) as statements:
        for name, item in tests.items():
            rules.ran.clear()
            statements.ran()
            started = time.process_time()
            if not passes(item):
                print(f"left out, it fails: {name}", file=sys.stderr)
                continue
            seconds[name] = time.process_time() - started
            for what in (*rules.ran, *statements.ran()):
                touched[what].append(name)
    return Record(seconds, touched, rules.seen)


@dataclass(frozen=True)
class Trial:
    """`noticed` is the test that failed, empty if none did of the `ran` first of all `tests` that touch the place.

    `seconds` are of CPU time. `ended`: how the child ended where it did not end by itself.
    """

    noticed: str
    ran: int
    tests: int
    seconds: float
    ended: str = ""


def tried(mutant: Mutant, order: Sequence[str], tests: dict[str, pytest.Item], record: Record, budget: float) -> Trial:
    """The tests in this order until one fails, or those left would take more than `budget` seconds in all."""
    chosen = list(_within(order, record.seconds, budget))

    def child(send: Callable[[Any], None]) -> None:
        mutant.apply()
        for number, name in enumerate(chosen):
            signal.alarm(HANGS)
            send([name, number + 1, False])
            if not passes(tests[name]):
                send([name, number + 1, True])
                return

    said, status, seconds = forked(child)
    name, ran, failed = said[-1] if said else ["", 0, False]
    ended = ""
    if os.WIFSIGNALED(status):
        ended = f"ended by {signal.Signals(os.WTERMSIG(status)).name}"
    elif os.WEXITSTATUS(status):
        ended = "does not apply" if not said else "ended"
    return Trial(name if failed or (ended and said) else "", ran, len(order), seconds, ended)


def failing(names: Sequence[str], tests: dict[str, pytest.Item]) -> list[str]:
    """Those of the tests that fail in a fork where nothing is broken."""

    def child(send: Callable[[Any], None]) -> None:
        for name in names:
            if not passes(tests[name]):
                send(name)

    said, status, _ = forked(child)
    return [*said, *(["a process that ended"] if status else [])]


def _within(order: Iterable[str], seconds: dict[str, float], budget: float) -> Iterator[str]:
    spent = 0.0
    for name in order:
        spent += seconds[name]
        if spent > budget and spent > seconds[name]:
            return
        yield name


def forked(child: Callable[[Callable[[Any], None]], None]) -> tuple[list[Any], int, float]:
    """What a forked child sent, its wait status and its CPU seconds. It prints nothing."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.close(reading)
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nowhere, stream)
            child(lambda said: os.write(writing, (json.dumps(said) + "\n").encode()))  # type: ignore[arg-type]
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as lines:
        said = [json.loads(line) for line in lines]
    _, status, usage = os.wait4(pid, 0)
    return said, status, usage.ru_utime + usage.ru_stime


def beside(workers: Sequence[Callable[[], None]]) -> float:
    """Run each in a fork, beside each other; returns the CPU seconds of all, and of their own forks.

    Raises:
        RuntimeError: one of them did not end well.
    """
    running = []
    for worker in workers:
        pid = os.fork()
        if not pid:
            status = 1
            try:
                worker()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        running.append(pid)
    ended = [os.wait4(pid, 0) for pid in running]
    if any(status for _, status, _ in ended):
        raise RuntimeError("a worker failed")
    return sum(usage.ru_utime + usage.ru_stime for _, _, usage in ended)
