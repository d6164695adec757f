"""The mutation benchmark: a broken toy is noticed, an equivalent one is not; the committed score adds up."""

import json

import pytest

from benchmarks.mutation import report, rules, source, suite
from benchmarks.mutation.__main__ import EQUIVALENT
from benchmarks.mutation.report import Row
from leakcheck.flow.registry import RULES

TOY = """
def highest(numbers):
    found = numbers[0]
    for number in numbers:
        found = max(found, number)
    return found


def size(number):
    return number if number > 0 else -number


def unused(number):
    return number + 1
"""

TESTS = """
import torch
import toy

from leakcheck.flow import labels as L
from leakcheck.flow.labels import Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import RULES, rule
from leakcheck.flow.storage import Mirror

rule("toy::join")(lambda a, b: L.join(a.labels, b.labels))
rule("toy::first")(lambda a, b: a.labels)


def test_highest():
    assert toy.highest([1, 3, 2]) == 3


def test_size():
    assert [toy.size(n) for n in (-2, 0, 2)] == [2, 0, 2]


def outcome(key):
    mirror, values = Mirror(), [torch.zeros(3), torch.zeros(3)]
    for value, labels in zip(values, ([2, 0, 1], [0, 1, 2]), strict=True):
        mirror.seed(value, Labels(torch.tensor(labels, dtype=L.DTYPE)))
    rule = RULES[key]
    return rule.function(*(Operand(v, mirror, rowwise=False, soft=False) for v in values)).plane.tolist()


def test_rule_of_both():
    assert outcome("toy::join") == [2, 1, 2]


def test_rule_of_one():
    assert outcome("toy::first") == [2, 0, 1]


def test_that_fails():
    assert False
"""


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    """Of each mutant of the toys the test that noticed it, and the tests that were recorded; all in a fork."""
    tmp_path = tmp_path_factory.mktemp("toy")
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "test_toy.py").write_text(TESTS)
    module = source.Module(tmp_path / "toy.py", tmp_path)

    def child(send):
        def function(tests):
            record = suite.record(tests, [module])
            made = [m for m in rules.mutants(record.seen) if m.place.startswith("toy::")]
            for mutant in [*made, *source.mutants(module, "source: toy")]:
                trial = suite.tried(mutant, record.order(mutant), tests, record, 60)
                send([mutant.place, mutant.direction, mutant.change, trial.noticed.partition("::")[2]])
            send(["recorded", "", "", [name.partition("::")[2] for name in record.seconds]])

        suite.with_tests(["--rootdir", str(tmp_path), str(tmp_path / "test_toy.py")], function)

    said, status, _ = suite.forked(child)
    assert status == 0
    return {(place, change): by for place, _, change, by in said}


def test_what_breaks_a_toy_is_noticed_and_what_does_not_is_not(tried):
    source_of = {change: by for (place, change), by in tried.items() if place.startswith("toy.py")}
    assert source_of["`max(found, number)` is `min(found, number)`"] == "test_highest"
    assert source_of["`number > 0` is `number >= 0`"] == ""  # -0 is 0
    assert source_of["`number + 1` is `number - 1`"] == ""  # no test runs it
    assert source_of["`-number` is `number`"] == "test_size"


def test_what_breaks_a_toy_rule_is_noticed_and_what_does_not_is_not(tried):
    join = {change: by for (place, change), by in tried.items() if place == "toy::join"}
    assert {join["operand 0 is not seen"], join["operand 1 is not seen"]} == {"test_rule_of_both"}
    assert set(join.values()) == {"test_rule_of_both"}
    assert any(change == "the output is joined along axis -1" for change in join)
    first = {change: by for (place, change), by in tried.items() if place == "toy::first"}
    assert [change for change, by in first.items() if not by] == [
        "operand 1 is not seen",
        "operand 1: of axis -1 the least counts",
    ]


def test_a_test_that_fails_without_a_mutant_notices_nothing(tried):
    assert tried["recorded", ""] == ["test_highest", "test_size", "test_rule_of_both", "test_rule_of_one"]


def row(outcome: str, family: str = "rules: toy") -> Row:
    return Row(family, "unsound", "toy::join", "", f"{outcome} change", outcome, "", 1, 1)


def test_the_score_is_of_what_is_not_equivalent(tmp_path):
    rows = [row("noticed"), row("noticed"), row("noticed"), row("survived"), row("equivalent")]
    counted = report.scores(rows)["rules: toy"]
    assert (counted.mutants, counted.noticed, counted.equivalent, counted.percent) == (4, 3, 1, 75.0)
    about = {
        "command": "c",
        "leakcheck": "1",
        "torch": "2",
        "passed": 3,
        "tests": ["t"],
        "seed": 0,
        "generated": {},
        "chosen": {},
        "revision": "r",
    }
    report.write(tmp_path / "score", about, rows)
    assert report.read(tmp_path / "score")[1] == rows
    page = (tmp_path / "score.md").read_text()
    assert "| toy::join | survived change | 1 of 1 |" in page
    assert "**75.0 %**" in page


def test_the_score_is_of_rules_and_probes():
    rows = [row("noticed"), row("survived", "probes: seek.py"), row("survived", "source: flow/labels.py")]
    counted = report.scores(rows)
    assert [counted[name].percent for name in ("all rules", "all probes", "all source")] == [100, 0, 0]
    assert (counted[report.HEADLINE].noticed, counted[report.HEADLINE].mutants) == (1, 2)


def test_the_committed_score_adds_up_and_is_high_for_rules_and_probes():
    about, rows = report.read(report.REPORT)
    document = json.loads(report.REPORT.with_suffix(".json").read_text())
    for name, counted in report.scores(rows).items():
        written = document["scores"][name]
        assert (written["mutants"], written["noticed"]) == (counted.mutants, counted.noticed)
        assert written["percent"] == pytest.approx(counted.percent, abs=0.01)
    assert document["scores"]["all rules"]["percent"] >= 95
    assert document["scores"]["all probes"]["percent"] >= 95
    assert report.REPORT.with_suffix(".md").read_text() == report.page(about, rows)
    for each in rows:
        assert each.outcome in ("noticed", "survived", "equivalent")
        assert bool(each.by) == (each.outcome == "noticed")
        assert bool(each.reason) == (each.outcome == "equivalent")
        if each.reason:
            assert json.loads(EQUIVALENT.read_text())[f"{each.place}: {each.change}"] == each.reason


def test_the_committed_score_covers_every_family_of_rules_both_ways_and_the_probes():
    _, rows = report.read(report.REPORT)
    families = {f"rules: {rule.family}" for rule in RULES.values()}
    assert families <= {row.family for row in rows if row.direction == "unsound"}
    assert families <= {row.family for row in rows if row.direction == "coarse"}
    probes = {row.place.split()[0] for row in rows if row.family.startswith("probes:")}
    assert {
        f"leakcheck/probes/{name}.py" for name in ("draws", "groups", "measure", "precision", "probe", "seek", "tap")
    } <= probes
