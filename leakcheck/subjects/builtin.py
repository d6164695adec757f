"""The built-in models: Method1_v3 as audited and as published, and LLaMA of the same sizes as their control."""

from typing import Any

from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from leakcheck.subjects.method1_v3 import Method1Config_v3, Method1LlamaForCausalLM_v3

_SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def build_builtin(name: str) -> PreTrainedModel:
    """The built-in model of this name; `names.BUILTIN` lists them.

    Raises:
        KeyError: there is none of this name.
    """
    return {
        "method1_v3": _method1_v3,
        "method1_v3_as_published": _method1_v3_as_published,
        "llama": _llama,
    }[name]()


def _method1_v3() -> PreTrainedModel:
    return Method1LlamaForCausalLM_v3(Method1Config_v3(materialize_causal_mask=True, **_SIZES))


def _method1_v3_as_published() -> PreTrainedModel:
    return Method1LlamaForCausalLM_v3(Method1Config_v3(materialize_causal_mask=False, **_SIZES))


def _llama() -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**_SIZES))
