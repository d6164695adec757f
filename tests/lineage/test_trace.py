"""What the lineage says about Method1_v3: who passes the mask, where it was made, where it acts, how deep."""

import pytest
import torch

from leakcheck.checkpoints import plan_for
from leakcheck.config import Configuration
from leakcheck.lineage.statistics import nodes_holding, statistics
from leakcheck.lineage.trace import trace
from tests import models
from tests.models import SEQ, VOCAB

EAGER = Configuration("eager", "none", "eval")
SDPA = Configuration("sdpa", "none", "eval")


def traced(model, configuration=EAGER):
    tokens = torch.randint(VOCAB, (7, SEQ), generator=torch.Generator().manual_seed(0))
    return trace(model, plan_for(model), configuration, tokens)


@pytest.fixture(scope="module")
def clean():
    return models.method1()


@pytest.fixture(scope="module")
def published():
    return models.method1(materialize_causal_mask=False)


def test_passes_name_the_argument_and_the_expression_that_is_the_mask(clean):
    stages = traced(clean).stages
    passes = {key[0]: passed.passes for key, passed in stages.items() if key[1] == "recompute" and key[2] in (None, 2)}
    assert passes == {
        1: ("attention_mask=None",),  # the mask of the caller: there is none
        2: ("returns the mask",),
        3: (),
        4: (),
        5: ("attention_mask=causal_mask",),
        6: ("attention_mask=attention_mask",),
        7: ("attention_mask=attention_mask",),
        8: ("attention_mask",),  # positional in the call of the kernel
        9: ("attention_mask",),
        10: ("attention_mask=attention_mask",),
        11: ("attention_mask=attention_mask",),
        12: ("attention_mask",),
        13: (),
        14: (),
    }


def test_passes_of_none(published):
    stages = traced(published, SDPA).stages
    for stage in (5, 6, 7, 8):
        assert stages[stage, "standard", 1].passes == ("attention_mask=None",)
    assert stages[10, "recompute", 1].passes == ("attention_mask=None",)
    assert stages[2, "standard", None].notes == ["returned None"]
    assert stages[8, "standard", 0].notes == ["no mask acts here"]


@pytest.mark.parametrize("which", ["clean", "published"])
def test_the_callers_mask_is_passed_to_the_generation_and_no_further(which, request):
    stages = traced(request.getfixturevalue(which), Configuration("sdpa", "ones", "eval")).stages
    assert stages[1, "standard", None].passes == ("attention_mask",)
    assert stages[5, "standard", 0].passes == (
        ("attention_mask=causal_mask",) if which == "clean" else ("attention_mask=None",)
    )


def test_none_is_traced_to_the_line_of_the_library_that_returns_it(published):
    (origin,) = traced(published, SDPA).origins
    assert origin.is_none
    assert origin.mask == "None"
    assert origin.location.operation == "return None"
    assert origin.location.file == "transformers/masking_utils.py"
    files = [step.excerpt.file for step in origin.chain]
    assert files[0].endswith("modeling_method1_v3.py")
    assert set(files[1:]) == {"transformers/masking_utils.py"}
    assert "create_causal_mask" in origin.chain[1].module


@pytest.mark.parametrize("configuration", [EAGER, Configuration("eager", "left-padded", "eval")], ids=lambda c: c.id)
@pytest.mark.parametrize("which", ["clean", "published"])
def test_a_mask_is_traced_to_the_op_that_made_it(which, configuration, request):
    (origin,) = traced(request.getfixturevalue(which), configuration).origins
    assert not origin.is_none
    assert origin.location.file == "transformers/masking_utils.py"
    assert "torch.where(" in origin.location.operation
    assert origin.mask.startswith(f"float32 [batch x 1x{SEQ}x{SEQ}], blocks ")


def test_under_sdpa_the_subject_makes_its_additive_mask_itself(clean):
    (origin,) = traced(clean, SDPA).origins
    assert origin.location.function == "Method1LlamaModel_v3._update_causal_mask"
    assert "masked_fill" in origin.location.operation


@pytest.mark.parametrize("mask", ["none", "ones"])
def test_the_mask_blocks_the_upper_triangle(clean, mask):
    (origin,) = traced(clean, Configuration("eager", mask, "eval")).origins
    assert f"blocks {SEQ * (SEQ - 1) // 2} of {SEQ * SEQ} entries with -3.4e+38" in origin.mask


