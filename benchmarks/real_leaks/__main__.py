"""`python -m benchmarks.real_leaks [NAME ...]`."""

import argparse
import functools
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import leakcheck
from benchmarks.real_leaks.leaks import LEAKS, Leak

ROOT = Path(__file__).resolve().parents[2]
REPORTS = ROOT / "reports"
COMMAND = "make real-leaks"
TIMEOUT = 600  # seconds for one command
DECISIVE = ("package", "before", "fixed", "newest", "spec", "options", "needs")  # what an audit depends on


@dataclass(frozen=True)
class Audit:
    """One release of a leak's package. `moved`: whether brute force moves an earlier output by a later input.

    `finding`: the first of the audit, `file` and `line` where it is. Without a verdict ("-") `finding` is what went
    wrong, and the exit code is -1 if the audit did not run to its end.
    """

    version: str
    verdict: str
    exit_code: int
    moved: bool | None
    seconds: float
    length: int | None
    configurations: dict[str, str]
    finding: str
    file: str
    line: int | None


class Installer:
    """Folders with packages, in `folder`; one for each list of requirements."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.installed: dict[tuple[str, ...], Path] = {}
        self.lock = Lock()

    def __call__(self, requirements: tuple[str, ...]) -> Path:
        """The folder that these are in, without what they say that they need.

        Raises:
            RuntimeError: pip could not install them.
        """
        with self.lock:
            if requirements not in self.installed:
                self.installed[requirements] = self._new(requirements)
            return self.installed[requirements]

    def _new(self, requirements: tuple[str, ...]) -> Path:
        target = self.folder / str(len(self.installed))
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run(
            [*command, "--no-compile", "--target", str(target), *requirements],
            capture_output=True, text=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
        if done.returncode:
            said = done.stderr.strip().splitlines()
            raise RuntimeError(f"pip could not install {' '.join(requirements)}: {said[-1] if said else ''}")
        return target


def audited(leak: Leak, version: str, install: Installer) -> Audit:
    """The audit of one release, through the command line."""
    try:
        return _audited(leak, version, functools.partial(_run, install(leak.requirements(version))))
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return Audit(version, "-", -1, None, 0.0, None, {}, str(error), "", None)


def _audited(leak: Leak, version: str, run: Callable[..., subprocess.CompletedProcess[str]]) -> Audit:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "audit.json"
        started = time.perf_counter()
        done = run("leakcheck", "run", "--model", leak.spec, *leak.options, "--report", str(report))
        took = round(time.perf_counter() - started, 1)
        found = json.loads(report.read_text(encoding="utf-8")) if report.exists() else None
    if found is None:
        said = (done.stderr or done.stdout).strip().splitlines()
        return Audit(version, "-", done.returncode, None, took, None, {}, said[-1] if said else "", "", None)
    length = found["subject"]["seq_len"]
    forced = run("benchmarks.real_leaks.moves", leak.spec, str(length)).stdout.strip()
    first = next(iter(found["findings"]), None)
    return Audit(
        version=version,
        verdict=found["verdict"],
        exit_code=done.returncode,
        moved={"moves": True, "nothing moves": False}.get(forced),
        seconds=took,
        length=length,
        configurations={c["id"]: c["verdict"] for c in found["configurations"]},
        finding=f"{first['code']}: {first['message']}" if first else "",
        file=(first["file"] or "") if first else "",
        line=first["line"] if first else None,
    )


def _run(packages: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A module of ours with `packages` before those of this interpreter."""
    path = os.pathsep.join((str(packages), str(ROOT)))
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT,
        env=os.environ | {"PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}, check=False,
    )  # fmt: skip


def compared(leak: Leak, install: Installer) -> dict[str, Any]:
    """The row of a leak: the entry, and the audits of both releases."""
    return _row(leak, *(asdict(audited(leak, version, install)) for version in (leak.before, leak.after)))


