"""Convolutions over time whose kernel reaches beyond its own position."""

import torch.nn.functional as F
from torch import Tensor, nn

from leakcheck.zoo.parts import HIDDEN, Mixer
from leakcheck.zoo.registry import leak


@leak(learned_from="https://github.com/maxim5/time-series-machine-learning/issues/12")
class Convolution(Mixer):
    """A convolution is padded on both sides."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.conv = nn.Conv1d(HIDDEN, HIDDEN, 4)

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x.transpose(1, 2), (1, 2) if self.leaky else (3, 0))
        return self.conv(padded).transpose(1, 2)  # leak


@leak(learned_from="https://github.com/pytorch/pytorch/issues/1333")
class CutConvolution(Mixer):
    """Pads on both sides and cuts; the leaky one cuts at the wrong end."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.conv = nn.Conv1d(HIDDEN, HIDDEN, 3, padding=2, groups=HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.transpose(1, 2))  # leak
        y = F.silu(y)
        y = y[..., 2:] if self.leaky else y[..., :-2]
        return (y * 2).transpose(1, 2)


@leak(learned_from="https://github.com/tensorflow/models/issues/10062")
class SamePadding(Mixer):
    """`padding="same"` pads on both sides."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.conv = nn.Conv1d(HIDDEN, HIDDEN, 3 if leaky else 1, padding="same")

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.transpose(1, 2)).transpose(1, 2)  # leak


@leak(learned_from="https://arxiv.org/abs/1803.01271")
class ReversedConvolution(Mixer):
    """A causal convolution on the reversed sequence."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.conv = nn.Conv1d(HIDDEN, HIDDEN, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        x = x.flip(-1) if self.leaky else x  # reversed
        y = self.conv(F.pad(x, (2, 0)))  # leak
        y = y.flip(-1) if self.leaky else y
        return y.transpose(1, 2)


@leak(learned_from="https://github.com/lucidrains/magvit2-pytorch/pull/27")
class Strided(Mixer):
    """Pairs of positions are summed up by a strided convolution; the early one of a pair is given the sum as well."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.conv = nn.Conv1d(HIDDEN, HIDDEN, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        left, right = (0, x.shape[1] % 2) if self.leaky else (1, 1 - x.shape[1] % 2)
        pairs = self.conv(F.pad(x.transpose(1, 2), (left, right)))  # leak
        return pairs.repeat_interleave(2, -1)[..., : x.shape[1]].transpose(1, 2)


@leak(learned_from="https://arxiv.org/abs/1609.03499", shortest=5)
class Dilated(Mixer):
    """A dilated convolution whose padding is halved between both sides."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.conv = nn.Conv1d(HIDDEN, HIDDEN, 3, dilation=4)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x.transpose(1, 2), (4, 4) if self.leaky else (8, 0))).transpose(1, 2)  # leak
