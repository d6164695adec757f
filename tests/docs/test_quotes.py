"""The pages say what the tool says: everything quoted is what cog makes of it today, every part and code is named."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from leakcheck.config import MASKS
from leakcheck.errors import ExitCode
from leakcheck.findings import Verdict
from leakcheck.report import json

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


PAGES = ["README.md", *(f"docs/{page}.md" for page in ("codes", "compatibility", "flow", "laws", "method1_v3"))]


@pytest.mark.parametrize("page", PAGES)
def test_quotes_are_current(page):
    command = [sys.executable, "-m", "cogapp", "--check", "--diff", "-I", "docs", page]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, f"run `python -m cogapp -r -I docs {page}`\n{done.stdout}{done.stderr}"


def test_what_the_first_lines_say_of_the_materialised_mask():
    assert "with its mask materialised: proven, exit 0" in README
    result = json.read((ROOT / "reports" / "method1_v3.json").read_text(encoding="utf-8"))
    assert result.verdict is Verdict.PROVEN
    assert all(control.caught for control in result.controls)


def test_exit_code_table_has_every_code_and_no_other():
    section = README.partition("## Exit codes")[2].partition("\n## ")[0]
    codes = [int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)]
    assert codes == sorted(ExitCode)


def test_verdict_table_has_every_verdict_and_no_other():
    section = README.partition("## What a verdict means")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(Verdict)


def test_the_masks_are_named():
    assert f"({', '.join(MASKS)})" in README


def test_links_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "ARCHITECTURE.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_architecture_names_every_part():
    parts = [p.stem for p in (ROOT / "leakcheck").iterdir() if p.is_dir() or p.suffix == ".py"]
    missing = [part for part in parts if not part.startswith("__") and f"`{part}" not in ARCHITECTURE]
    assert not missing


def test_files_that_architecture_names_exist():
    for name in re.findall(r"`([\w/]+/[\w/]*\.?\w*)`", ARCHITECTURE):
        assert (ROOT / name).exists() or (ROOT / "leakcheck" / name).exists(), name
