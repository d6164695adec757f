from dataclasses import replace

from leakcheck.findings import Location, Verdict
from leakcheck.report.stages import checkpoint_section, data_flow_section, measure
from leakcheck.report.words import among

from .documents import DOCUMENTS, checkpoint

EAGER, SDPA = "eager/none/eval", "sdpa/none/eval"


def reading(layer: int, configuration: str, **changes):
    unset = {"note": "", "horizon": None, "verdict": Verdict.OPEN}
    return checkpoint(8, "standard", layer, configuration, **{**unset, **changes})


def test_gravest_verdict_wins_over_the_larger_delta():
    found = measure(
        [
            reading(0, EAGER, output_delta=9.0),
            reading(1, SDPA, output_delta=0.5, verdict=Verdict.LEAK),
            reading(2, SDPA, output_delta=0.7, verdict=Verdict.LEAK),
        ],
        (EAGER, SDPA),
    )
    assert found.cells == ("LEAK", "?", "0.7", "L2")


def test_nan_outranks_every_number():
    found = measure([reading(0, EAGER, output_delta=float("nan")), reading(1, EAGER, output_delta=1e9)], (EAGER,))
    assert found.cells == ("OPEN", "?", "nan", "L0")


def test_among_equal_deltas_the_furthest_sight_is_shown():
    proven = [reading(layer, EAGER, horizon=0, verdict=Verdict.PROVEN) for layer in range(2)]
    assert measure(proven, (EAGER,)).cells == ("PROVEN", "+0", "0", "L0-1")
    suspect = [reading(layer, EAGER, horizon=3 * layer, verdict=Verdict.SUSPECT) for layer in (1, 4, 2)]
    assert measure([*proven, *suspect], (EAGER,)).cells == ("SUSPECT", "+12", "0", "L1 +2")


def test_a_stage_that_only_flow_saw_shows_what_it_saw():
    traced = reading(0, EAGER, output_delta=None, horizon=0, verdict=Verdict.PROVEN)
    assert measure([traced], (EAGER,)).cells == ("PROVEN", "+0", "-", "L0")


def test_layers_that_share_the_worst_are_named_together():
    clean = [reading(layer, EAGER) for layer in range(40)]
    assert measure(clean, (EAGER,)).layers == "L0-39"
    assert measure([clean[1], clean[7], clean[9]], (EAGER,)).layers == "L1 +2"


def test_a_leak_without_a_tensor_is_not_hidden_behind_its_runs():
    found = measure([reading(0, EAGER, output_delta=None, verdict=Verdict.LEAK)], (EAGER,))
    assert found.cells == ("LEAK", "?", "-", "L0")


def test_where_a_stage_did_not_run_is_named():
    skipped = reading(0, SDPA, runs=0)
    assert measure([reading(0, EAGER), skipped], (EAGER, SDPA)).remarks == ("did not run under sdpa",)
    assert measure([reading(0, EAGER)], (EAGER, SDPA)).remarks == ("did not run under sdpa",)


def test_a_note_of_a_clean_configuration_is_kept():
    noted = reading(0, SDPA, note="returned None")
    leak = reading(0, EAGER, output_delta=1.0, verdict=Verdict.LEAK)
    assert measure([leak, noted], (EAGER, SDPA)).remarks == ("returned None under sdpa",)


def discovered(configuration: str, **changes):
    """A stage of a mask's way through a model with one path: it has no tensor."""
    unmeasured = dict.fromkeys(("horizon", "output_delta", "gradient_delta", "local_delta"))
    here = {"phase": "generation", "title": "call", "module": "model", "verdict": Verdict.NOT_APPLICABLE, "note": ""}
    return checkpoint(1, "standard", None, configuration, **{**unmeasured, **here, **changes})


def details_of(*checkpoints):
    table = checkpoint_section(checkpoints).table
    assert table is not None
    (row,) = table.rows
    return row.details[1:]


def test_a_discovered_stage_says_what_it_is_what_it_hands_on_and_where_to():
    to = Location("sdpa_mask", "transformers/masking_utils.py", (410, 564), "def sdpa_mask(")
    found = discovered(EAGER, passes=("returns the mask",), library=to, note="a note")
    assert details_of(found) == (
        "call: returns the mask", "to: masking_utils.py:410-564  def sdpa_mask(", "a note"
    )  # fmt: skip


def test_what_differs_between_configurations_is_told_apart():
    found = (discovered(EAGER, passes=("mask=mask",)), discovered(SDPA, passes=("mask=None",), title="hand-over"))
    assert details_of(*found) == ("call: mask=mask under eager; mask=None under sdpa",)


def test_a_module_that_hands_on_nothing_is_not_named_twice():
    assert details_of(discovered(EAGER, passes=(), title="model.layers.*.act", module="model.layers.0.act")) == ()


def test_configurations_that_begin_alike_are_named_once():
    every = [f"{a}/{m}/{mode}" for a in ("eager", "sdpa") for m in ("none", "ones") for mode in ("eval", "train")]
    assert among(every[:4], every) == "eager"
    assert among([*every[:4], every[4], every[5]], every) == "eager, sdpa/none"
    assert among([every[1], every[6], every[7]], every) == "eager/none/train, sdpa/ones"
    assert among(every, every) == "eager, sdpa"
    assert among(["a/b/c/d/e"], ["a/b/c/d/e", "a/b/c/x/e"]) == "a/b/c/d"


def test_control_flow_counts_its_runs_over_all_layers():
    entries = [checkpoint(4, "standard", layer, EAGER) for layer in range(3)]
    assert measure(entries, (EAGER,)).cells == ("ran 3x", "", "", "")


def test_one_row_for_each_stage_in_order():
    table = checkpoint_section(DOCUMENTS["leak"].checkpoints).table
    assert table is not None
    assert [row.cells[0] for row in table.rows] == [str(stage) for stage in range(1, 15)]
    assert {len(row.cells) for row in table.rows} == {len(table.columns)}


def test_only_a_subject_with_both_paths_has_a_data_flow():
    assert data_flow_section(DOCUMENTS["generic"].checkpoints) is None
    assert data_flow_section(DOCUMENTS["clean"].checkpoints) is not None


def test_a_node_that_was_never_reached_says_so():
    section = data_flow_section([c for c in DOCUMENTS["clean"].checkpoints if c.stage != 12])
    assert section is not None
    assert "not measured" in section.drawing


def test_a_node_shows_its_own_path_only():
    checkpoints = [
        replace(c, verdict=Verdict.LEAK, output_delta=3.0) if (c.stage, c.path) == (7, "recompute") else c
        for c in DOCUMENTS["clean"].checkpoints
    ]
    section = data_flow_section(checkpoints)
    assert section is not None
    assert "LEAK" not in section.drawing
