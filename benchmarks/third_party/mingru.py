"""minLSTM with causal convolutions, run as a scan in log space."""

from minGRU_pytorch.minLM import minLM
from torch import nn


def build() -> nn.Module:
    return minLM(num_tokens=97, dim=32, depth=2, use_lstm=True, enable_conv=True)
