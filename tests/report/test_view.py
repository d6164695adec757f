from dataclasses import replace

import pytest

from leakcheck.findings import Verdict
from leakcheck.report import view
from leakcheck.report.words import number, shortened, visible

from .documents import DOCUMENTS, configuration, end_of_proof, future_finding


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0"),
        (-0.0, "0"),
        (4.5, "4.5"),
        (2.4123e-07, "2.4e-07"),
        (123.4, "123"),
        (5e7, "5e+07"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
    ],
)
def test_number(value, text):
    assert number(value) == text


def test_visible_spells_out_what_a_terminal_would_obey():
    assert visible("a\x1b[31m\tb\nc\u202e\udc80") == r"a\x1b[31m\tb c\u202e\udc80"


def test_a_long_operation_is_cropped_at_its_end():
    assert shortened("x  =\n   y") == "x = y"
    assert len(shortened("x" * 61)) == 60


def headline(*configurations, **changes):
    verdict = changes.pop("verdict", Verdict.OPEN)
    return view.headline(replace(DOCUMENTS["clean"], configurations=configurations, verdict=verdict, **changes))


def test_headline_of_a_proof_says_what_it_reaches():
    assert view.headline(DOCUMENTS["clean"]) == (
        "PROVEN: no past output depends on a future token. Proven in 12 configurations, for all token sequences and "
        "all weights of these shapes, for each mask and 13 positions."
    )


def test_a_proof_that_rests_on_a_soft_mask_says_so():
    soft = replace(DOCUMENTS["clean"], findings=(end_of_proof("LC202", 3, "soft mask"),))
    assert view.headline(soft).endswith("It holds as long as scores stay above the soft masks (LC202).")


def test_headline_of_a_clean_measurement_names_where_the_proof_ends():
    text = headline(configuration("eager", "none", "eval"), findings=(end_of_proof("LC801", 3, "an op"),))
    assert text.endswith("The proof ends at LC801, mixer.py:3.")


def test_headline_of_a_clean_measurement():
    assert view.headline(replace(DOCUMENTS["clean"], verdict=Verdict.OPEN)) == (
        "OPEN: measured clean, not proven. No change of a future token moved any past output in 12 configurations; "
        "each covers 78 of 78 (past, future) position pairs."
    )


def test_headline_names_what_is_left_of_rounding():
    text = headline(configuration("eager", "none", "eval", output_delta=2e-6))
    assert "moved any past output beyond rounding (at most 2e-06) in 1 configuration;" in text


def test_headline_adds_up_coverage_that_differs():
    text = headline(configuration("a", "none", "eval"), configuration("b", "none", "eval", pairs_covered=60))
    assert "together they cover 138 of 156" in text


def test_headline_of_a_leak_names_the_worst_configuration_and_the_place():
    leaks = configuration("sdpa", "none", "eval", 4.5), configuration("eager", "none", "eval", 0.1)
    clean = configuration("eager", "ones", "eval")
    text = headline(*leaks, clean, verdict=Verdict.LEAK, findings=(future_finding("sdpa/none/eval"),))
    assert "by 4.5 under sdpa/none/eval; 2 of 3 configurations leak. See LC201 at modeling_llama.py:208." in text


def test_configurations_that_do_not_apply_are_not_counted_as_clean():
    unmeasured = configuration("sdpa", "none", "eval", verdict=Verdict.NOT_APPLICABLE, pairs_covered=0)
    assert "in 1 configuration;" in headline(configuration("eager", "none", "eval"), unmeasured)


def test_headline_of_a_missed_control_does_not_call_the_measurement_clean():
    text = view.headline(DOCUMENTS["generic"])
    assert "clean" not in text
    assert "planted leak: next token added to the embedding" in text


def test_findings_that_differ_in_the_configuration_only_become_one():
    first, second = future_finding("a"), future_finding("b")
    other = replace(first, line=99)
    table = view.finding_section((first, other, second), 24).table
    assert table is not None
    assert [row.details[0] for row in table.rows] == ["causal, 2 configurations: a, b", "causal, 1 configuration: a"]


def test_sections_without_data_are_left_out():
    assert view.sections(DOCUMENTS["empty"]) == []
    assert [section.title for section in view.sections(DOCUMENTS["leak"])] == [
        "Configurations",
        "Checkpoints",
        "Statistics",
        "Safety checks",
        "Ablation",
        "Fidelity",
        "Conclusions",
        "Data flow",
        "Findings",
        "Controls",
    ]


def test_ablation_rows_of_one_configuration_follow_each_other():
    rows = DOCUMENTS["leak"].ablation
    configurations = list(dict.fromkeys(row.configuration for row in rows))
    alternating = sorted(rows, key=lambda row: list(row.checks.values()))
    assert [row.configuration for row in alternating[:2]] != [alternating[0].configuration] * 2
    table = view.ablation_section(alternating).table
    assert table is not None
    assert [row.group for row in table.rows] == [c for c in configurations for _ in range(8)]
