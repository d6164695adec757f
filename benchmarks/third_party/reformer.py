"""Attention within buckets of a hash, sorted; reversible layers."""

from reformer_pytorch import ReformerLM
from torch import nn


def build() -> nn.Module:
    return ReformerLM(num_tokens=97, dim=32, depth=2, max_seq_len=64, heads=4, bucket_size=4, n_hashes=2, causal=True)
