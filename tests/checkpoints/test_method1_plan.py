"""The 14 stages, found in the running code: where they are, what their source says, and that each can be run again."""

import linecache
from collections import Counter
from itertools import pairwise

import pytest
import torch

from leakcheck.checkpoints import ModulesPlan, plan_for, source
from leakcheck.checkpoints.axes import Axes
from leakcheck.checkpoints.method1_v3 import STAGES, Method1Plan
from leakcheck.checkpoints.recorder import record
from leakcheck.config import Configuration
from leakcheck.lineage.trace import trace
from leakcheck.subjects import running
from tests import models
from tests.models import SEQ, VOCAB

BATCH = 7
LAYERS = 3

# stage -> the function that it stands in, and what its source says
SAYS = {
    1: ("Method1LlamaModel_v3.forward", "self._update_causal_mask("),
    2: ("Method1LlamaModel_v3._update_causal_mask", "create_causal_mask("),
    3: ("Method1LlamaModel_v3.forward", "for layer_idx, decoder_layer in enumerate(self.layers):"),
    4: ("Method1LlamaModel_v3.forward", "if layer_idx > 0:"),
    5: ("Method1LlamaModel_v3.forward", "decoder_layer("),
    6: ("Method1DecoderLayer_v3.forward", "self.self_attn("),
    7: ("Method1LlamaAttention_v3.forward", "super().forward("),
    8: ("LlamaAttention.forward", "attention_interface("),
    9: ("Method1LlamaModel_v3.forward", "self._recompute_previous_mlp_outputs("),
    10: ("Method1LlamaModel_v3._recompute_previous_mlp_outputs", ".forward_with_precomputed_weights("),
    11: (
        "Method1LlamaAttention_v3.forward_with_precomputed_weights",
        "if apply_strict_causal_mask and attention_mask is not None:",
    ),
    12: ("Method1LlamaAttention_v3.forward_with_precomputed_weights", "trimmed_attn_weights + causal_mask"),
    13: ("Method1LlamaModel_v3.forward", "hidden_states = layer_outputs[0]"),
    14: ("Method1LlamaModel_v3.forward", "stored_weights.append(current_weights)"),
}

EVERY_LAYER, REPLAYING = range(LAYERS), range(1, LAYERS)
PLACES = {
    **{(stage, path): [None] for stage in (1, 2, 3, 4) for path in ("standard", "recompute")},
    **{(stage, path): EVERY_LAYER for stage in (5, 6, 7, 8) for path in ("standard", "recompute")},
    **{(stage, "recompute"): REPLAYING for stage in (9, 10, 11, 12)},
    (13, "standard"): [0],
    (13, "recompute"): REPLAYING,
    (14, "recompute"): EVERY_LAYER,
}

CONFIGURATIONS = [
    Configuration("eager", "none", "eval"),
    Configuration("sdpa", "left-padded", "eval"),
    Configuration("eager", "ones", "train+checkpointing"),
]


def tokens() -> torch.Tensor:
    return torch.randint(VOCAB, (BATCH, SEQ), generator=torch.Generator().manual_seed(0))


def readings_of(model, configuration=CONFIGURATIONS[0]):
    plan = Method1Plan(model)
    with torch.no_grad(), running.configured(model, configuration):
        _, recording = record(lambda: running.forward(model, tokens(), configuration), **plan.watch())
        return plan.readings(recording, Axes(BATCH, SEQ))


def stages_of(model, configuration=CONFIGURATIONS[0]):
    return trace(model, Method1Plan(model), configuration, tokens()).stages


@pytest.fixture(scope="module")
def model():
    return models.method1()


def test_there_are_14_stages_in_5_phases():
    assert [stage.number for stage in STAGES] == list(range(1, 15))
    assert list(Counter(stage.phase for stage in STAGES).items()) == [
        ("generation", 2), ("distribution", 2), ("standard", 4), ("recompute", 4), ("merge", 2)
    ]  # fmt: skip


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=lambda c: c.id)
def test_every_stage_is_found_on_its_paths_and_in_its_layers(model, configuration):
    expected = {(stage, path, layer) for (stage, path), layers in PLACES.items() for layer in layers}
    assert set(stages_of(model, configuration)) == expected


def test_every_line_says_what_its_stage_says(model):
    for (stage, _, _), passed in stages_of(model).items():
        function, text = SAYS[stage]
        first, last = passed.location.lines
        path = passed.code.co_filename
        lines = " ".join(" ".join(linecache.getline(path, n).strip() for n in range(first, last + 1)).split())
        assert text in lines
        assert text in passed.location.operation
        assert lines.startswith(passed.location.operation)
        assert passed.location.function == function
        assert path.endswith(passed.location.file)
        assert passed.location.file.endswith("modeling_llama.py" if stage == 8 else "modeling_method1_v3.py")


def test_under_checkpointing_the_replay_is_handed_over_by_another_line(model):
    plain, checkpointed = (
        stages_of(model, c)[9, "recompute", 1].location for c in (CONFIGURATIONS[0], CONFIGURATIONS[2])
    )
    assert "self._gradient_checkpointing_func( self._recompute_previous_mlp_outputs" in checkpointed.operation
    assert checkpointed.lines != plain.lines


