"""Attention within exact windows of the past, between projections."""

from local_attention import LocalAttention
from torch import Tensor, nn


class Windowed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(32, 96)
        self.attention = LocalAttention(window_size=4, causal=True, exact_windowsize=True, autopad=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(*self.qkv(x).chunk(3, dim=-1))


def build() -> nn.Module:
    return Windowed()
