"""Native sparse attention."""

from native_sparse_attention_pytorch import SparseAttention
from torch import nn


def build() -> nn.Module:
    return SparseAttention(
        dim=32, dim_head=8, heads=4, sliding_window_size=2, compress_block_size=4, selection_block_size=4,
        num_selected_blocks=2,
    )  # fmt: skip
