"""Attention in windows that look one window back."""

from local_attention import LocalTransformer
from torch import nn


def build() -> nn.Module:
    return LocalTransformer(
        num_tokens=97,
        dim=32,
        depth=2,
        max_seq_len=64,
        causal=True,
        local_attn_window_size=4,
        dim_head=8,
        heads=4,
    )
