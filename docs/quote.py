"""What README.md and the pages beside this file quote: real output and committed reports, put in by cog.

After a change of the output or of reports/, in the repository's root:

    python -m cogapp -r -I docs README.md docs/*.md
"""

import io
import itertools
import os
import shlex
import subprocess
import sys
import warnings
from contextlib import redirect_stdout
from json import loads
from pathlib import Path

from leakcheck.cli import app
from leakcheck.codes import CODES
from leakcheck.errors import ExitCode
from leakcheck.findings import AuditResult
from leakcheck.report import json, view

ROOT = Path(__file__).resolve().parents[1]
_WIDTH = 100


def report(name: str) -> AuditResult:
    """The committed audit of a built-in subject."""
    return json.read((ROOT / "reports" / f"{name}.json").read_text(encoding="utf-8"))


def replayed(name: str) -> str:
    """What the replay of a built-in subject's first committed witness prints, but for how equal the delta is.

    To the last bit it is on the processor that the witness was found on.
    """
    finding = next(f for f in report(name).findings if "replay" in f.reproduce)
    printed = io.StringIO()
    with redirect_stdout(printed):
        code = app(shlex.split(finding.reproduce)[1:], standalone_mode=False)
    assert code == ExitCode.LEAK
    said = printed.getvalue().partition(" (")[0]
    return f"```console\n$ {finding.reproduce}\n{said}\n```"


def options() -> str:
    """The help of `leakcheck run`, the same in every terminal."""
    code = "import sys; sys.argv = ['leakcheck', 'run', '--help']; from leakcheck.cli import main; main()"
    plain = {"TERMINAL_WIDTH": str(_WIDTH), "NO_COLOR": "1", "TERM": "dumb", "PYTHONIOENCODING": "utf-8"}
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    printed = subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, **plain, "PYTHONPATH": str(ROOT), "_TYPER_FORCE_DISABLE_TERMINAL": "1"},
        capture_output=True,
        encoding="utf-8",
        check=True,
    ).stdout
    lines = [line.rstrip() for line in printed.strip().splitlines()]
    return "\n".join(["```console", "$ leakcheck run --help", *lines, "```"])


def session(code: str) -> str:
    """A program and what it prints. It runs here: a process of its own would import torch first, for seconds."""
    printed = io.StringIO()
    with redirect_stdout(printed), warnings.catch_warnings(action="ignore"):
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    return f"```python\n{code.strip()}\n```\n\n```console\n{printed.getvalue().strip()}\n```"


def suite(spec: str, chosen: str) -> str:
    """What the property suite prints of the tests that are chosen, on a model that fails them; times are left out."""
    command = ["pytest", "properties", "--model", spec, "-k", chosen, "-q"]
    printed = subprocess.run(
        [sys.executable, "-m", *command, "-p", "no:cacheprovider", "--hypothesis-profile", "ci"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": str(_WIDTH), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        encoding="utf-8",
    ).stdout
    failures = printed.partition("= FAILURES =")[2].partition("\n")[2].partition("\n====")[0]
    return f"```console\n$ python -m {shlex.join(command)}\n{failures}\n```"


def table(name: str, heading: str) -> str:
    """A table of a committed page of reports/, by the first cell of its head, and the command that made the page."""
    lines = (ROOT / "reports" / f"{name}.md").read_text(encoding="utf-8").splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[first:])
    command = next(line for line in lines if line.startswith("`")).split("`")[1]
    return "\n".join([*rows, "", f"From [reports/{name}.md](../reports/{name}.md), made by `{command}`."])


def scoreboard() -> str:
    """The head-to-head of reports/scoreboard.md, as README.md shows it."""
    return table("scoreboard", "detector").replace("](../reports/", "](reports/")


def codes() -> str:
    """Every finding code: what it says and what to do in a table, and then the pages, one level lower."""
    rows = (_row(f"[{code.id}](#{code.id})", code.title, code.remedy) for code in CODES.values())
    pages = (f'<a id="{code.id}"></a>\n\n#' + code.page.replace("\n## ", "\n### ") for code in CODES.values())
    return "\n".join(["| code | what it says | what to do |", "| --- | --- | --- |", *rows, "", *pages])


def compatibility() -> str:
    """What tests said of each row under each version of transformers, or why it could not run there."""
    table = loads((ROOT / "reports" / "compatibility.json").read_text(encoding="utf-8"))
    versions = [column["transformers"] for column in table["columns"]]
    heads = [f"{column['transformers']} (torch {column['torch']})" for column in table["columns"]]
    rows = (_row(row, *(said.get(version, "-") for version in versions)) for row, said in table["rows"].items())
    return "\n".join([_row("", *heads), _row(*["---"] * (len(heads) + 1)), *rows])


def conclusions(*names: str) -> str:
    """The trace's conclusions, and what became of each in these subjects."""
    found = [report(name).conclusions for name in names]
    lines = [_row("claim", *(f"`{name}`" for name in names)), _row(*["---"] * (len(names) + 1))]
    for same in zip(*found, strict=True):
        lines.append(_row(f"{same[0].id} {same[0].claim}", *(f"{c.verdict.value}: {c.evidence}" for c in same)))
    return "\n".join(lines)


def statistics(*names: str) -> str:
    """The trace's counts beside the measured ones, as the report words them."""
    lines = []
    for name in names:
        table = view.statistics_section(report(name).statistics).table
        assert table is not None
        if not lines:
            lines = [_row("subject", *table.columns), _row(*["---"] * (len(table.columns) + 1))]
        lines += [_row(f"`{name}`", *row.cells) for row in table.rows]
    return "\n".join(lines)


def ablation(name: str) -> str:
    """Which path leaks when which check is gone, as the report words it."""
    table = view.ablation_section(report(name).ablation).table
    assert table is not None
    lines = [_row(*table.columns, "configuration"), _row(*["---"] * (len(table.columns) + 1))]
    return "\n".join([*lines, *(_row(*row.cells, row.group) for row in table.rows)])


def fidelity(name: str) -> str:
    """How far the re-mask moves the stored weights, as the report words it."""
    found = report(name).fidelity
    assert found is not None
    return view.fidelity_section(found).lines[0]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
