"""Two reports against each other: each way to be worse or better alone, and what must not count."""

import random
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from leakcheck.errors import UsageError
from leakcheck.findings import AuditResult, ClaimVerdict, Finding, FullSize, Verdict
from leakcheck.report import json
from leakcheck.report.comparison import Comparison, Way, compare
from leakcheck.report.comparison_page import page
from leakcheck.report.terminal import print_page

from .documents import DOCUMENTS, checkpoint, configuration, end_of_proof, large

REPORTS = Path(__file__).parents[2] / "reports"
CLEAN, LEAK = DOCUMENTS["clean"], DOCUMENTS["leak"]
ID = CLEAN.configurations[0].id
CELL = CLEAN.configurations[0].attention, CLEAN.configurations[0].mask, CLEAN.configurations[0].mode


def printed(comparison: Comparison, width: int = 100) -> str:
    output = StringIO()
    print_page(page(comparison, "old.json", "new.json"), Console(width=width, file=output, color_system=None))
    return output.getvalue()


def reconfigured(**changes) -> AuditResult:
    first, *others = CLEAN.configurations
    return replace(CLEAN, configurations=(replace(first, **changes), *others))


def restaged(**changes) -> AuditResult:
    """The clean audit with one stage of layer 1 measured in another way."""
    entry = next(c for c in CLEAN.checkpoints if c.stage == 8 and c.layer == 1 and c.path == "standard")
    others = [c for c in CLEAN.checkpoints if c is not entry]
    return replace(CLEAN, checkpoints=(*others, replace(entry, **changes)))


def found(*findings: Finding) -> AuditResult:
    return replace(CLEAN, findings=findings)


def soft(**changes) -> Finding:
    return replace(end_of_proof("LC202", 31, "soft mask"), configuration=ID, fingerprint="f", **changes)


def refuted(**changes) -> AuditResult:
    return replace(CLEAN, conclusions=(replace(CLEAN.conclusions[0], **changes), *CLEAN.conclusions[1:]))


FULL = replace(CLEAN, subject=replace(CLEAN.subject, full_size=FullSize(10**9, 4096)))
SUSPECTED = replace(soft(), verdict=Verdict.SUSPECT)

# What is worse by itself; the other way round it is better.
WORSE: dict[str, tuple[AuditResult, AuditResult]] = {
    "the audit's verdict": (CLEAN, replace(CLEAN, verdict=Verdict.OPEN)),
    "a configuration leaks": (CLEAN, reconfigured(verdict=Verdict.LEAK)),
    "a configuration is suspected": (reconfigured(verdict=Verdict.OPEN), reconfigured(verdict=Verdict.SUSPECT)),
    "a policy's verdict": (CLEAN, reconfigured(policies={"causal": Verdict.OPEN})),
    "a path's verdict": (CLEAN, reconfigured(paths={"standard": Verdict.SUSPECT})),
    "a claim is refuted": (refuted(verdict=ClaimVerdict.HOLDS), refuted(verdict=ClaimVerdict.REFUTED)),
    "a claim is open": (refuted(verdict=ClaimVerdict.HOLDS), refuted(verdict=ClaimVerdict.OPEN)),
    "a safety check": (
        CLEAN,
        replace(CLEAN, safety_checks=(*CLEAN.safety_checks[:2], LEAK.safety_checks[2])),
    ),
    "a control is missed": (
        CLEAN,
        replace(CLEAN, controls=(replace(CLEAN.controls[0], caught=False), CLEAN.controls[1])),
    ),
    "a stage sees further": (CLEAN, restaged(horizon=3)),
    "a stage's proof has a hole": (CLEAN, restaged(horizon=None)),
    "a stage leaks where it was contaminated": (
        restaged(verdict=Verdict.CONTAMINATED, horizon=12),
        restaged(verdict=Verdict.LEAK, horizon=12),
    ),
    "a new finding": (CLEAN, found(soft())),
    "a finding becomes graver": (found(soft()), found(SUSPECTED)),
    "a finding in one more configuration": (
        found(soft()),
        found(soft(), replace(soft(), configuration=CLEAN.configurations[1].id)),
    ),
    "a finding once more in the same configuration": (found(soft()), found(soft(), soft())),
    "a configuration is gone": (CLEAN, replace(CLEAN, configurations=CLEAN.configurations[1:])),
    "a configuration could not be judged": (CLEAN, reconfigured(verdict=Verdict.NOT_APPLICABLE)),
    "a policy is not asked any more": (reconfigured(policies={"causal": Verdict.PROVEN, "batch": Verdict.OPEN}), CLEAN),
    "a claim is gone": (CLEAN, replace(CLEAN, conclusions=CLEAN.conclusions[1:])),
    "fewer pairs are covered": (CLEAN, reconfigured(pairs_covered=60)),
    "a shorter length is proven": (FULL, CLEAN),
}  # fmt: skip


