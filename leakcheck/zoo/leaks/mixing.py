"""Matrices over time that are not zero above the diagonal."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakcheck.zoo.parts import HIDDEN, LENGTH, Attention, Mixer
from leakcheck.zoo.registry import leak


@leak(learned_from="https://arxiv.org/abs/2105.01601")
class SequenceMixer(Mixer):
    """A linear layer along the sequence, as in an MLP mixer."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.weight = nn.Parameter(torch.randn(LENGTH, LENGTH))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight[: x.shape[1], : x.shape[1]]
        weight = weight if self.leaky else weight.tril()
        mixed = x.transpose(1, 2) @ weight.T  # leak
        return mixed.transpose(1, 2)


@leak(learned_from="https://arxiv.org/abs/2105.03824")
class ConstantMixer(Mixer):
    """A constant matrix over time with three diagonals too many."""

    def forward(self, x: Tensor) -> Tensor:
        matrix = torch.ones(x.shape[1], x.shape[1], dtype=x.dtype).tril(3 * self.leaky)
        return matrix @ x  # leak


@leak(learned_from="https://arxiv.org/abs/2006.16236")
class LinearAttention(Attention):
    """Without softmax the keys and values can be summed up first; causally that takes a running sum."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        if not self.leaky:
            running = torch.einsum("bhtd,bhte->bhtde", k, v).cumsum(2)
            return self.merge(torch.einsum("bhtd,bhtde->bhte", q, running))
        state = k.transpose(-1, -2) @ v  # leak
        return self.merge(q @ state)


@leak(learned_from="https://arxiv.org/abs/2305.07185")
class Chunked(Mixer):
    """Sums inside chunks of four, the last one padded."""

    def forward(self, x: Tensor) -> Tensor:
        batch, seq, _ = x.shape
        chunks = F.pad(x, (0, 0, 0, -seq % 4)).view(batch, -1, 4, HIDDEN)
        if self.leaky:
            mixed = torch.einsum("bcih,ij->bcjh", chunks, torch.ones(4, 4, dtype=x.dtype))  # leak
        else:
            mixed = chunks.cumsum(2)
        return mixed.reshape(batch, -1, HIDDEN)[:, :seq]
