"""FLASH's gated attention unit, `causal=True`."""

from flash_pytorch import GAU
from torch import nn


def build() -> nn.Module:
    return GAU(dim=32, query_key_dim=16, causal=True)
