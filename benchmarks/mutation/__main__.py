"""See the package. Options say what to run again, and where to write."""

import argparse
import gc
import hashlib
import json
import platform
import subprocess
import time
import warnings
from collections import Counter, defaultdict
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest
import torch

import leakcheck
from benchmarks.mutation import report, rules, source, suite
from benchmarks.mutation.mutant import Mutant
from benchmarks.mutation.report import Row
from benchmarks.mutation.source import Module
from benchmarks.mutation.suite import Record

ROOT = Path(__file__).resolve().parents[2]
EQUIVALENT = Path(__file__).with_name("equivalent.json")
TESTS = ["tests/flow", "tests/probes"]
SEED = 0
NEVER = 10**6  # minutes
FIRST = 1.5  # seconds of tests for each mutant, before those that survived get all that touch them
ENTRY = 1  # mutants of an entry of the registry, of each direction
# Modules, and how many mutants of each at most.
SOURCES = {
    "leakcheck/probes": 32,
    "leakcheck/flow/rules": 3,
    "leakcheck/flow/labels.py": 8,
    "leakcheck/flow/operand.py": 8,
    "leakcheck/flow/selection.py": 8,
    "leakcheck/flow/storage.py": 8,
    "leakcheck/flow/choices.py": 8,
}


def sources() -> dict[str, tuple[Module, int]]:
    """Family, module and the number of its mutants that are tried."""
    found = {}
    for place, limit in SOURCES.items():
        for path in sorted((ROOT / place).glob("*.py")) if (ROOT / place).is_dir() else [ROOT / place]:
            if path.name != "__init__.py":
                module = Module(path, ROOT)
                name = module.name.removeprefix("leakcheck/")
                family = f"probes: {path.name}" if name.startswith("probes/") else f"source: {name}"
                found[family] = module, limit
    return found


def generated(record: Record) -> tuple[list[Mutant], dict[str, int]]:
    """The mutants to be tried, in turn one of each family and direction; and of each family how many there are."""
    groups: dict[tuple[str, ...], list[Mutant]] = defaultdict(list)
    for mutant in rules.mutants(record.seen):
        groups[mutant.family, mutant.place, mutant.direction].append(mutant)
    limits = dict.fromkeys(groups, ENTRY)
    for family, (module, limit) in sources().items():
        groups[family,] = list(source.mutants(module, family))
        limits[family,] = limit
    every = Counter(mutant.family for group in groups.values() for mutant in group)
    chosen = [mutant for key, group in groups.items() for mutant in sorted(group, key=_rank)[: limits[key]]]
    turns: Counter[tuple[str, str]] = Counter()
    waits: dict[str, tuple[bool, int]] = {}
    for mutant in sorted(chosen, key=_rank):
        turns[mutant.family, mutant.direction] += 1
        waits[mutant.name] = not report.counts(mutant.family), turns[mutant.family, mutant.direction]
    return sorted(chosen, key=lambda mutant: waits[mutant.name]), dict(every)


def _rank(mutant: Mutant) -> str:
    """A seeded order that other mutants do not change."""
    return hashlib.sha256(f"{SEED} {mutant.name}".encode()).hexdigest()


def row_of(mutant: Mutant, trial: suite.Trial, equivalent: dict[str, str]) -> Row:
    outcome = "noticed" if trial.noticed else "equivalent" if mutant.name in equivalent else "survived"
    return Row(
        family=mutant.family,
        direction=mutant.direction,
        place=mutant.place,
        line=mutant.touches.rpartition(":")[2] if mutant.direction == "source" else "",
        change=mutant.change,
        outcome=outcome,
        by=trial.noticed,
        ended=trial.ended,
        ran=trial.ran,
        tests=trial.tests,
        reason=equivalent.get(mutant.name, "") if outcome == "equivalent" else "",
    )


