"""Two hierarchies, the coarser one of convolutions over four tokens."""

from simple_hierarchical_transformer import HierarchicalTransformer
from torch import nn


def build() -> nn.Module:
    return HierarchicalTransformer(
        num_tokens=97,
        dim=32,
        depth=2,
        seq_len=64,
        dim_head=8,
        heads=4,
        hierarchies=(1, 4),
        window_sizes=(8, None),
        use_flash_attn=False,
    )
