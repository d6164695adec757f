"""Gated MLPs with learned, masked mixing of positions. The package starts it at zero, so all weights are drawn."""

from g_mlp_gpt import gMLPGPT
from torch import nn


def build() -> nn.Module:
    net = gMLPGPT(num_tokens=97, dim=32, depth=2, seq_len=64, window=(4, 8))
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    return net