def work(
    mutants: list[Mutant],
    tests: dict[str, pytest.Item],
    record: Record,
    equivalent: dict[str, str],
    journal: Path,
    until: float,
) -> None:
    """Try mutants one after the other until that time, those that count first, and note each at once.

    Those that count and survive their first tests get the others before anything else is tried.
    """
    survivors: list[tuple[Mutant, Row]] = []
    for counts in (True, False):
        for mutant in mutants:
            if report.counts(mutant.family) is not counts or time.monotonic() > until:
                continue
            trial = suite.tried(mutant, record.order(mutant), tests, record, FIRST)
            row = row_of(mutant, trial, equivalent)
            if trial.ended != "does not apply":
                note(journal, row)
            if counts and row.outcome == "survived" and row.ran < row.tests:
                survivors.append((mutant, row))
        for mutant, row in sorted(survivors, key=lambda survivor: survivor[1].tests):
            if not counts or time.monotonic() > until:
                continue
            rest = record.order(mutant)[row.ran :]
            trial = suite.tried(mutant, rest, tests, record, float("inf"))
            note(journal, row_of(mutant, replace(trial, ran=row.ran + trial.ran, tests=row.tests), equivalent))


def note(journal: Path, row: Row) -> None:
    with journal.open("a") as lines:
        lines.write(json.dumps(asdict(row)) + "\n")


def rows_in(journal: Path) -> list[Row]:
    return [Row(**json.loads(line)) for line in journal.read_text().splitlines()] if journal.exists() else []


def measured(tests: dict[str, pytest.Item], options: argparse.Namespace) -> None:
    started, until = time.process_time(), time.monotonic() + 60 * options.minutes
    modules = [module for module, _ in sources().values()]
    if options.record.exists():
        record = Record.load(options.record)
        missing = [name for name in tests if name not in record.seconds]
        if missing:
            more = suite.record({name: tests[name] for name in missing}, modules)
            record = record.joined(more)
            record.save(options.record)
    else:
        record = suite.record(tests, modules)
        record.save(options.record)
    record = record.within(tests)
    every, sampled = generated(record)
    journal = options.record.with_suffix(".rows")
    if not options.again:
        journal.unlink(missing_ok=True)
    written = options.again and options.output.with_suffix(".json").exists()
    kept = {row.key: row for row in (report.read(options.output)[1] if written else [])}
    kept |= {row.key: row for row in rows_in(journal)}
    todo = [
        mutant
        for mutant in every
        if mutant.family.startswith(options.only) and getattr(kept.get(mutant.key), "outcome", "") != "noticed"
    ]
    warnings.simplefilter("ignore")
    source.warm(ROOT)
    gc.collect()
    gc.freeze()
    equivalent = json.loads(EQUIVALENT.read_text())
    workers = [
        partial(work, todo[n :: options.jobs], tests, record, equivalent, journal, until) for n in range(options.jobs)
    ]
    cost = suite.beside(workers)
    kept |= {row.key: row for row in rows_in(journal)}
    rows = [kept[mutant.key] for mutant in every if mutant.key in kept]
    spoiled = suite.failing(sorted({row.by for row in rows if row.by}), tests)
    if spoiled:
        print(f"these fail in a fork without a mutant as well, and notice nothing: {', '.join(spoiled)}")
        rows = [replace(row, outcome="survived", by="") if row.by in spoiled else row for row in rows]
    limit = [f"--minutes {options.minutes}"] if options.minutes < NEVER else []
    about = {
        "command": " ".join(["python -m benchmarks.mutation", *limit]),
        "leakcheck": leakcheck.__version__,
        "revision": subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip(),
        "torch": torch.__version__.partition("+")[0],
        "python": platform.python_version(),
        "seed": SEED,
        "tests": TESTS,
        "passed": len(record.seconds),
        "generated": sampled,
        "chosen": dict(Counter(mutant.family for mutant in every)),
        "seconds": round(cost + time.process_time() - started),
    }
    report.write(options.output, about, rows)
    print(report.page(about, rows))
    print(Counter(row.outcome for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutation", description=__doc__)
    parser.add_argument("--again", action="store_true", help="try again what no test noticed, and keep the other rows")
    parser.add_argument("--only", default="", help="families that begin so")
    parser.add_argument("--minutes", type=int, default=NEVER, help="begin no other mutant after these")
    parser.add_argument("--jobs", type=int, default=1, help="processes beside each other")
    parser.add_argument("--output", type=Path, default=report.REPORT, help="two files: .json and .md")
    parser.add_argument("--record", type=Path, default=ROOT / ".mutation.json", help="what the tests touch, kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    suite.with_tests(TESTS, lambda tests: measured(tests, options))


if __name__ == "__main__":
    main()