def test_the_library_lines_are_those_that_make_and_apply_the_mask(model):
    stages = stages_of(model)
    made = stages[2, "standard", None].library
    assert made.file == "transformers/masking_utils.py"
    assert "min_dtype" in made.operation
    for layer in EVERY_LAYER:
        applied = stages[8, "standard", layer].library
        assert (applied.file, applied.function) == (
            "transformers/models/llama/modeling_llama.py", "eager_attention_forward"
        )  # fmt: skip
        assert "attn_weights + attention_mask" in applied.operation


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_control_flow_stages_count_their_runs_per_path(layers):
    stages = stages_of(models.method1(num_hidden_layers=layers))
    runs = {key[:2]: passed.runs for key, passed in stages.items() if key[0] in (3, 4)}
    assert runs == {
        (3, "standard"): layers,
        (3, "recompute"): layers - 1,
        (4, "standard"): 1,
        (4, "recompute"): layers - 1,
    }


def test_a_stage_of_the_replay_runs_once_for_each_earlier_layer(model):
    stages = stages_of(model)
    for stage in (10, 11, 12):
        assert [stages[stage, "recompute", layer].runs for layer in REPLAYING] == [1, 2]
    assert [stages[9, "recompute", layer].runs for layer in REPLAYING] == [1, 1]


def test_without_a_mask_the_remask_does_not_run():
    model = models.method1(materialize_causal_mask=False)
    stages = stages_of(model, Configuration("sdpa", "none", "eval"))
    assert [stages[12, "recompute", layer].runs for layer in REPLAYING] == [0, 0]
    assert [stages[11, "recompute", layer].runs for layer in REPLAYING] == [1, 2]


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=lambda c: c.id)
def test_every_reading_runs_again_bit_for_bit(model, configuration):
    plan = Method1Plan(model)
    replayed = 0
    with torch.no_grad(), running.configured(model, configuration):
        _, recording = record(lambda: running.forward(model, tokens(), configuration), **plan.watch())
        for reading in plan.readings(recording, Axes(BATCH, SEQ)):
            if reading.run is None:
                assert reading.tensors == ()
                continue
            again = tuple(reading.replay(reading.inputs))
            assert len(again) == len(reading.tensors)
            assert all(torch.equal(a, b) for a, b in zip(again, reading.tensors, strict=True)), reading.key
            replayed += bool(reading.tensors)
    assert replayed > 40


def test_readings_of_the_paths_are_hidden_states_or_weights(model):
    for reading in readings_of(model):
        shapes = {tuple(t.shape[1:]) for t in reading.tensors}
        if 5 <= reading.stage.number <= 7 or reading.stage.number in (9, 10, 11, 13):
            hidden = reading.path == "standard" or reading.stage.number > 8
            assert shapes == ({(SEQ, models.HIDDEN)} if hidden else {(4, SEQ, SEQ)}), reading.key
        if reading.stage.number in (12, 14):
            assert shapes == {(4, SEQ, SEQ)}, reading.key


def test_replays_name_the_layer_whose_weights_they_use(model):
    replays = [(r.layer, r.replayed_layer) for r in readings_of(model) if r.stage.number == 11]
    assert replays == [(1, 0), (2, 0), (2, 1)]


def test_stages_of_one_layer_enclose_one_another_in_order(model):
    chain = [r for r in readings_of(model) if r.path == "standard" and r.layer == 1 and 5 <= r.stage.number <= 8]
    chain.sort(key=lambda r: r.stage.number)
    for outer, inner in pairwise(chain):
        assert outer.encloses(inner)
        assert not inner.encloses(outer)


def test_line_numbers_are_live(tmp_path):
    copies = []
    for name, head in (("plain", ""), ("shifted", "# one\n# two\n# three\n")):
        folder = tmp_path / name
        folder.mkdir()
        copies.append(stages_of(models.method1_copy(folder, head=head)))
    plain, shifted = copies
    assert plain.keys() == shifted.keys()
    for key, before in plain.items():
        after = shifted[key]
        shift = 0 if key[0] == 8 else 3  # stage 8 is in the library
        assert after.location.lines == tuple(line + shift for line in before.location.lines)
        assert (after.location.function, after.location.operation) == (
            before.location.function, before.location.operation
        )  # fmt: skip
        assert (after.passes, after.runs, after.library) == (before.passes, before.runs, before.library)


def test_a_file_that_was_edited_and_loaded_again_is_read_again(tmp_path):
    before = stages_of(models.method1_copy(tmp_path))
    after = stages_of(models.method1_copy(tmp_path, head="# one\n# two\n# three\n"))
    for key, passed in before.items():
        shift = 0 if key[0] == 8 else 3
        assert after[key].location.lines == tuple(line + shift for line in passed.location.lines)
        assert after[key].location.operation == passed.location.operation


def test_the_plan_fits_whatever_has_the_replay():
    assert isinstance(plan_for(models.method1()), Method1Plan)
    assert isinstance(plan_for(models.llama()), ModulesPlan)


def test_the_modules_plan_folds_layers_and_locates_calls():
    model = models.llama()
    plan = ModulesPlan(model)
    with torch.no_grad():
        _, recording = record(lambda: model(tokens(), use_cache=False), **plan.watch())
    readings = [r for r in plan.readings(recording, Axes(BATCH, SEQ)) if r.tensors]
    mlps = [r for r in readings if r.stage.title == "model.layers.*.mlp"]
    assert [(r.module, r.layer, r.stage.phase) for r in mlps] == [
        ("model.layers.0.mlp", 0, "layers"), ("model.layers.1.mlp", 1, "layers")
    ]  # fmt: skip
    assert "self.mlp(" in source.locate(mlps[0].code, mlps[0].node).operation
    with torch.no_grad():
        for reading in readings:
            assert all(torch.equal(a, b) for a, b in zip(reading.replay(reading.inputs), reading.tensors, strict=True))
