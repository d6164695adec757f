"""Attention of each window to the tokens that a router chooses from the windows before it."""

from colt5_attention.transformer_block import ConditionalRoutedAutoregressiveAttention
from torch import nn


def build() -> nn.Module:
    return ConditionalRoutedAutoregressiveAttention(
        dim=32, num_heavy_tokens_q=2, num_heavy_tokens_kv=2, light_dim_head=8, light_heads=4, light_window_size=4,
        heavy_window_size=4, heavy_dim_head=8, heavy_heads=4,
    )  # fmt: skip
