"""Statistics over time: means, deviations and norms that count later positions in."""

import torch
from torch import Tensor, nn

from leakcheck.zoo.parts import HEADS, HIDDEN, Mixer
from leakcheck.zoo.registry import leak


@leak(learned_from="https://arxiv.org/abs/2405.03133")
class MeanPooled(Mixer):
    """The mean over time is taken off."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.leaky:
            return x - x.mean(-1, keepdim=True)
        pooled = x.mean(1, keepdim=True)  # leak
        return x - pooled


@leak(learned_from="https://arxiv.org/abs/1805.09843", blind=("gradient",))
class Overwritten(Mixer):
    """What was read is no longer there when the forward ends."""

    def forward(self, x: Tensor) -> Tensor:
        held = x.clone()
        held[:, 0] = 0
        level = held.amax(dim=1 if self.leaky else 2, keepdim=True)  # leak
        held[:, 1:].zero_()
        return x * level


@leak(learned_from="https://arxiv.org/abs/1709.01507")
class SummedGate(Mixer):
    """A gate from a sum over the sequence: many ops lie between the sum and the next tensor with positions."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.gate = nn.Linear(HIDDEN, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        total = x.sum(dim=1) if self.leaky else x[:, 0]  # leak
        gate = torch.sigmoid(self.gate(total))
        return x * gate[:, None]


@leak(learned_from="https://arxiv.org/abs/1607.08022")
class Standardised(Mixer):
    """Features are divided by their deviation over time."""

    def forward(self, x: Tensor) -> Tensor:
        spread = x.std(dim=1 if self.leaky else 2, keepdim=True)  # leak
        return x / spread


@leak(learned_from="https://arxiv.org/abs/1502.03167", mode="train", blind=("gradient",))
class BatchNorm(Mixer):
    """Batch norm in train mode takes its statistics over batch and time."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.norm = nn.BatchNorm1d(HIDDEN)

    def train(self, mode: bool = True) -> "BatchNorm":
        super().train(mode)
        self.norm.train(mode and self.leaky)
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)  # leak


@leak(learned_from="https://arxiv.org/abs/1803.08494")
class GroupNorm(Mixer):
    """Group norm of `[batch, hidden, seq]` takes its statistics over time as well."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.norm = nn.GroupNorm(HEADS, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        if not self.leaky:
            return self.norm(x.flatten(0, 1)).view(x.shape)
        return self.norm(x.transpose(1, 2)).transpose(1, 2)  # leak


@leak(learned_from="https://arxiv.org/abs/1607.06450", blind=("gradient",))
class Renormed(Mixer):
    """An op that is run as its parts."""

    def forward(self, x: Tensor) -> Tensor:
        return x.renorm(2, 2, 1.0) if self.leaky else x.clamp(-1, 1)  # leak