@pytest.mark.parametrize("name", WORSE)
def test_one_thing_that_is_worse(name):
    old, new = WORSE[name]
    comparison = compare(old, new)
    assert comparison.way is Way.WORSE
    changes = [*comparison.findings, *comparison.verdicts, *comparison.stages]
    assert [change.way for change in changes if change.way is not Way.SAME] == [Way.WORSE]
    assert "\nWORSE" in printed(comparison)
    assert printed(comparison).rstrip().endswith("exit 1")


@pytest.mark.parametrize("name", WORSE)
def test_the_other_way_round_it_is_better(name):
    new, old = WORSE[name]
    comparison = compare(old, new)
    assert comparison.way is Way.BETTER
    assert "\nBETTER" in printed(comparison)
    assert printed(comparison).rstrip().endswith("exit 0")


def test_what_is_worse_is_not_outweighed():
    old, new = replace(CLEAN, findings=(soft(),)), reconfigured(verdict=Verdict.LEAK)
    comparison = compare(old, new)
    assert {change.way for change in (*comparison.findings, *comparison.verdicts)} == {Way.BETTER, Way.WORSE}
    assert comparison.way is Way.WORSE


@pytest.mark.parametrize("name", [*DOCUMENTS, "large"])
def test_equal_reports_are_unchanged(name):
    """NaN differs from itself, and must not here."""
    document = large(2) if name == "large" else DOCUMENTS[name]
    comparison = compare(*(json.read(json.render(document)) for _ in range(2)))
    assert comparison.way is Way.SAME
    assert (comparison.verdicts, comparison.stages, comparison.differences) == ((), (), ())
    assert {f.state for f in comparison.findings} <= {"unchanged"}
    assert "UNCHANGED" in printed(comparison)


def test_deltas_alone_change_nothing():
    moved = replace(
        LEAK,
        configurations=tuple(replace(c, output_delta=float("nan")) for c in LEAK.configurations),
        checkpoints=tuple(replace(c, output_delta=c.output_delta and 7.0) for c in LEAK.checkpoints),
        findings=tuple(replace(f, witness={"delta": 7.0}) for f in LEAK.findings),
    )
    assert compare(LEAK, moved).way is Way.SAME


def test_lines_that_moved_change_nothing():
    moved = replace(
        LEAK,
        checkpoints=tuple(replace(c, lines=(c.lines[0] + 9, c.lines[1] + 9)) for c in LEAK.checkpoints),
        findings=tuple(replace(f, line=999) for f in LEAK.findings),
    )
    assert compare(LEAK, moved).way is Way.SAME


def test_a_stage_that_is_inserted_moves_no_other():
    old = DOCUMENTS["generic"]
    inserted = tuple(replace(c, stage=c.stage + (c.stage > 3)) for c in old.checkpoints)
    extra = replace(old.checkpoints[0], stage=4, module="backbone.new")
    comparison = compare(old, replace(old, checkpoints=(*inserted, extra)))
    assert comparison.way is Way.SAME
    assert comparison.stages_alone == (0, 1)
    assert "Measured now only, so not compared: 1 stage." in printed(comparison)


def test_a_layer_that_is_inserted_is_no_change_of_the_others():
    old = DOCUMENTS["generic"]
    fewer = replace(old, checkpoints=tuple(c for c in old.checkpoints if c.layer != 39))
    assert compare(fewer, old).way is Way.SAME


def test_a_stage_that_hands_on_twice_is_told_apart_by_its_order():
    first, second = (replace(checkpoint(6, "standard", 0, ID), stage=stage) for stage in (6, 7))
    worse = replace(second, horizon=2)
    comparison = compare(replace(CLEAN, checkpoints=(first, second)), replace(CLEAN, checkpoints=(worse, first)))
    assert [(s.old, s.new) for s in comparison.stages] == [(second, worse)]
    assert comparison.stages_compared == 2


