"""See the package. Options say what to run again, and where to write."""

import argparse
import gc
import hashlib
import json
import platform
import sys
import time
import warnings
from collections import Counter
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
TESTS = ["tests/flow", "tests/probes", "tests/auditing/test_contracts.py"]
SEED = 0
FIRST, THOROUGH = 5.0, 60.0  # seconds of tests for each mutant; for the sampled survivors
RERUN = 25  # survivors that are tried with all tests that touch them
# Modules, and how many mutants of each at most. Every probe in full.
SOURCES = {
    "leakcheck/probes": None,
    "leakcheck/flow/rules": 16,
    "leakcheck/flow/labels.py": 40,
    "leakcheck/flow/operand.py": 20,
    "leakcheck/flow/selection.py": 40,
    "leakcheck/flow/storage.py": 40,
    "leakcheck/flow/choices.py": 20,
}


def sources() -> dict[str, tuple[Module, int | None]]:
    """Family, module and the number of its mutants that are tried."""
    found = {}
    for place, limit in SOURCES.items():
        for path in sorted((ROOT / place).glob("*.py")) if (ROOT / place).is_dir() else [ROOT / place]:
            if path.name != "__init__.py":
                module = Module(path, ROOT)
                found[f"source: {module.name.removeprefix('leakcheck/')}"] = module, limit
    return found


def generated(record: Record) -> tuple[list[Mutant], dict[str, int]]:
    """All mutants to be tried; and of the families that are sampled, how many there are."""
    every, sampled = list(rules.mutants(record.seen)), {}
    for family, (module, limit) in sources().items():
        made = list(source.mutants(module, family))
        if limit is not None and len(made) > limit:
            sampled[family] = len(made)
            made = sorted(made, key=_rank)[:limit]
        every += made
    return every, sampled


def _rank(mutant: Mutant) -> str:
    """A seeded order that other mutants do not change."""
    return hashlib.sha256(f"{SEED} {mutant.name}".encode()).hexdigest()


def row_of(mutant: Mutant, trial: suite.Trial, equivalent: dict[str, str]) -> Row:
    outcome = "noticed" if trial.noticed else "equivalent" if mutant.name in equivalent else "survived"
    return Row(
        family=mutant.family,
        direction=mutant.direction,
        place=mutant.place,
        line=mutant.touches.rpartition(":")[2] if mutant.family.startswith("source") else "",
        change=mutant.change,
        outcome=outcome,
        by=trial.noticed + (f" ({trial.ended})" if trial.ended else ""),
        ran=trial.ran,
        tests=trial.tests,
        reason=equivalent.get(mutant.name, "") if outcome == "equivalent" else "",
    )


def measured(tests: dict[str, pytest.Item], options: argparse.Namespace) -> None:
    started = time.process_time()
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
    old = report.read(options.output)[1] if options.again else []
    kept = {(row.family, row.name): row for row in old if row.outcome == "noticed"}
    equivalent = json.loads(EQUIVALENT.read_text())
    warnings.simplefilter("ignore")
    source.warm(ROOT)
    gc.collect()
    gc.freeze()

    rows, survivors, cost = [], [], 0.0
    for number, mutant in enumerate(every):
        known = kept.get((mutant.family, mutant.name))
        if known is not None or not mutant.family.startswith(options.only):
            rows += [known] if known else []
            continue
        trial = suite.tried(mutant, record.order(mutant), tests, record, FIRST)
        cost += trial.seconds
        if trial.ended == "does not apply":
            continue
        rows.append(row_of(mutant, trial, equivalent))
        if rows[-1].outcome == "survived":
            survivors.append((len(rows) - 1, mutant))
            print(f"survived: {mutant.family} {mutant.name} ({trial.ran} of {trial.tests} tests)", file=sys.stderr)
        if number % 200 == 0:
            print(f"{number} of {len(every)}, {cost:.0f} s", file=sys.stderr, flush=True)
    again = sorted((pair for pair in survivors if rows[pair[0]].ran < rows[pair[0]].tests), key=lambda p: _rank(p[1]))
    for place, mutant in again[:RERUN]:
        trial = suite.tried(mutant, record.order(mutant), tests, record, THOROUGH)
        cost += trial.seconds
        rows[place] = row_of(mutant, trial, equivalent)

    about = {
        "command": "python -m benchmarks.mutation",
        "leakcheck": leakcheck.__version__,
        "torch": torch.__version__.partition("+")[0],
        "python": platform.python_version(),
        "seed": SEED,
        "tests": TESTS,
        "passed": len(record.seconds),
        "sampled": sampled,
        "seconds": round(cost + time.process_time() - started),
    }
    report.write(options.output, about, rows)
    print(report.page(about, rows))
    print(Counter(row.outcome for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutation", description=__doc__)
    parser.add_argument("--again", action="store_true", help="try again what no test noticed, and keep the other rows")
    parser.add_argument("--only", default="", help="families that begin so")
    parser.add_argument("--output", type=Path, default=report.REPORT, help="two files: .json and .md")
    parser.add_argument("--record", type=Path, default=ROOT / ".mutation.json", help="what the tests touch, kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    suite.with_tests(TESTS, lambda tests: measured(tests, options))


if __name__ == "__main__":
    main()
