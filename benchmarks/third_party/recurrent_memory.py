"""A segment with memory tokens before and after it."""

from recurrent_memory_transformer_pytorch import RecurrentMemoryTransformer
from torch import nn


def build() -> nn.Module:
    return RecurrentMemoryTransformer(
        num_tokens=97, num_memory_tokens=3, dim=32, depth=2, causal=True, dim_head=8, heads=4, seq_len=64
    )
