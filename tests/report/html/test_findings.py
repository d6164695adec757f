from dataclasses import replace

import pytest

from leakcheck.findings import Excerpt, Step, Verdict
from leakcheck.report.html import _lines, render
from leakcheck.report.html.page import facts, told
from leakcheck.report.html.witnesses import inputs_of

from ..documents import DOCUMENTS, LEAKS_UNDER, array, excerpt, future_finding
from .reading import read

LEAK = DOCUMENTS["leak"]


def test_what_to_know_first():
    assert facts(LEAK) == {
        "Configurations": "2 of 12: sdpa/none",
        "Where": f"{LEAK.findings[0].file}:208 in model.layers.0.self_attn",
        "See it again": LEAK.findings[0].reproduce,
    }
    assert facts(DOCUMENTS["clean"]) == {"Configurations": "12 of 12"}
    assert facts(DOCUMENTS["empty"]) == {}


def test_a_finding_is_told_once_for_all_its_configurations():
    page = read(render(LEAK))
    (finding,) = page.find("details", kind="finding")
    for id in LEAKS_UNDER:
        assert id in finding.text()


def test_each_step_has_its_source_and_the_marked_line_is_marked():
    (finding,) = read(render(LEAK)).find("details", kind="finding")
    stops = finding.find("ol", kind="way")[0].find("li")
    assert [len(stop.find("mark")) for stop in stops] == [0, 1, 1]
    marked = stops[2].find("tr", kind="marked")
    assert [row.text() for row in marked] == ["▶208    attn_weights = attn_weights + attention_mask"]
    assert stops[2].find("mark")[0].text() == "attn_weights = attn_weights + attention_mask"
    assert [stop.attributes.get("class") for stop in stops] == [None, None, "here"]


def test_the_command_to_see_it_again_ends_the_finding():
    (finding,) = read(render(LEAK)).find("details", kind="finding")
    assert finding.find("code")[-1].text() == LEAK.findings[0].reproduce


def test_steps_at_one_place_become_one_stop():
    there, elsewhere = excerpt("a.py", 5, "x", "y = f(x)", "z"), excerpt("a.py", 9, "x", "w = g(y)", "z")
    steps = tuple(Step(text, "", at) for text, at in (("1", there), ("2", there), ("3", elsewhere), ("4", there)))
    stops = told([replace(future_finding("a"), steps=steps, excerpt=elsewhere)], LEAK).stops
    assert [("".join(step.text for step in stop.steps), stop.here) for stop in stops] == [
        ("12", False),
        ("3", True),
        ("4", False),
    ]


def test_a_place_whose_source_cannot_be_read_is_named():
    steps = (Step("add", "", Excerpt("gone.py", (7, 1, 7, 1), 7, ())),)
    text = render(replace(LEAK, findings=(replace(LEAK.findings[0], steps=steps, excerpt=None),)))
    (stop,) = read(text).find("ol", kind="way")[0].find("li")
    assert stop.lines() == ["add", "gone.py:7"]


def test_what_is_marked_may_span_lines():
    lines = _lines(Excerpt("a.py", (2, 7, 4, 4), 1, ("def f():", "\tx = (g(", "\t\ty,", "\t\t))", "\treturn x")))
    assert [line.marked for line in lines] == [False, True, True, True, False]
    assert [line.before + "[" + line.region + "]" + line.after for line in lines] == [
        "def f():[]",
        "    x = ([g(]",
        "        [y,]",
        "        [)])",
        "    return x[]",
    ]


def test_the_indentation_that_all_lines_share_is_left_out():
    lines = _lines(Excerpt("a.py", (2, 11, 2, 12), 1, ("    if a:", "        x = y", "", "    z")))
    assert [(line.before, line.region, line.after) for line in lines] == [
        ("if a:", "", ""),
        ("    x ", "=", " y"),
        ("", "", ""),
        ("z", "", ""),
    ]


@pytest.mark.parametrize("region", [(1, 1, 1, 2), (0, 1, 1, 1), (1, 9, 1, 3), (1, 1, 1, 99), (1, 50, 1, 99)])
def test_no_part_of_a_line_is_lost_or_shown_twice(region):
    line = _lines(Excerpt("a.py", region, 1, ("\t\tx = y", "\ty")))[0]
    assert line.before + line.region + line.after == "    x = y"


def test_the_inputs_of_the_witness_side_by_side():
    finding = LEAK.findings[0]
    inputs = inputs_of(finding, LEAK.witnesses)
    assert inputs is not None
    assert [(line.name, line.cells, line.differs) for line in inputs.lines] == [
        ("one input", ("5", "7"), (False, True)),
        ("the other", ("5", "9"), (False, True)),
    ]
    assert inputs.moves == ("moves 4.5", "")
    assert inputs_of(replace(finding, witness=None), LEAK.witnesses) is None
    assert inputs_of(finding, ()) is None


def test_rows_of_a_witness_that_differ_or_move_are_shown():
    witness = replace(
        LEAK.witnesses[0],
        row=2,
        tokens=array("int64", [1, 2], [3, 4], [5, 6]),
        changed=array("int64", [1, 9], [3, 4], [5, 6]),
        scale=array("float32", [1, 100], [1, 1], [1, 1]),
    )
    inputs = inputs_of(LEAK.findings[0], (witness,))
    assert inputs is not None
    assert [(line.name, line.cells) for line in inputs.lines] == [
        ("one input, row 0", ("1", "2")),
        ("the other, row 0", ("1", "9")),
        ("embedding times, row 0", ("1", "100")),
        ("one input, row 2", ("5", "6")),
    ]


def test_a_long_witness_is_told_in_words():
    tokens = array("int64", range(300))
    long = replace(
        LEAK.witnesses[0], tokens=tokens, changed=array("int64", range(1, 301)), scale=array("float32", [1] * 300)
    )
    inputs = inputs_of(LEAK.findings[0], (long,))
    assert inputs is not None
    assert (inputs.lines, inputs.moves) == ((), ())
    assert "300 tokens" in inputs.said


@pytest.mark.parametrize("verdict", [Verdict.OPEN, Verdict.SUSPECT])
def test_only_the_first_finding_that_is_no_leak_is_unfolded(verdict):
    findings = [replace(future_finding("a"), verdict=verdict, message=text) for text in "abc"]
    page = read(render(replace(LEAK, findings=tuple(findings))))
    assert ["open" in entry.attributes for entry in page.find("details", kind="finding")] == [True, False, False]
