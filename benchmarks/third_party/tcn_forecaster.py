"""Dilated causal convolutions over `[batch, channels, time]`, for forecasts."""

from pytorch_tcn import TCN
from torch import nn


def build() -> nn.Module:
    return TCN(num_inputs=5, num_channels=[16, 16, 8], kernel_size=3, dilations=[1, 2, 4], dropout=0.0)
