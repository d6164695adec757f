"""The pages say what the tool says: everything quoted is what cog makes of it today, every part and code is named."""

import os
import re
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest
from cogapp import Cog

import leakcheck.auditing  # noqa: F401 -- so that no page has to import it
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
    # Forked: torch is imported, and what a page's programs register is gone afterwards.
    cog = get_context("fork").Process(target=check, args=(page,))
    cog.start()
    cog.join()
    assert cog.exitcode == 0, f"run `python -m cogapp -r -I docs {page}`"


def check(page):
    os.chdir(ROOT)
    sys.exit(Cog().main(["cog", "--check", "--diff", "-I", "docs", page]))


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
