"""Tokens are pooled in pairs, shifted so that no pair knows its last token, and unpooled."""

from hourglass_transformer_pytorch import HourglassTransformerLM
from torch import nn


def build() -> nn.Module:
    return HourglassTransformerLM(
        num_tokens=97, dim=32, max_seq_len=64, heads=4, dim_head=8, shorten_factor=2, depth=(1, 1, 1)
    )
