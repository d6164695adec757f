"""PaLM: attention and feed-forward in parallel, one head of keys."""

from palm_pytorch import PaLM
from torch import nn


def build() -> nn.Module:
    return PaLM(num_tokens=97, dim=32, depth=2, heads=4, dim_head=8)
