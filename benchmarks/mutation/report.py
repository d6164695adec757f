"""What became of the mutants, and the score: a row for each in the JSON document, the survivors on the page."""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HEADLINE = "rules and probes"
REPORT = Path(__file__).resolve().parents[2] / "reports" / "mutation_score"


@dataclass(frozen=True)
class Row:
    """One mutant. `outcome` is "noticed", "survived" or "equivalent"; `by` the test that failed.

    `ran` tests of the `tests` that touch the place were run. `reason`: why an equivalent one is. `ended`: how the
    process did, where the mutant ended it.
    """

    family: str
    direction: str
    place: str
    line: str
    change: str
    outcome: str
    by: str
    ran: int
    tests: int
    reason: str = ""
    ended: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.family, self.place, self.change


@dataclass(frozen=True)
class Score:
    """`noticed` of `mutants` that are not equivalent."""

    mutants: int
    noticed: int
    equivalent: int

    @property
    def percent(self) -> float:
        return 100 * self.noticed / self.mutants if self.mutants else 100.0


def score(rows: Iterable[Row]) -> Score:
    outcomes = Counter(row.outcome for row in rows)
    noticed, survived = outcomes["noticed"], outcomes["survived"]
    return Score(noticed + survived, noticed, outcomes["equivalent"])


def scores(rows: Iterable[Row]) -> dict[str, Score]:
    """By family, in order; then of all rules, all probes and all other sources; and of rules and probes together."""
    rows = list(rows)
    families: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        families[row.family].append(row)
    made = {family: score(of) for family, of in sorted(families.items())}
    for what in sorted({row.family.partition(":")[0] for row in rows}):
        made[f"all {what}"] = score(row for row in rows if row.family.startswith(f"{what}:"))
    return {**made, HEADLINE: score(row for row in rows if counts(row.family))}


def counts(family: str) -> bool:
    """Whether it is part of the score: op rules and probes are; other sources are told apart."""
    return family.startswith(("rules:", "probes:"))


def read(path: Path) -> tuple[dict[str, Any], list[Row]]:
    document = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return document["about"], [Row(**row) for row in document["rows"]]


def write(path: Path, about: dict[str, Any], rows: list[Row]) -> None:
    counted = {name: {**asdict(each), "percent": round(each.percent, 2)} for name, each in scores(rows).items()}
    lines = ",\n".join(json.dumps(asdict(row)) for row in rows)
    head = f'"about": {json.dumps(about, indent=1)},\n"scores": {json.dumps(counted, indent=1)}'
    document = f'{{{head},\n"rows": [\n{lines}\n]}}\n'
    for suffix, text in ((".json", document), (".md", page(about, rows))):
        temporary = path.with_suffix(suffix + ".tmp")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path.with_suffix(suffix))


def page(about: dict[str, Any], rows: list[Row]) -> str:
    counted = scores(rows)
    whole, rules, probes = (counted.get(name, score([])) for name in (HEADLINE, "all rules", "all probes"))
    lines = [
        "# Mutation score of leakcheck",
        "",
        f"`{about['command']}` (leakcheck {about['leakcheck']} at {about['revision']}, torch {about['torch']}, "
        f"{about['passed']} tests of {', '.join(about['tests'])}, seed {about['seed']})",
        "",
        f"**{whole.percent:.1f} %** of op rules and probes: {whole.noticed} of {whole.mutants} mutants were noticed by "
        f"a test that fails. Rules: {rules.percent:.1f} %, probes: {probes.percent:.1f} %. {whole.equivalent} more are "
        "equivalent to what they were made of.",
        "",
        "Chosen are a seeded sample of those generated; tried, of these, as many as the time allowed, one of each "
        "family in turn.",
        "",
        *([about["note"], ""] if "note" in about else []),
        *_families(
            about, {name: each for name, each in counted.items() if not name.startswith(("source", "all source"))}
        ),
        "",
        "## Other sources of flow, a small sample",
        "",
        *_families(about, {name: each for name, each in counted.items() if name.startswith(("source", "all source"))}),
    ]
    lines += ["", "## By direction", "", "| direction | mutants | noticed | score |", "|---|--:|--:|--:|"]
    for direction in sorted({row.direction for row in rows}):
        each = score(row for row in rows if row.direction == direction)
        lines.append(f"| {direction} | {each.mutants} | {each.noticed} | {each.percent:.1f} % |")
    lines += [
        "",
        "## Survivors",
        "",
        "| where | what was changed | tests run, of those that touch it |",
        "|---|---|--:|",
    ]
    lines += [
        f"| {_cell(row.place)}{':' + row.line if row.line else ''} | {_cell(row.change)} | {row.ran} of {row.tests} |"
        for row in rows
        if row.outcome == "survived"
    ]
    lines += ["", "## Equivalent", "", "| where | what was changed | why nothing can notice it |", "|---|---|---|"]
    lines += [
        f"| {_cell(row.place)} | {_cell(row.change)} | {_cell(row.reason)} |"
        for row in rows
        if row.outcome == "equivalent"
    ]
    return "\n".join([*lines, ""])


def _families(about: dict[str, Any], counted: dict[str, Score]) -> list[str]:
    lines = [
        "| family | mutants | noticed | score | survived | equivalent | chosen | generated |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for family, each in counted.items():
        lines.append(
            f"| {family} | {each.mutants} | {each.noticed} | {each.percent:.1f} % | {each.mutants - each.noticed} "
            f"| {each.equivalent} | {about['chosen'].get(family, '')} | {about['generated'].get(family, '')} |"
        )
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