def _row(leak: Leak, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return asdict(leak) | {"as_expected": as_expected(leak, before, after), "audits": [before, after]}


def as_expected(leak: Leak, before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether the leak is found in its file before the fix, and nothing is after it; brute force alike."""
    files = [Path(before["file"]).name, *re.findall(r"[\w.]+\.py", before["finding"])]
    clean = after["verdict"] in ("PROVEN", "OPEN") and after["exit_code"] == 0 and after["moved"] is False
    return _leaks(before) and leak.file in files and (_leaks(after) if leak.fixed is None else clean)


def _leaks(audit: dict[str, Any]) -> bool:
    return audit["verdict"] == "LEAK" and audit["exit_code"] == 1 and audit["moved"] is True


def document(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "command": COMMAND,
        "versions": {
            "leakcheck": leakcheck.__version__,
            "torch": importlib.metadata.version("torch").partition("+")[0],
            "python": platform.python_version(),
        },
        "both_directions": sum(row["fixed"] is not None and row["as_expected"] for row in rows),
        "not_fixed": sum(row["fixed"] is None and row["as_expected"] for row in rows),
        "rows": rows,
    }


def markdown(found: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [
        "# Leaks that packages shipped",
        "",
        f"`{found['command']}` ({versions})",
        "",
        "Each is `leakcheck run --model SPEC` (below by its file's name) with the last release that leaks, and with",
        "the first that does not. Brute force: whether a later input moves an earlier output in float64.",
        "",
        f"{found['both_directions']} leaks are found before their fix and gone after it. "
        f"{found['not_fixed']} more are in an old release and in the newest.",
        "",
        "| leak | package | before | verdict | brute force | after | verdict | brute force |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        cells = [row["name"], row["package"]]
        for audit in row["audits"]:
            forced = {True: "moves", False: "nothing moves", None: "-"}[audit["moved"]]
            cells += [audit["version"], f"{audit['verdict']}, exit {audit['exit_code']}", forced]
        lines.append(f"| {' | '.join(cells)} |")
    for title, fixed in (("Fixed", True), ("Not fixed in the newest release", False)):
        lines += ["", f"## {title}", ""]
        for row in found["rows"]:
            if (row["fixed"] is not None) == fixed:
                lines += _told(row)
    return "\n".join(lines) + "\n"


def _told(row: dict[str, Any]) -> list[str]:
    """A leak in words: why, where it was reported, what was found, and which configurations have it."""
    before, after = row["audits"]
    leaking = [name for name, verdict in before["configurations"].items() if verdict == "LEAK"]
    lines = [f"- **{row['name']}** (`{' '.join((Path(row['spec']).name, *row['options']))}`): {row['why']}"]
    lines += [f"  - {row['public']}"] if row["public"] else []
    lines.append(f"  - {before['version']}, {len(leaking)} of {len(before['configurations'])} configurations leak:")
    lines.append(f"    {before['finding']} ({before['file']}:{before['line']})")
    if row["fixed"] is not None and after["finding"]:
        lines.append(f"  - {after['version']}: {after['finding']}")
    return lines


def write(path: Path, text: str) -> None:
    """All of it or nothing."""
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def main() -> int:
    names = [leak.name for leak in LEAKS]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real_leaks", description="Audit leaks that were shipped."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"these alone: {', '.join(names)}")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(names))
    if unknown:
        parser.error(f"no leak is called {', '.join(unknown)}; there are {', '.join(names)}")
    chosen = [leak for leak in LEAKS if not options.names or leak.name in options.names]
    rows = _committed()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        install = Installer(Path(folder))
        for done in as_completed([pool.submit(compared, leak, install) for leak in chosen]):
            row = done.result()
            rows[row["name"]] = row
            _say(row)
            found = document([rows[name] for name in names if name in rows])
            write(REPORTS / "real_leaks.json", json.dumps(found, indent=1) + "\n")
            write(REPORTS / "real_leaks.md", markdown(found))
    return 0 if all(rows[leak.name]["as_expected"] for leak in chosen) else 1


def _committed() -> dict[str, dict[str, Any]]:
    """The rows of the report, by name, of entries that would be audited in the same way today."""
    path = REPORTS / "real_leaks.json"
    known = {row["name"]: row for row in json.loads(path.read_text("utf-8"))["rows"]} if path.exists() else {}
    rows = {}
    for leak in LEAKS:
        row = known.get(leak.name)
        if row and all(row[name] == _plain(getattr(leak, name)) for name in DECISIVE):
            rows[leak.name] = _row(leak, *row["audits"])
    return rows


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value


def _say(row: dict[str, Any]) -> None:
    for audit in row["audits"]:
        place = f"{audit['file']}:{audit['line']}" if audit["file"] else ""
        told = f"{audit['verdict']:8} exit {audit['exit_code']}  {place}  {audit['finding']}"
        print(f"{row['name']:18} {audit['version']:8} {told[:170]}")
    print(f"{row['name']:18} {'as expected' if row['as_expected'] else 'NOT AS EXPECTED'}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
