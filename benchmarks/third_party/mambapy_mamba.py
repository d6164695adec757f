"""Mamba without a language head: features in, features out."""

from mambapy.mamba import Mamba, MambaConfig
from torch import nn


def build() -> nn.Module:
    return Mamba(MambaConfig(d_model=32, n_layers=2, d_state=8))
