"""What each report format costs for the largest report that is promised: 40 layers under 24 configurations.

    python -m benchmarks.report_cost            into reports/report_cost.{json,md}
    python -m benchmarks.report_cost --repeats 1 --output /tmp/cost

All formats are rendered in turns, in one process; a format's share is its part of the round's time, and medians over
the rounds are reported. Seconds are those of the machine that it ran on, shares hardly depend on it.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path

from rich.console import Console

import leakcheck
from leakcheck.findings import AuditResult
from leakcheck.report import RENDERERS, github, print_audit
from leakcheck.report.registry import put
from tests.report.documents import large

REPORTS = Path(__file__).resolve().parent.parent / "reports"
COMMAND = "python -m benchmarks.report_cost"


@dataclass(frozen=True)
class Cost:
    """Of one format: medians over the rounds, and the size of what it writes."""

    format: str
    seconds: float
    share: float
    bytes: int


def terminal(result: AuditResult) -> str:
    output = StringIO()
    print_audit(result, Console(width=100, file=output))
    return output.getvalue()


def formats() -> dict[str, Callable[[AuditResult], str]]:
    """Each once, though two endings of a name may stand for it."""
    once = {render: suffix for suffix, render in reversed(RENDERERS.items())}
    return {"terminal": terminal, "github": github.render, **{suffix: render for render, suffix in once.items()}}


def costs(result: AuditResult, repeats: int) -> tuple[float, list[Cost]]:
    """The median of a whole round in seconds, and the formats, the most expensive first."""
    rounds: list[dict[str, float]] = []
    sizes: dict[str, int] = {}
    for _ in range(repeats):
        taken = {}
        for name, render in formats().items():
            started = time.perf_counter()
            text = render(result)
            taken[name] = time.perf_counter() - started
            sizes[name] = len(text.encode("utf-8", "backslashreplace"))
        rounds.append(taken)
    found = [
        Cost(
            name,
            statistics.median(taken[name] for taken in rounds),
            statistics.median(taken[name] / sum(taken.values()) for taken in rounds),
            sizes[name],
        )
        for name in formats()
    ]
    total = statistics.median(sum(taken.values()) for taken in rounds)
    return total, sorted(found, key=lambda cost: -cost.share)


def table(found: list[Cost], about: dict) -> str:
    lines = [
        "# What the report formats cost",
        "",
        f"`{about['command']}` (leakcheck {about['leakcheck']}, Python {about['python']}, one thread)",
        "",
        f"A report of {about['layers']} layers under {about['configurations']} configurations: "
        f"{about['checkpoints']:,} measured stages, {about['findings']} findings, {about['positions']} positions. "
        f"All formats together take {about['seconds']:.2f} s; median of {about['repeats']} rounds.",
        "",
        "| format | share of the time | seconds | size |",
        "|---|--:|--:|--:|",
        *(f"| {c.format} | {c.share:.0%} | {c.seconds:.2f} | {c.bytes / 1000:,.0f} kB |" for c in found),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=REPORTS / "report_cost", help="two files: .json and .md")
    options = parser.parse_args()

    result = large()
    seconds, found = costs(result, options.repeats)
    about = {
        "command": COMMAND,
        "leakcheck": leakcheck.__version__,
        "python": platform.python_version(),
        "layers": len({c.layer for c in result.checkpoints if c.layer is not None}),
        "configurations": len(result.configurations),
        "checkpoints": len(result.checkpoints),
        "findings": len(result.findings),
        "positions": result.subject.seq_len,
        "repeats": options.repeats,
        "seconds": seconds,
    }
    put(
        json.dumps({"about": about, "costs": [asdict(c) for c in found]}, indent=1) + "\n",
        options.output.with_suffix(".json"),
    )
    page = table(found, about)
    put(page, options.output.with_suffix(".md"))
    print(page)


if __name__ == "__main__":
    main()
