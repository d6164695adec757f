"""Memory as context: a network trained while the sequence is read, by gradients inside the forward pass."""

from titans_pytorch import MemoryAsContextTransformer
from torch import nn


def build() -> nn.Module:
    return MemoryAsContextTransformer(
        num_tokens=97,
        dim=32,
        depth=2,
        segment_len=5,
        num_persist_mem_tokens=2,
        num_longterm_mem_tokens=2,
        dim_head=8,
        heads=4,
        use_flex_attn=False,
    )
