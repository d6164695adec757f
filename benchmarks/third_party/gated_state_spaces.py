"""Diagonal state spaces as a long convolution, computed by FFT."""

from gated_state_spaces_pytorch import GatedStateSpacesLM
from torch import nn


def build() -> nn.Module:
    return GatedStateSpacesLM(num_tokens=97, dim=32, depth=2, dss_kernel_N=16, dss_kernel_H=16)
