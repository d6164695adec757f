"""A small model of any causal-LM architecture that transformers has, from its name alone."""

import copy
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from leakcheck.subjects.library import IN_FLOAT32, PreTrainedConfig
from leakcheck.subjects.shrink import shrink
from leakcheck.subjects.subject import randomise

# Fields, at toy size, of types whose default configuration describes no model that can be built or run.
_LAYERS = ["full_attention", "sliding_attention", "full_attention"]
_DOTS3_TEXT: dict[str, Any] = {"per_layer_config": {2: {"head_dim": 16}}}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_INDEXER = {
    "indexer_n_heads": 4,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 8,
    "indexer_budget": 4,
    "indexer_compress_ratio": 2,
}
TOY: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},  # else the cache has no attention layer to ask for its length
    "blt": {"use_cache": False},  # no cache fits its three stacks of layers
    "cohere_compass_text": {
        "layer_types": _LAYERS,
        "rope_parameters": {"full_attention": None, "sliding_attention": {**_ROPE, "mrope_section": [2, 1, 1]}},
    },
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2, "clip_qkv": 8.0}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "dots3_note": _DOTS3_TEXT,
    "dots3_note_text": _DOTS3_TEXT,
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention", "linear_attention"]},
    "hrm_text": {"num_layers_per_stack": 1, "num_hidden_layers": 8},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8, "num_experts": 4, "moe_topk": 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"]},
    "ministral": {"head_dim": 8},
    "musicgen": {"num_codebooks": 1},  # several are rows of the batch that depend on each other
    "musicgen_melody": {"num_codebooks": 1},
    "nemotron": {"num_key_value_heads": 2},
    "qwen4_exp": _INDEXER,
    "qwen4_exp_text": _INDEXER,
    "reformer": {"axial_pos_embds_dim": [8, 24], "axial_pos_shape": [8, 8], "num_buckets": 2},
    "xlstm": {"hidden_size": 64, "embedding_dim": 64, "qk_dim_factor": 1.0},  # its cache wants multiples of 64
    "xmod": {"default_language": "en_XX"},
    "zamba": {"num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid"] * 2},
}


def names() -> list[str]:
    """The model types that `AutoModelForCausalLM` can build, sorted."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def configuration(model_type: str, **fields: Any) -> PreTrainedConfig:
    """The small configuration of a model type, with these fields as they are given: a decoder where it has the choice.

    Raises:
        Exception: whatever the configuration raises.
    """
    config, _ = _of(model_type)
    if hasattr(config, "is_decoder"):
        config.is_decoder = True
    return shrink(config, **{**copy.deepcopy(TOY.get(model_type, {})), **fields})


def build(model_type: str, seed: int = 0, **fields: Any) -> PreTrainedModel:
    """A small model in eval mode of the `configuration`, with weights so that every path carries signal.

    Raises:
        Exception: whatever the configuration or the model raises.
    """
    _, model_class = _of(model_type)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class._from_config(configuration(model_type, **fields), **IN_FLOAT32).eval()
    randomise(model, seed)
    return model


def _of(model_type: str) -> tuple[PreTrainedConfig, Any]:
    """The default configuration of a causal LM, and its class."""
    config = AutoConfig.for_model(model_type)
    model_class: Any = AutoModelForCausalLM._model_mapping[type(config)]
    part = next((c for c in vars(config).values() if type(c) is model_class.config_class), None)
    if type(config) is not model_class.config_class and part is not None:
        config = part  # the causal LM is a part of what the type names
    return config, model_class
