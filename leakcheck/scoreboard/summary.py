"""The scoreboard in figures and as text: what each detector finds, misses, and takes for a leak that is none."""

import importlib.metadata
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from leakcheck import __version__
from leakcheck.scoreboard.board import Row
from leakcheck.scoreboard.detectors import DETECTORS, TOGETHER

COMMAND = "make bench"
COLUMNS = ("detector", "leaks found", "false alarms", "cannot say", "first line right", "forwards", "backwards")
_PACKAGES = ("torch", "transformers", "causal-certificate")


@dataclass(frozen=True)
class Score:
    """One detector. Of `leaks` it found some and missed others; `false_alarms` are correct subjects that it flagged.

    `unsaid` are subjects where it could not say: leaks among them are missed. `lines_right` of `lines` say how often
    the first line named was the planted one; costs are medians over
    questions of causality, in plain forwards of one sequence and backward passes.
    """

    detector: str
    title: str
    leaks: int
    found: int
    missed: tuple[str, ...]
    correct: int
    false_alarms: tuple[str, ...]
    unsaid: tuple[str, ...]
    lines_right: int
    lines: int
    codes_right: int
    codes: int
    forwards: float
    backwards: float


def scores(rows: Sequence[Row]) -> list[Score]:
    """One for each detector, in the order of the registry."""
    return [_score(name, [row for row in rows if row.detector == name]) for name in _ran(rows)]


def _ran(rows: Sequence[Row]) -> list[str]:
    return [name for name in DETECTORS if any(row.detector == name for row in rows)]


def _score(name: str, rows: Sequence[Row]) -> Score:
    leaks = [row for row in rows if row.kind == "leak"]
    correct = [row for row in rows if row.kind != "leak"]
    asked = [row for row in rows if row.causal] or rows
    return Score(
        detector=name,
        title=DETECTORS[name].title,
        leaks=len(leaks),
        found=sum(row.flagged is True for row in leaks),
        missed=tuple(row.subject for row in leaks if row.flagged is not True),
        correct=len(correct),
        false_alarms=tuple(_said(row) for row in correct if row.flagged),
        unsaid=tuple(_said(row) for row in rows if row.flagged is None),
        lines_right=sum(row.line is True for row in leaks),
        lines=sum(row.line is not None for row in leaks),
        codes_right=sum(row.codes is True for row in leaks),
        codes=sum(row.codes is not None for row in leaks),
        forwards=statistics.median(row.forwards for row in asked),
        backwards=statistics.median(row.backwards for row in asked),
    )


def _said(row: Row) -> str:
    return f"{row.subject}, clean twin" if row.kind == "twin" else row.subject


def passes(found: Sequence[Score]) -> bool:
    """Whether leakcheck as a whole finds every leak, with its codes, and flags nothing that is correct."""
    together = next(score for score in found if score.detector == TOGETHER)
    return not together.missed and not together.false_alarms and together.codes_right == together.leaks


def to_json(rows: Sequence[Row]) -> str:
    """Figures and all rows, a line each."""
    lines = ",\n".join("    " + json.dumps(asdict(row)) for row in rows)
    head = json.dumps(
        {"command": COMMAND, "versions": _versions(), "scores": [asdict(s) for s in scores(rows)]}, indent=2
    )
    return f'{head[:-2]},\n  "rows": [\n{lines}\n  ]\n}}\n'


def to_markdown(rows: Sequence[Row]) -> str:
    found = scores(rows)
    versions = ", ".join(f"{name} {version}" for name, version in _versions().items())
    subjects = {kind: len({r.subject for r in rows if r.kind == kind}) for kind in ("leak", "control")}
    return "\n".join(
        [
            "# Scoreboard",
            "",
            f"`{COMMAND}` ({versions})",
            "",
            f"{subjects['leak']} known leaks, the clean twin of each, and {subjects['control']} correct models that "
            "are easily taken for leaking ones, each in the configuration and at the length that shows it. Detectors "
            "that know no contract and no policy but causality are asked about causality alone.",
            "",
            *head_to_head(found),
            "",
            "Forwards are plain forwards of one sequence; costs are medians over questions of causality. A leak that a "
            "detector cannot speak of counts as missed.",
            "",
            "## What each misses",
            "",
            *(_listed(s.detector, s.missed) for s in found),
            "",
            "## What each takes for a leak that is none",
            "",
            *(_listed(s.detector, s.false_alarms) for s in found),
            "",
            "## By mechanism",
            "",
            *_by_mechanism(rows),
            "",
        ]
    )


def head_to_head(found: Sequence[Score]) -> list[str]:
    """The table of the figures."""
    lines = [f"| {' | '.join(COLUMNS)} | how |", f"|---|{'--:|' * (len(COLUMNS) - 1)}---|"]
    return lines + [f"| {' | '.join(cells(s))} | {s.title} |" for s in found]


def cells(score: Score) -> tuple[str, ...]:
    """The figures of one detector under `COLUMNS`."""
    return (
        score.detector,
        f"{score.found} of {score.leaks}",
        f"{len(score.false_alarms)} of {score.correct}",
        str(len(score.unsaid)),
        f"{score.lines_right} of {score.lines}" if score.lines else "names none",
        f"{score.forwards:.0f}",
        f"{score.backwards:.0f}",
    )


def _listed(title: str, names: Sequence[str]) -> str:
    return f"- {title}: {', '.join(f'`{name}`' for name in names) or 'none'}"


def _by_mechanism(rows: Sequence[Row]) -> list[str]:
    names = _ran(rows)
    lines = [f"| mechanism | {' | '.join(names)} |", f"|---|{'--:|' * len(names)}"]
    for mechanism in sorted({row.mechanism for row in rows if row.kind == "leak"}):
        cells = []
        for name in names:
            there = [r for r in rows if (r.mechanism, r.detector, r.kind) == (mechanism, name, "leak")]
            cells.append(f"{sum(r.flagged is True for r in there)} of {len(there)}" if there else "")
        lines.append(f"| {mechanism} | {' | '.join(cells)} |")
    return lines


def _versions() -> dict[str, str]:
    found = {"leakcheck": __version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