def test_a_stage_that_does_not_run_any_more_is_told_and_not_compared():
    idle = restaged(verdict=Verdict.NOT_APPLICABLE, horizon=None, runs=0)
    comparison = compare(CLEAN, idle)
    assert (comparison.way, comparison.stages_alone) == (Way.SAME, (1, 0))
    assert "Measured then only, so not compared: 1 stage." in printed(comparison)


def test_a_longer_input_alone_makes_no_horizon_worse():
    shorter = restaged(verdict=Verdict.LEAK, horizon=12)
    longer = restaged(verdict=Verdict.LEAK, horizon=40)
    longer = replace(longer, subject=replace(longer.subject, seq_len=41))
    assert compare(shorter, longer).stages == ()
    assert compare(longer, shorter).stages == ()
    assert len(compare(restaged(verdict=Verdict.LEAK, horizon=3), longer).stages) == 1


def test_what_is_asked_for_the_first_time():
    """To look is better, to find a leak is worse; not to look any more is worse, whatever was found."""
    for verdict, way in ((Verdict.PROVEN, Way.BETTER), (Verdict.OPEN, Way.BETTER), (Verdict.LEAK, Way.WORSE)):
        asked = reconfigured(policies={"causal": Verdict.PROVEN, "batch": verdict})
        assert compare(CLEAN, asked).way is way
        assert compare(asked, CLEAN).way is Way.WORSE


def test_a_finding_spreads_only_where_one_looked_before():
    one, other = CLEAN.configurations[:2]
    both = found(soft(), replace(soft(), configuration=other.id))
    only_one = replace(found(soft()), configurations=(one, *CLEAN.configurations[2:]))
    for old, new in ((only_one, both), (both, only_one)):
        (change,) = compare(old, new).findings
        assert (change.way, change.state, change.note) == (Way.SAME, "unchanged", "")
    (change,) = compare(found(soft()), both).findings
    assert (change.way, change.note) == (Way.WORSE, f"now also under {other.id}")


def test_findings_that_nobody_looked_for_are_not_fixed():
    batch = {"causal": Verdict.PROVEN, "batch": Verdict.LEAK}
    old = replace(reconfigured(policies=batch), findings=(replace(soft(), policy="batch"),))
    comparison = compare(old, CLEAN)
    assert [f.state for f in comparison.findings] == ["unseen"]
    assert comparison.way is Way.WORSE
    assert "found then, not looked for now" in printed(comparison)


def test_a_leak_that_is_left_out_is_no_improvement():
    clean = tuple(c for c in LEAK.configurations if c.verdict is Verdict.PROVEN)
    comparison = compare(LEAK, replace(CLEAN, subject=LEAK.subject, configurations=clean))
    assert [f.state for f in comparison.findings] == ["unseen"]
    assert {c.way for c in comparison.verdicts if c.of == "configuration"} == {Way.WORSE}


def test_a_configuration_that_raises_now():
    old = replace(DOCUMENTS["crash"], findings=DOCUMENTS["crash"].findings[:1])
    old = replace(old, configurations=(*old.configurations, configuration("default", "ones", "eval")))
    comparison = compare(old, DOCUMENTS["crash"])
    assert [(f.state, f.finding.code) for f in comparison.findings] == [("unchanged", "LC201"), ("new", "LC904")]
    assert [(v.of, v.where, v.new) for v in comparison.verdicts] == [("configuration", "default/ones/eval", "absent")]
    assert [(f.state, f.finding.code) for f in compare(DOCUMENTS["crash"], old).findings] == [
        ("unchanged", "LC201"), ("fixed", "LC904")
    ]  # fmt: skip


def test_a_finding_that_bears_no_sign_is_neither_worse_nor_better():
    harmless = found(replace(soft(), code="LC103", verdict=Verdict.PROVEN))
    assert compare(CLEAN, harmless).way is Way.SAME
    assert compare(harmless, CLEAN).way is Way.SAME


