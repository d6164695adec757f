"""Leaks that were shipped: the entries, and what the report on them must show. Nothing is installed or audited here."""

import ast
import json
import re
import sys
from dataclasses import asdict, replace

import pytest

from benchmarks.real_leaks import __main__ as kit
from benchmarks.real_leaks.leaks import LEAKS, Leak

REPORT = json.loads((kit.REPORTS / "real_leaks.json").read_text(encoding="utf-8"))
ROWS = {row["name"]: row for row in REPORT["rows"]}
each_leak = pytest.mark.parametrize("leak", LEAKS, ids=[leak.name for leak in LEAKS])


def number(version):
    return tuple(int(part) for part in version.split("."))


@each_leak
def test_entry_is_well_formed(leak):
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", leak.name)
    assert number(leak.before) < number(leak.after)
    assert (leak.fixed is None) == bool(leak.newest)
    assert len(leak.why) > 20
    assert not leak.public or re.fullmatch(
        r"https://github\.com/[\w.-]+/[\w.-]+/(issues|pull|commit)/[0-9a-f]+", leak.public
    )
    for version in (leak.before, leak.after):
        pins = leak.requirements(version)
        assert pins[0] == f"{leak.package}=={version}"
        assert all(re.fullmatch(r"[\w.-]+==[\d.]+", pin) for pin in pins)


@each_leak
def test_spec_names_a_factory(leak):
    file, _, factory = leak.spec.partition(":")
    tree = ast.parse((kit.ROOT / file).read_text(encoding="utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert (factory or "build") in functions


def test_every_model_is_audited():
    assert len({leak.name for leak in LEAKS}) == len(LEAKS)
    files = {path.name for path in (kit.ROOT / "benchmarks" / "real_leaks" / "models").glob("*.py")}
    assert files <= {leak.spec.partition(":")[0].rpartition("/")[2] for leak in LEAKS}


@each_leak
def test_report_is_of_the_entry(leak):
    row = ROWS[leak.name]
    assert {name: row[name] for name in asdict(leak)} == json.loads(json.dumps(asdict(leak)))
    assert [audit["version"] for audit in row["audits"]] == [leak.before, leak.after]


@each_leak
def test_both_directions_are_shown(leak):
    row = ROWS[leak.name]
    assert row["as_expected"]
    assert kit.as_expected(leak, *row["audits"])


def test_enough_leaks_have_both_directions():
    assert [row["name"] for row in REPORT["rows"]] == [leak.name for leak in LEAKS]
    fixed = sum(leak.fixed is not None for leak in LEAKS)
    assert (REPORT["both_directions"], REPORT["not_fixed"]) == (fixed, len(LEAKS) - fixed)
    assert fixed >= 12


def test_markdown_renders_the_json():
    assert (kit.REPORTS / "real_leaks.md").read_text(encoding="utf-8") == kit.markdown(REPORT)


LEAK = Leak("one", "package", "1.0", "1.1", "model.py", "modeling.py", "why")
BEFORE = {
    "verdict": "LEAK",
    "exit_code": 1,
    "moved": True,
    "finding": "LC101: mixes at modeling.py:7",
    "file": "site/wrapper.py",
}
AFTER = {"verdict": "OPEN", "exit_code": 0, "moved": False, "finding": "", "file": ""}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, {}, True),
        ({"file": "site/modeling.py", "finding": ""}, {"verdict": "PROVEN"}, True),
        ({"finding": "LC101"}, {}, False),  # points elsewhere
        ({"verdict": "SUSPECT", "exit_code": 0}, {}, False),
        ({"moved": False}, {}, False),  # only leakcheck says so
        ({"moved": None}, {}, False),
        ({}, {"verdict": "LEAK", "exit_code": 1}, False),
        ({}, {"verdict": "SUSPECT"}, False),
        ({}, {"moved": True}, False),
        ({}, {"verdict": "-", "exit_code": 2}, False),
    ],
)
def test_expectation(before, after, expected):
    assert kit.as_expected(LEAK, BEFORE | before, AFTER | after) is expected


def test_a_leak_without_a_fix_must_be_in_the_newest_release():
    unfixed = replace(LEAK, fixed=None, newest="1.1")
    assert kit.as_expected(unfixed, BEFORE, BEFORE)
    assert not kit.as_expected(unfixed, BEFORE, AFTER)


def test_an_unknown_name_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["real_leaks", "nonsuch"])
    with pytest.raises(SystemExit, match="2"):
        kit.main()
    assert "no leak is called nonsuch; there are mamba2" in capsys.readouterr().err


def test_rows_of_entries_that_did_not_change_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(kit, "REPORTS", tmp_path)
    assert kit._committed() == {}
    (tmp_path / "real_leaks.json").write_text(json.dumps(REPORT), encoding="utf-8")
    assert json.loads(json.dumps(list(kit._committed().values()))) == REPORT["rows"]
    first, second = LEAKS[:2]
    monkeypatch.setattr(kit, "LEAKS", [replace(first, options=("--seq-len", "9")), replace(second, why="said anew")])
    kept = kit._committed()
    assert list(kept) == [second.name]
    assert kept[second.name]["why"] == "said anew"
