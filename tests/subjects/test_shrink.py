"""Real architectures, made small: they build, run, and keep what makes each of them special."""

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig

from leakcheck.subjects.lengths import derive_seq_len
from leakcheck.subjects.shrink import shrink
from leakcheck.subjects.subject import logits_of

ARCHITECTURES = [
    "llama",
    "mistral",
    "gemma2",
    "gemma3_text",
    "gemma3n_text",
    "gemma4_text",
    "qwen2",
    "qwen3",
    "qwen2_moe",
    "qwen3_next",
    "mixtral",
    "gpt2",
    "gpt_neo",
    "gpt_neox",
    "gpt_oss",
    "gptj",
    "opt",
    "bloom",
    "falcon",
    "falcon_h1",
    "phi3",
    "mamba",
    "mamba2",
    "jamba",
    "zamba2",
    "bamba",
    "granitemoehybrid",
    "nemotron_h",
    "recurrent_gemma",
    "rwkv",
    "xlstm",
    "llama4_text",
    "olmo2",
    "deepseek_v3",
    "kimi_linear",
    "lfm2",
    "mpt",
    "cohere2",
    "minimax",
    "method1-v3",
]


def default(model_type: str) -> PreTrainedConfig:
    return CONFIG_MAPPING[model_type]()


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_small_model_runs(model_type):
    config = shrink(default(model_type))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    length = derive_seq_len(config, model)
    with torch.no_grad():
        output = model(torch.randint(3, 97, (2, length)), use_cache=False)
    assert logits_of(output).shape == (2, length, 97)
    assert sum(parameter.numel() for parameter in model.parameters()) < 1_000_000
    assert length == 13


@pytest.mark.parametrize(
    ("model_type", "heads"), [("llama", (4, 4)), ("mistral", (4, 2)), ("gemma2", (4, 2)), ("qwen2", (4, 4))]
)
def test_shared_heads_stay_shared(model_type, heads):
    config = shrink(default(model_type))
    assert (config.num_attention_heads, config.num_key_value_heads) == heads


def test_every_kind_of_layer_is_kept():
    # Five sliding layers, then a full one: the first three alone would lose the full attention.
    config = shrink(default("gemma3_text"))
    assert config.layer_types == ["sliding_attention", "sliding_attention", "full_attention"]
    assert config.num_hidden_layers == 3
    config = shrink(default("nemotron_h"))
    assert set(config.layers_block_type) == set(default("nemotron_h").layers_block_type)
    assert config.num_hidden_layers == len(config.layers_block_type)


def test_lists_by_layer_stay_aligned():
    config = shrink(default("llama4_text"))
    assert len(config.layer_types) == len(config.no_rope_layers) == 3
    assert [kind == "full_attention" for kind in config.layer_types] == [not rope for rope in config.no_rope_layers]
    assert config.moe_layers == [0, 1, 2]


def test_windows_chunks_and_kernels():
    assert shrink(default("mistral")).sliding_window == 4
    assert shrink(CONFIG_MAPPING["mistral"](sliding_window=None)).sliding_window is None
    assert shrink(default("llama4_text")).attention_chunk_size == 4
    assert shrink(default("mamba2")).chunk_size == 4
    assert shrink(default("lfm2")).conv_L_cache == 3  # small already
    assert shrink(default("llama")).chunk_size_feed_forward == 0  # not a chunk of the sequence


def test_rotary_factors_fit_the_head():
    factors = {"rope_type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48, "factor": 32.0}
    config = shrink(CONFIG_MAPPING["phi3"](rope_parameters=factors, original_max_position_embeddings=4096))
    assert config.rope_parameters["short_factor"] == [1.0] * 4
    assert config.rope_parameters["long_factor"] == [2.0] * 4


def test_other_fields_are_kept():
    config = shrink(CONFIG_MAPPING["llama"](attention_bias=True, rms_norm_eps=0.25, tie_word_embeddings=True))
    assert (config.attention_bias, config.rms_norm_eps, config.tie_word_embeddings) == (True, 0.25, True)
    assert not hasattr(config, "sliding_window")


def test_computed_fields_are_computed_anew():
    class OldStyleConfig(PreTrainedConfig):
        model_type = "old-style"

        def __init__(self, n_embd=512, n_head=8, block_size=1024, **kwargs):
            self.width_of_everything = 3 * n_embd
            super().__init__(**kwargs)  # sets whatever else it is given
            self.n_embd, self.n_head, self.block_size = n_embd, n_head, block_size

    config = shrink(OldStyleConfig(tie_word_embeddings=False))
    assert (config.n_embd, config.n_head, config.width_of_everything) == (32, 4, 96)
    assert config.block_size == 64  # its only limit, not the size of an attention block
    assert config.tie_word_embeddings is False


def test_the_given_configuration_is_left_alone():
    config = default("gemma3_text")
    before = config.to_dict()
    shrink(config)
    assert config.to_dict() == before