def test_reports_from_before_fingerprints_are_compared_by_code_policy_and_module():
    old = replace(LEAK, findings=tuple(replace(f, fingerprint="", operation="", line=3) for f in LEAK.findings))
    assert {f.state for f in compare(old, LEAK).findings} == {"unchanged"}
    elsewhere = replace(old, findings=tuple(replace(f, module="model.layers.1.self_attn") for f in old.findings))
    assert {f.state for f in compare(elsewhere, LEAK).findings} == {"new", "fixed"}


def test_different_subjects_are_compared_all_the_same():
    renamed = replace(
        LEAK,
        subject=replace(LEAK.subject, spec="elsewhere.py"),
        findings=tuple(replace(f, fingerprint=f"{f.fingerprint[::-1]}") for f in LEAK.findings),
    )
    comparison = compare(LEAK, renamed)
    assert comparison.way is Way.SAME
    assert printed(comparison, 200).startswith(
        "Different subjects, compared all the same: method1_v3_as_published in old.json, now elsewhere.py in new.json\n"
    )


def test_other_versions_are_told_and_decide_nothing():
    newer = {**CLEAN.environment, "torch": "2.14.0", "seconds": 99.0}
    comparison = compare(CLEAN, replace(CLEAN, environment=newer, tool=replace(CLEAN.tool, version="0.2.0")))
    assert comparison.differences == (("leakcheck", "0.1.0", "0.2.0"), ("torch", "2.13.0", "2.14.0"))
    assert comparison.way is Way.SAME


def shuffled(document: AuditResult, seed: int) -> AuditResult:
    def mixed(entries: tuple) -> tuple:
        return tuple(random.Random(seed).sample(entries, len(entries)))

    lists = ("configurations", "checkpoints", "safety_checks", "conclusions", "findings", "controls")
    return replace(document, **{name: mixed(getattr(document, name)) for name in lists})


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_entries_makes_no_difference(seed):
    expected = printed(compare(CLEAN, LEAK))
    assert printed(compare(shuffled(CLEAN, seed), shuffled(LEAK, seed + 9))) == expected


def test_findings_of_one_place_are_in_the_same_order_in_every_process():
    several = [soft(operation=f"aten::{letter}") for letter in "hbdfacge"]
    new = found(*(replace(f, fingerprint=f.operation) for f in several))
    order = [f.finding.operation for f in compare(CLEAN, new).findings]
    assert order == sorted(order)


@pytest.mark.parametrize("other", sorted(DOCUMENTS))
def test_hostile_names_are_printed_as_they_are(other):
    for pair in ((DOCUMENTS["hostile"], DOCUMENTS[other]), (DOCUMENTS[other], DOCUMENTS["hostile"])):
        text = printed(compare(*pair), 80)
        assert all(c == "\n" or c.isprintable() for c in text)
        assert max(cell_len(line) for line in text.splitlines()) <= 80


def test_looks_like_this(snapshot_of):
    assert printed(compare(CLEAN, LEAK)) == snapshot_of("txt")


PUBLISHED = ("method1_v3.json", "method1_v3_as_published.json")


def test_the_committed_reports_of_the_fix():
    fixed, published = (json.load(REPORTS / name) for name in PUBLISHED)
    worse, better = compare(fixed, published), compare(published, fixed)
    assert (worse.way, better.way) == (Way.WORSE, Way.BETTER)
    assert {(f.state, f.finding.code) for f in worse.findings} == {("new", c) for c in ("LC101", "LC201", "LC501")}
    assert {f.state for f in better.findings} == {"fixed"}
    leaking = {c.id for c in published.configurations if c.verdict is Verdict.LEAK}
    assert {v.where for v in worse.verdicts if v.of == "configuration"} == leaking
    assert {f.where for f in worse.findings} == {tuple(sorted(leaking))}
    assert all(stage.new.horizon and not stage.old.horizon for stage in worse.stages)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"\xff\xfe", "can't decode"),
        (b'{"schema_version": "2.0"}', "schema_version '2.0'"),
        (b'{"schema_version": "1.0"}', "Field required"),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(content, message, tmp_path):
    path = tmp_path / "report.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError) as refused:
        json.load(path)
    assert message in str(refused.value)
    assert str(path) in str(refused.value)
    assert "leakcheck run --report" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_is_no_report(tmp_path):
    with pytest.raises(UsageError, match="Is a directory"):
        json.load(tmp_path)
