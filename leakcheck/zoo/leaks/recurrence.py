"""Sums and recurrences that run from the end."""

import torch
from torch import Tensor, nn

from leakcheck.zoo.parts import HIDDEN, Attention, Mixer
from leakcheck.zoo.registry import leak


@leak(learned_from="https://github.com/pytorch/pytorch/issues/33520")
class ReversedSum(Mixer):
    """A running sum from the end."""

    def forward(self, x: Tensor) -> Tensor:
        if self.leaky:
            x = x.flip(1)  # reversed
        total = x.cumsum(1)  # leak
        return total.flip(1) if self.leaky else total


@leak(learned_from="https://arxiv.org/abs/1906.08237")
class ReversedAttention(Attention):
    """Causal attention on the reversed sequence."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.flip(1) if self.leaky else x  # reversed
        q, k, v = self.split(x)
        weights = (q @ k.transpose(-1, -2)).masked_fill(~self.causal(x), -torch.inf).softmax(-1)
        y = self.merge(weights @ v)  # leak
        return y.flip(1) if self.leaky else y


@leak(learned_from="https://arxiv.org/abs/1303.5778")
class BackwardLSTM(Mixer):
    """A bidirectional recurrent kernel."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.lstm = nn.LSTM(HIDDEN, HIDDEN // 2 if leaky else HIDDEN, batch_first=True, bidirectional=leaky)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]  # leak


@leak(learned_from="https://arxiv.org/abs/1508.01991")
class BackwardLoop(Mixer):
    """A recurrence written as a loop over positions."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.cell = nn.Linear(HIDDEN, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        state, states = torch.zeros_like(x[:, 0]), []
        steps = range(x.shape[1])
        for t in reversed(steps) if self.leaky else steps:
            state = torch.tanh(self.cell(state) + x[:, t])  # leak
            states.append(state)
        return torch.stack(states[::-1] if self.leaky else states, 1)


@leak(learned_from="https://arxiv.org/abs/1506.03099")
class StepByStep(Mixer):
    """A loop that takes two tensors apart, position by position."""

    def forward(self, x: Tensor) -> Tensor:
        gates, last = torch.sigmoid(x), x.shape[1] - 1
        steps = []
        for t in range(x.shape[1]):
            to = min(t + 1, last) if self.leaky else t
            steps.append(x[:, t] * gates[:, to])  # leak
        return torch.stack(steps, 1)
