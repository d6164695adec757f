"""FLASH: quadratic attention within groups, linear attention between them."""

from flash_pytorch import FLASHTransformer
from torch import nn


def build() -> nn.Module:
    return FLASHTransformer(num_tokens=97, dim=32, depth=2, causal=True, group_size=4, query_key_dim=16)
