"""What is discovered of masks in models that nobody wrote a plan for."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    BartConfig,
    BartForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from leakcheck.checkpoints import ModulesPlan, plan_for
from leakcheck.config import Configuration
from leakcheck.lineage.trace import trace
from tests import models
from tests.models import HIDDEN, LLAMA_SIZES, SEQ, VOCAB

EAGER, SDPA, PLAIN = (Configuration(backend, "none", "eval") for backend in ("eager", "sdpa", "default"))
PADDED = Configuration("sdpa", "left-padded", "eval")


def traced(model, configuration=PLAIN, plan=None):
    tokens = torch.randint(VOCAB, (7, SEQ), generator=torch.Generator().manual_seed(0))
    return trace(model, plan or plan_for(model), configuration, tokens)


def rows(lineage, *, phase=None, title=None):
    """The stages of a phase or a title as (function, operation, passes), layers folded, in the order of the table."""
    ordered = sorted(lineage.stages.values(), key=lambda passed: passed.order)
    chosen = [p for p in ordered if phase in (None, p.stage.phase) and title in (None, p.stage.title)]
    return list(dict.fromkeys((p.location.function, p.location.operation, p.passes) for p in chosen))


def notes(lineage):
    return {note for passed in lineage.stages.values() for note in passed.notes}


# --- LLaMA: a mask that is made, a mask of the kernel, a mask that nobody makes ---------------------------------------


@pytest.fixture(scope="module")
def llama():
    return models.llama()


def test_the_way_of_an_eager_mask(llama):
    lineage = traced(llama, EAGER)
    made = [function for function, _, passes in rows(lineage, title="call") if "returns the mask" in passes]
    assert made[0] == "LlamaModel.forward"
    assert {"create_causal_mask", "eager_mask", "sdpa_mask"} <= set(made)
    ((function, operation, (mask,)),) = rows(lineage, title="birth")
    assert (function, operation) == ("causal_mask_function", "return kv_idx <= q_idx")
    assert mask == f"bool [batch x 1x{SEQ}x{SEQ}], blocks 55 of 121 entries with False"
    passes = {p.module: p.passes for p in lineage.stages.values() if p.stage.title.startswith("model.layers")}
    assert passes["model.layers.1"] == ("attention_mask=causal_mask",)
    assert passes["model.layers.1.self_attn"] == ("attention_mask=attention_mask",)
    assert passes["model.layers.1.mlp"] == ()
    ((function, operation, handed),) = rows(lineage, title="hand-over")
    assert function == "LlamaAttention.forward"
    assert "attention_interface(" in operation
    assert handed == ("attention_mask",)
    ((function, operation, _),) = rows(lineage, phase="application")
    assert (function, operation) == ("eager_attention_forward", "attn_weights = attn_weights + attention_mask")


def test_a_hand_over_names_the_function_it_goes_to(llama):
    for configuration, function in ((EAGER, "eager_attention_forward"), (SDPA, "sdpa_attention_forward")):
        targets = [p.library for p in traced(llama, configuration).stages.values() if p.stage.title == "hand-over"]
        assert {target.function for target in targets} == {function}
        assert all(target.operation.startswith(f"def {function}(") for target in targets)


def test_a_stage_is_folded_over_layers(llama):
    stages = traced(llama, EAGER).stages
    applied = {key: passed for key, passed in stages.items() if passed.stage.phase == "application"}
    assert {key[0] for key in applied} == {min(applied)[0]}
    assert [key[2] for key in applied] == [0, 1]
    assert [passed.module for passed in applied.values()] == ["model.layers.0.self_attn", "model.layers.1.self_attn"]


def test_a_mask_that_is_none_and_a_kernel_that_masks_by_itself(llama):
    lineage = traced(llama, SDPA)
    assert rows(lineage, title="birth") == []
    ((function, operation, _),) = rows(lineage, title="no mask is made")
    assert (function, operation) == ("sdpa_mask", "return None")
    assert rows(lineage, phase="generation", title="branch")[0][1].startswith("if allow_is_causal_skip and ")
    ((function, operation, passes),) = rows(lineage, phase="application")
    assert function == "sdpa_attention_forward"
    assert "scaled_dot_product_attention(" in operation
    assert passes == ("is_causal=True",)
    ((_, _, handed),) = rows(lineage, title="hand-over")
    assert handed == ("attention_mask=None",)
    assert {"the kernel masks by is_causal", "the mask is born in the kernel"} <= notes(lineage)
    assert "the mask is None and nothing masks" not in notes(lineage)


def test_a_mask_that_is_none_and_nothing_masks():
    """The mask function believes in `is_causal`; the kernel that runs adds the mask that it is given."""
    model = models.llama()
    model.config._attn_implementation = "sdpa"
    for layer in model.model.layers:
        layer.self_attn.config = type(model.config)(**{**LLAMA_SIZES, "attn_implementation": "eager"})
    lineage = traced(model)
    assert lineage.applications == ()
    assert {"the mask is None and nothing masks", "no mask acts here"} <= notes(lineage)
    (asked,) = (row for row in rows(lineage, phase="distribution") if row[0] == "eager_attention_forward")
    assert asked[1:] == ("if attention_mask is not None:", ("attention_mask=None",))
    assert [origin.is_none for origin in lineage.origins] == [True]


def test_the_callers_padding_is_handed_on_to_the_masking_functions(llama):
    lineage = traced(llama, PADDED)
    handed = {function: passes for function, _, passes in rows(lineage, phase="generation")}
    assert "attention_mask=attention_mask" in handed["LlamaModel.forward"]
    assert {p.library.function for p in lineage.stages.values() if p.stage.title == "hand-over"} >= {
        "prepare_padding_mask", "padding_mask_function", "sdpa_attention_forward"
    }  # fmt: skip
    ((_, _, (mask,)),) = rows(lineage, phase="application")
    assert mask == f"bool [batch x 1x{SEQ}x{SEQ}], blocks 76 of 121 entries with False"


# --- other architectures of the library -------------------------------------------------------------------------------


def gemma2():
    sizes = {**LLAMA_SIZES, "head_dim": 4, "sliding_window": 4}
    return models.seeded(Gemma2ForCausalLM(Gemma2Config(**sizes)))


def bloom():
    return models.seeded(BloomForCausalLM(BloomConfig(vocab_size=VOCAB, hidden_size=HIDDEN, n_layer=2, n_head=4)))


def falcon():
    sizes = {"vocab_size": VOCAB, "hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 4}
    return models.seeded(FalconForCausalLM(FalconConfig(**sizes)))


def bart():
    sizes = {"d_model": HIDDEN, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 24}
    config = BartConfig(vocab_size=VOCAB, is_decoder=True, is_encoder_decoder=False, **sizes)
    return models.seeded(BartForCausalLM(config))


class T5Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        sizes = {"d_model": HIDDEN, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4}
        self.t5 = T5ForConditionalGeneration(T5Config(vocab_size=VOCAB, **sizes))

    def forward(self, input_ids):
        source = torch.ones(len(input_ids), 4, dtype=torch.long)
        return self.t5(input_ids=source, decoder_input_ids=input_ids, use_cache=False).logits


# model, backend, where masks act, and how many of the 121 entries they block
ACTS: dict[str, tuple[Callable, Configuration, str, set[int]]] = {
    "gpt2 eager": (models.gpt2, EAGER, "eager_attention_forward", {55}),
    "mistral sdpa": (models.mistral, SDPA, "sdpa_attention_forward", {55 + 28}),
    "mixtral eager": (models.mixtral, EAGER, "eager_attention_forward", {55}),
    "gemma2 eager": (gemma2, EAGER, "eager_attention_forward", {55, 55 + 28}),
    "bloom": (bloom, PLAIN, "BloomAttention.forward", {55}),
    "falcon": (falcon, PLAIN, "FalconAttention.forward", {55}),
    "bart eager": (bart, EAGER, "eager_attention_forward", {55}),
    "t5": (lambda: models.seeded(T5Decoder()), PLAIN, "sdpa_attention_forward", {4 * 55}),
}


@pytest.mark.parametrize("name", ACTS)
def test_where_masks_act_in_models_of_the_library(name):
    build, configuration, function, blocked = ACTS[name]
    lineage = traced(build(), configuration)
    found = rows(lineage, phase="application")
    assert {where for where, _, _ in found} == {function}
    said = {mask for application in found for mask in application[2]}
    assert {int(mask.partition("blocks ")[2].partition(" ")[0]) for mask in said} == blocked
    assert "never met data in this forward" not in notes(lineage)


def test_two_masks_of_two_kinds_of_layers_are_two_births():
    births = {mask for _, _, passes in rows(traced(gemma2(), EAGER), title="birth") for mask in passes}
    assert {mask.partition("blocks ")[2].partition(" ")[0] for mask in births} == {"55", "28"}


def test_alibi_and_learned_positions_are_no_masks():
    for model in (bloom(), models.gpt2(), models.seeded(T5Decoder())):
        files = {origin.location.file for origin in traced(model).origins if not origin.is_none}
        assert files <= {"transformers/masking_utils.py", "transformers/integrations/sdpa_attention.py"}


def test_a_model_without_a_mask_says_so():
    lineage = traced(models.mamba())
    assert lineage.origins == ()
    assert lineage.applications == ()
    assert "no mask was found" in notes(lineage)


# --- models of one's own ----------------------------------------------------------------------------------------------


class OwnAttention(nn.Module):
    """Attention with a triangle in a buffer, as many small GPTs have it."""

    def __init__(self, *, forgets: bool):
        super().__init__()
        self.qkv = nn.Linear(HIDDEN, 3 * HIDDEN)
        self.forgets = forgets
        self.register_buffer("triangle", torch.tril(torch.ones(32, 32)))

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        seq = x.shape[1]
        allowed = self.triangle[:seq, :seq]
        return self.attend(q, k, v, None if self.forgets else allowed)

    def attend(self, q, k, v, allowed):
        scores = q @ k.mT
        if allowed is not None:
            scores = scores.masked_fill(allowed == 0, -torch.inf)
        return scores.softmax(-1) @ v


def test_a_buffer_is_born_where_it_is_registered_and_acts_where_it_is_applied():
    lineage = traced(models.toy(OwnAttention(forgets=False)))
    ((function, operation, (mask,)),) = rows(lineage, title="birth")
    assert function == "OwnAttention.__init__"
    assert operation == 'self.register_buffer("triangle", torch.tril(torch.ones(32, 32)))'
    assert mask == "float32 [32x32], blocks 496 of 1024 entries with 0"
    ((_, _, handed),) = rows(lineage, title="hand-over")
    assert handed == ("allowed",)
    ((function, operation, _),) = rows(lineage, phase="application")
    assert (function, operation) == (
        "OwnAttention.attend", "scores = scores.masked_fill(allowed == 0, -torch.inf)"
    )  # fmt: skip


def test_a_mask_that_is_not_handed_on_is_born_and_never_acts():
    lineage = traced(models.toy(OwnAttention(forgets=True)))
    (birth,) = (p for p in lineage.stages.values() if p.stage.title == "birth")
    assert birth.notes == ["never met data in this forward"]
    assert rows(lineage, phase="application") == []
    assert [origin.acts for origin in lineage.origins] == [False]
    assert "a mask is made and none acts" in notes(lineage)


def test_each_way_of_a_fused_kernel_to_mask():
    def attention(**options):
        return lambda x: F.scaled_dot_product_attention(x, x, x, **options)

    allowed = torch.ones(SEQ, SEQ, dtype=torch.bool).tril()
    for options, passes in (
        ({"is_causal": True}, "is_causal=True"),
        ({"attn_mask": allowed}, f"bool [{SEQ}x{SEQ}], blocks 55 of 121 entries with False"),
    ):
        ((_, _, said),) = rows(traced(models.toy(attention(**options))), phase="application")
        assert said == (passes,)
    assert rows(traced(models.toy(attention())), phase="application") == []


# --- Method1_v3: what is discovered contains the 14 stages of its plan ------------------------------------------------

CONFIGURATIONS = [EAGER, SDPA, PADDED, Configuration("eager", "ones", "train+checkpointing")]


@pytest.mark.parametrize("materialised", [True, False], ids=["method1_v3", "as published"])
@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=lambda c: c.id)
def test_discovery_contains_every_stage_of_the_named_plan(materialised, configuration):
    model = models.method1(materialize_causal_mask=materialised)
    planned = traced(model, configuration)
    found = traced(model, configuration, ModulesPlan(model))
    places = {(p.location.function, p.location.operation, p.location.lines) for p in found.stages.values()}
    handed: dict[tuple, set[str]] = {}
    for p in found.stages.values():
        handed.setdefault((p.location.file, p.location.lines), set()).update(p.passes)
    ran = {key: passed for key, passed in planned.stages.items() if passed.runs}
    assert {key[0] for key in ran} == set(range(1, 15)) - (
        {12} if configuration is SDPA and not materialised else set()
    )
    for (number, _, _), p in ran.items():
        assert (p.location.function, p.location.operation, p.location.lines) in places, number
        if 5 <= number <= 10:
            assert set(p.passes) <= handed[p.location.file, p.location.lines], number
    # Where the mask acts, the plan's way and discovery's are one.
    acting = {a.location for a in found.applications}
    assert {a.location for a in planned.applications} == acting
