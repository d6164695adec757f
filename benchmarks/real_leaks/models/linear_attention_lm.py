"""Linear attention, `causal=True`."""

from linear_attention_transformer import LinearAttentionTransformerLM
from torch import nn


def build() -> nn.Module:
    return LinearAttentionTransformerLM(
        num_tokens=97, dim=32, heads=4, depth=2, max_seq_len=64, causal=True, blindspot_size=1
    )
