"""Retention in its parallel form; the package's own forward returns a loss."""

from torch import Tensor, nn
from yet_another_retnet.retnet import RetNet


class Parallel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = RetNet(97, d_model=32, nhead=4, num_layers=2, dim_feedforward=64, dropout=0.0)

    def forward(self, ids: Tensor) -> Tensor:
        return self.net.forward_parallel(ids)


def build() -> nn.Module:
    return Parallel()
