"""A transformer over patches of four tokens, and one within each patch."""

from MEGABYTE_pytorch import MEGABYTE
from torch import nn


def build() -> nn.Module:
    return MEGABYTE(
        num_tokens=97, dim=(32, 32), depth=(2, 1), max_seq_len=(16, 4), dim_head=8, heads=4, flash_attn=False
    )
