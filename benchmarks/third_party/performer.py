"""Linear attention with random features (FAVOR+), `causal=True`."""

from performer_pytorch import PerformerLM
from torch import nn


def build() -> nn.Module:
    return PerformerLM(num_tokens=97, max_seq_len=64, dim=32, depth=2, heads=4, dim_head=8, causal=True)
