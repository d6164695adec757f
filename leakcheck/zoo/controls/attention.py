"""Attention that is causal, though it does not look like it."""

import torch
from torch import Tensor

from leakcheck.zoo.parts import Attention
from leakcheck.zoo.registry import control


@control(learned_from="https://github.com/pytorch/pytorch/issues/103749")
class FirstRowFullyMasked(Attention):
    """A strictly causal mask leaves the first query without a key; its weights are then set to zero."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        visible = self.causal(x, diagonal=-1)
        weights = (q @ k.transpose(-1, -2)).masked_fill(~visible, -torch.inf).softmax(-1)
        weights = weights.masked_fill(~visible, 0)
        return self.merge(weights @ v)
