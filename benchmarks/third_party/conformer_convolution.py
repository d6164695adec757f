"""The causal convolution module of the Conformer, over features; without the batch norm of the other one."""

from conformer import ConformerConvModule
from torch import nn


def build() -> nn.Module:
    return ConformerConvModule(dim=32, causal=True, expansion_factor=2, kernel_size=7)
