"""Moving averages computed by FFT, and attention."""

from mega_pytorch import Mega
from torch import nn


def build() -> nn.Module:
    return Mega(dim=32, num_tokens=97, depth=2, ema_heads=4, attn_dim_qk=16, attn_dim_value=32)
