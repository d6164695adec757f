"""Options of the suite: `--model SPEC` runs the laws on that model, `--soak` goes on, `--replay` runs one example.

Hypothesis profiles (`--hypothesis-profile`): `dev` while writing, `ci` for every change, `soak` until interrupted.
"""

import json
import os
import re
import shlex
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import hypothesis
import pytest
import torch
from audited import Audited, built_in, of_spec
from hypothesis import HealthCheck, Phase, settings
from hypothesis.database import DirectoryBasedExampleDatabase

from leakcheck.laws import Broken

torch.set_num_threads(1)  # the models are tiny

_STORED = Path(os.environ.get("HYPOTHESIS_STORAGE_DIRECTORY", ".hypothesis"))

_COMMON = settings(
    deadline=None,
    print_blob=True,  # what --replay takes
    report_multiple_bugs=False,
    phases=set(Phase) - {Phase.explain},
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],  # an example is a model, built and run
)
settings.register_profile("dev", _COMMON, max_examples=5)
settings.register_profile("ci", _COMMON, max_examples=20, derandomize=True)
settings.register_profile(
    "soak",
    _COMMON,
    derandomize=False,  # as Hypothesis would where it sees a CI
    max_examples=200,  # of each property in a round, and then another round
    database=DirectoryBasedExampleDatabase(_STORED / "examples"),
)
settings.load_profile("ci")

_BLOB = re.compile(r"@reproduce_failure\('[^']*', b'([^']*)'\)")
_AUDITED = pytest.StashKey[list[Audited]]()
_ENDED = pytest.StashKey[bool]()  # whether a property failed or was skipped: another round says nothing new


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("leakcheck")
    group.addoption("--model", metavar="SPEC", help="Run the laws on this model, as `leakcheck run --model` names it.")
    group.addoption(
        "--soak", metavar="SECONDS", type=float, help="Go on for so long, in rounds; findings go to .hypothesis/."
    )
    group.addoption("--replay", metavar="EXAMPLE", help="Run this example alone, as the line of a failure says.")


def pytest_configure(config: pytest.Config) -> None:
    spec, seconds = config.getoption("--model"), config.getoption("--soak")
    if seconds is not None and not seconds > 0:
        raise pytest.UsageError(f"--soak {seconds:g}: give the seconds that it may take, more than none")
    if seconds is not None:
        settings.load_profile("soak")
    if _soaking(config) and config.pluginmanager.hasplugin("dsession"):
        raise pytest.UsageError("soak runs in one process: leave out -n")
    config.stash[_AUDITED] = of_spec(spec) if spec else built_in()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "audited" in metafunc.fixturenames:
        audited = metafunc.config.stash[_AUDITED]
        metafunc.parametrize("audited", audited, ids=[a.name for a in audited])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    if config.getoption("--model"):
        others = [item for item in ours if "audited" not in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]
    if config.getoption("--replay"):
        for item in ours:
            if isinstance(item, pytest.Function) and hasattr(item.obj, "hypothesis"):  # a state machine does it itself
                replayed(item.obj, config)
    if _soaking(config):
        for item in ours:
            item.add_marker(pytest.mark.timeout(0))


def replayed(test: object, config: pytest.Config) -> object:
    """The test or state machine, set to run the example of --replay, if there is one."""
    example = config.getoption("--replay")
    if not example:
        return test
    return hypothesis.reproduce_failure(hypothesis.__version__, example.encode())(test)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    report = yield
    if report.when == "call" and not report.passed:
        item.stash[_ENDED] = True
    if report.when == "call" and report.failed and call.excinfo is not None:
        line = _replay_line(item, call.excinfo.value)
        if isinstance(call.excinfo.value, Broken):  # it says all, and the traceback is of the law itself
            report.longrepr = str(call.excinfo.value)
        if line:
            report.sections.append(("replay", line))
        if _soaking(item.config):
            _store(item, call.excinfo.value, line)
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Under the soak profile: every property in turn, again and again, until it fails, until time is up."""
    if not _soaking(session.config) or session.config.option.collectonly or session.testsfailed:
        return None
    seconds = session.config.getoption("--soak")
    end = time.monotonic() + seconds if seconds is not None else float("inf")
    going = list(session.items)
    while going:
        for item in list(going):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
            if time.monotonic() > end:
                return True
        going = [item for item in going if not item.stash.get(_ENDED, False)]
    return True


def _soaking(config: pytest.Config) -> bool:
    return config.getoption("--soak") is not None or config.getoption("--hypothesis-profile") == "soak"


def _replay_line(item: pytest.Item, error: BaseException) -> str:
    """The command that runs the example again that was left after shrinking."""
    found = [match for note in getattr(error, "__notes__", []) for match in _BLOB.findall(note)]
    if not found:
        return ""
    spec = item.config.getoption("--model")
    test = f"{os.path.relpath(item.path)}::{item.name}"
    options = [*([f"--model={spec}"] if spec else []), f"--replay={found[-1]}"]
    return shlex.join(["python", "-m", "pytest", test, *options])


def _store(item: pytest.Item, error: BaseException, line: str) -> None:
    """Append a finding as one line of JSON, whole or not at all."""
    counterexample = getattr(error, "counterexample", None)
    finding = {
        "found": datetime.now(UTC).isoformat(timespec="seconds"),
        "test": item.nodeid,
        "model": item.config.getoption("--model"),
        "error": f"{type(error).__name__}: {error}",
        "counterexample": counterexample and asdict(counterexample),
        "replay": line,
    }
    path = _STORED / "findings.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, json.dumps(finding, default=repr).encode() + b"\n")
    finally:
        os.close(file)
