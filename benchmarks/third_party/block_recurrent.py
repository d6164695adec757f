"""Windowed attention beside a recurrent state."""

from block_recurrent_transformer_pytorch import BlockRecurrentTransformer
from torch import nn


def build() -> nn.Module:
    return BlockRecurrentTransformer(
        num_tokens=97,
        dim=32,
        depth=2,
        dim_head=8,
        heads=4,
        max_seq_len=64,
        block_width=4,
        num_state_vectors=4,
        recurrent_layers=(2,),
        use_flash_attn=False,
    )
