"""Jamba: Mamba and attention in turn, each second layer with experts."""

from mambapy.jamba import JambaLM, JambaLMConfig
from torch import nn


def build() -> nn.Module:
    config = JambaLMConfig(
        vocab_size=97,
        d_model=32,
        n_layers=4,
        mlp_size=48,
        d_state=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        attn_layer_offset=1,
        attn_layer_period=2,
        num_experts=4,
        num_experts_per_tok=2,
        expert_layer_offset=1,
        expert_layer_period=2,
    )
    return JambaLM(config)
