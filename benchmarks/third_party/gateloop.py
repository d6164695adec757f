"""Gated linear recurrence as an associative scan, under reentrant gradient checkpointing in every layer."""

from gateloop_transformer import Transformer
from torch import nn


def build() -> nn.Module:
    return Transformer(32, num_tokens=97, depth=2, dim_head=8, heads=4)
