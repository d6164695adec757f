"""The streaming encoder of an audio codec: waveform in, one frame for four samples out."""

from moshi.modules.seanet import SEANetEncoder
from torch import nn


def build() -> nn.Module:
    return SEANetEncoder(
        channels=1, dimension=16, n_filters=4, n_residual_layers=1, ratios=[2, 2], causal=True, pad_mode="constant"
    )
