"""Models that are correct under the contract that they were made for, and under no stricter one."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakcheck.config import Contract
from leakcheck.zoo.parts import HIDDEN, Attention, Mixer
from leakcheck.zoo.registry import control

PREFIX, AHEAD, WINDOW = 4, 2, 4


@control(learned_from="https://arxiv.org/abs/1910.10683", contract=Contract(prefix=PREFIX))
class PrefixSeenByAll(Attention):
    """All see the whole of a prefix of fixed length, and what comes before them (prefix language model)."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        seen = self.causal(x) | (torch.arange(x.shape[1]) < PREFIX)
        return self.merge(F.scaled_dot_product_attention(q, k, v, attn_mask=seen))


@control(learned_from="https://arxiv.org/abs/1512.02595", contract=Contract(lookahead=AHEAD))
class FewStepsAhead(Mixer):
    """A streaming convolution waits for two frames before it answers."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.conv = nn.Conv1d(HIDDEN, HIDDEN, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.mT).mT


@control(learned_from="https://arxiv.org/abs/2010.10759", contract=Contract(lookahead=3))
class ChunkSeesItself(Attention):
    """Chunks of four see themselves and the past: the first of a chunk looks three ahead (streaming encoder)."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        chunk = torch.arange(x.shape[1]) // 4
        scores = (q @ k.mT).masked_fill(chunk > chunk[:, None], -torch.inf)
        return self.merge(scores.softmax(-1) @ v)


@control(learned_from="https://arxiv.org/abs/2310.06825", contract=Contract(window=WINDOW))
class OneWindow(Attention):
    """A single layer of attention to four positions, its own among them."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        band = self.causal(x) & ~self.causal(x, -WINDOW)
        return self.merge(F.scaled_dot_product_attention(q, k, v, attn_mask=band))


@control(learned_from="https://arxiv.org/abs/1609.03499", contract=Contract(window=5))
class WindowsAddUp(Mixer):
    """Two convolutions of three taps each reach five positions back, their own among them."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.layers = nn.ModuleList(nn.Conv1d(HIDDEN, HIDDEN, 3) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = x.mT
        for layer in self.layers:
            y = torch.tanh(layer(F.pad(y, (2, 0))))
        return y.mT


@control(learned_from="https://arxiv.org/abs/1810.04805", contract=Contract(bidirectional=True))
class SeesBothWays(Attention):
    """An encoder: every position is to see later ones, and does."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        return self.merge(F.scaled_dot_product_attention(q, k, v))


@control(learned_from="https://arxiv.org/abs/1303.5778", contract=Contract(bidirectional=True))
class RunsBothWays(Mixer):
    """A bidirectional recurrence, as in a tagger."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.lstm = nn.LSTM(HIDDEN, HIDDEN // 2, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]
