"""Attention to the own bucket and to one of the past, which an attention over buckets chooses; `causal=True`."""

from sinkhorn_transformer import SinkhornTransformerLM
from torch import nn


def build() -> nn.Module:
    return SinkhornTransformerLM(
        num_tokens=97, dim=32, max_seq_len=16, depth=2, heads=4, buckets=4, causal=True, attn_sort_net=True
    )