def test_left_padding_blocks_two_columns_too(clean):
    (origin,) = traced(clean, Configuration("eager", "left-padded", "eval")).origins
    upper = SEQ * (SEQ - 1) // 2
    # column 0 has 11 rows at or below the diagonal, column 1 has 10
    assert f"blocks {upper + SEQ + SEQ - 1} of {SEQ * SEQ}" in origin.mask


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_mask_acts_once_a_layer_and_once_a_replay(layers):
    lineage = traced(models.method1(num_hidden_layers=layers))
    replays = layers * (layers - 1) // 2
    assert len(lineage.standard_applications) == layers
    assert len(lineage.recompute_applications) == replays
    assert lineage.length_checks == replays
    for application in lineage.standard_applications:
        assert "attn_weights + attention_mask" in application.location.operation
    for application in lineage.recompute_applications:
        assert "trimmed_attn_weights + causal_mask" in application.location.operation


def test_without_a_mask_nothing_acts(published):
    lineage = traced(published, SDPA)
    assert lineage.standard_applications == lineage.recompute_applications == ()
    assert lineage.length_checks == 0


def test_a_mask_from_elsewhere_is_named(tmp_path, clean):
    assert traced(clean).foreign_masks == ()
    own = models.method1_copy(
        tmp_path, ("attention_mask=causal_mask,", "attention_mask=torch.triu(torch.full((1, 1, 11, 11), -1e9), 1),")
    )
    foreign = traced(own).foreign_masks
    assert foreign
    assert all(text.startswith("attention_mask at ") for text in foreign)
    assert any("modeling_copy.py" in text for text in foreign)


def test_a_derived_mask_is_not_foreign(tmp_path):
    derived = models.method1_copy(
        tmp_path, ("attention_mask=causal_mask,", "attention_mask=causal_mask[:, :, :, :].clone(),")
    )
    lineage = traced(derived)
    assert lineage.foreign_masks == ()
    assert lineage.stages[5, "standard", 0].passes == ("attention_mask=causal_mask[:, :, :, :].clone()",)
    assert len(lineage.standard_applications) == 3


ACTED = {"S1": 3, "S2": 3, "S3": 3}


def test_statistics_by_hand(clean):
    """Standard: model forward, layer, attention, parent class, kernel = 5 functions deep; the mask is held at stages
    2, 5, 6, 7, 8. Recompute: model forward, replay, fixed method = 3 deep; held at 2, 9, 10, 11, 12. Checks: S1 on the
    standard path, S2 and S3 on the other.
    """
    lineage = traced(clean)
    counted = statistics(lineage, ACTED)
    assert nodes_holding(lineage, "standard") == {2, 5, 6, 7, 8}
    assert nodes_holding(lineage, "recompute") == {2, 9, 10, 11, 12}
    measured = {path: (s.call_depth, s.nodes, s.safety_checks) for path, s in counted.items()}
    assert measured == {"standard": (5, 5, 1), "recompute": (3, 5, 2), "total": (None, 10, 3)}
    claimed = {path: (s.claimed_call_depth, s.claimed_nodes, s.claimed_safety_checks) for path, s in counted.items()}
    assert claimed == {"standard": (4, 5, 1), "recompute": (6, 7, 2), "total": (None, 12, 3)}


def test_statistics_without_a_mask_count_no_nodes(published):
    """The functions are called as deep as before; they hold nothing and check nothing."""
    counted = statistics(traced(published, SDPA), {"S1": 0, "S2": 0, "S3": 0})
    measured = {path: (s.call_depth, s.nodes, s.safety_checks) for path, s in counted.items()}
    assert measured == {"standard": (5, 0, 0), "recompute": (3, 0, 0), "total": (None, 0, 0)}


def test_statistics_of_one_layer_have_no_replay():
    """The mask is still made for both paths, by stage 2."""
    counted = statistics(traced(models.method1(num_hidden_layers=1)), {"S1": 1, "S2": 0, "S3": 0})
    assert (counted["recompute"].call_depth, counted["recompute"].safety_checks) == (None, 0)
    assert counted["standard"].nodes == 5


def test_a_trace_leaves_mode_and_backend_as_they_were(clean):
    traced(clean, Configuration("sdpa", "ones", "train"))
    assert not clean.training
    assert not torch.is_inference_mode_enabled()
    assert clean.config._attn_implementation == "sdpa"


def test_of_other_models_the_origin_is_where_the_mask_was_born():
    (origin,) = traced(models.llama()).origins
    assert (origin.location.file, origin.is_none, origin.acts) == ("transformers/masking_utils.py", False, True)
    assert origin.location.operation == "return kv_idx <= q_idx"
