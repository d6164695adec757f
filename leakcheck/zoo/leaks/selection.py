"""Choices among all positions: what is taken depends on what comes later."""

import torch
from torch import Tensor, nn

from leakcheck.zoo.parts import HIDDEN, LENGTH, Mixer
from leakcheck.zoo.registry import leak


@leak(learned_from="https://arxiv.org/abs/2202.09368", shortest=5, blind=("gradient",))
class ExpertChoice(Mixer):
    """The tokens with the highest scores go through an expert."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.router, self.expert = nn.Linear(HIDDEN, 1), nn.Linear(HIDDEN, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.router(x)[..., 0]  # [batch, seq]
        if not self.leaky:
            return self.expert(x) * torch.sigmoid(scores)[..., None]
        best, chosen = scores.topk(4, dim=-1)  # leak
        chosen = chosen[..., None].expand(-1, -1, HIDDEN)
        taken = self.expert(x.gather(1, chosen)) * best[..., None]
        return torch.zeros_like(x).scatter(1, chosen, taken)


@leak(learned_from="https://arxiv.org/abs/2002.11296")
class Sorted(Mixer):
    """Features are sorted over time."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sort(1 if self.leaky else 2).values  # leak


@leak(learned_from="https://arxiv.org/abs/1506.03134")
class Pointer(Mixer):
    """Each token says which one it reads."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.pointer = nn.Linear(HIDDEN, LENGTH)

    def forward(self, x: Tensor) -> Tensor:
        to = self.pointer(x)[..., : x.shape[1]].argmax(-1, keepdim=True)  # [batch, seq, 1]
        if not self.leaky:
            return x * to
        return x.gather(1, to.expand(-1, -1, HIDDEN))  # leak


@leak(learned_from="https://arxiv.org/abs/1410.5401")
class Slots(Mixer):
    """Each token says where it is written."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.slot = nn.Linear(HIDDEN, LENGTH)

    def forward(self, x: Tensor) -> Tensor:
        to = self.slot(x)[..., : x.shape[1]].argmax(-1, keepdim=True)  # [batch, seq, 1]
        if not self.leaky:
            return x * to
        return torch.zeros_like(x).scatter_add(1, to.expand(-1, -1, HIDDEN), x)  # leak
