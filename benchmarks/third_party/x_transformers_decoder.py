"""A decoder with ALiBi, grouped keys, talking heads, shifted tokens, normalised queries and memory tokens."""

from torch import nn
from x_transformers import Decoder, TransformerWrapper


def build() -> nn.Module:
    layers = Decoder(
        dim=32,
        depth=2,
        heads=4,
        attn_dim_head=8,
        attn_kv_heads=2,
        alibi_pos_bias=True,
        alibi_num_heads=2,
        attn_pre_talking_heads=True,
        attn_qk_norm=True,
        shift_tokens=1,
        sandwich_norm=True,
        ff_glu=True,
    )
    return TransformerWrapper(num_tokens=97, max_seq_len=64, num_memory_tokens=3, attn_layers=layers)
