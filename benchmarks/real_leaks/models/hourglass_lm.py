"""A language model whose middle layers run at a third of the length; attention between the two lengths."""

from hourglass_transformer_pytorch import HourglassTransformerLM
from torch import nn


def build() -> nn.Module:
    return HourglassTransformerLM(
        num_tokens=97, dim=32, max_seq_len=64, heads=4, dim_head=8, shorten_factor=3, depth=(1, 1, 1)
    )
