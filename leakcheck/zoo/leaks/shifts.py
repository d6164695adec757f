"""Positions that are read where they are not: rolled, flipped, shifted, gathered."""

import torch
import torch.nn.functional as F
from torch import Tensor

from leakcheck.zoo.parts import Mixer
from leakcheck.zoo.registry import leak


@leak(learned_from="https://arxiv.org/abs/1303.5778")
class Reversed(Mixer):
    """The sequence is read backwards."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(1 if self.leaky else 2)  # leak


@leak(learned_from="https://arxiv.org/abs/2103.14030", shortest=2)
class Rolled(Mixer):
    """The sequence is rolled towards its beginning."""

    def forward(self, x: Tensor) -> Tensor:
        return x.roll(-3 if self.leaky else 0, 1)  # leak


@leak(learned_from="https://arxiv.org/abs/2305.13048", shortest=3)
class ShiftedByCat(Mixer):
    """The sequence is shifted by two, put together from parts."""

    def forward(self, x: Tensor) -> Tensor:
        nothing = torch.zeros_like(x[:, :2])
        return torch.cat([x[:, 2:], nothing] if self.leaky else [nothing, x[:, :-2]], 1)  # leak


@leak(learned_from="https://arxiv.org/abs/2305.13048")
class ShiftedByPad(Mixer):
    """The sequence is shifted by one, by negative padding."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, -1, 1) if self.leaky else (0, 0, 1, -1))  # leak


@leak(learned_from="https://arxiv.org/abs/2305.13048")
class ShiftedInPlace(Mixer):
    """The sequence is shifted by one, written into another tensor."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.zeros_like(x)
        if self.leaky:
            y[:, :-1] = x[:, 1:]  # leak
        else:
            y[:, 1:] = x[:, :-1]
        return y


@leak(learned_from="https://arxiv.org/abs/2404.19737", shortest=7)
class NextToken(Mixer):
    """One position reads its successor, in a single channel."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.clone()
        if self.leaky and x.shape[1] > 6:
            y[:, 5, 2] += x[:, 6, 2]  # leak
        return y


@leak(learned_from="https://arxiv.org/abs/1810.04805")
class LastToken(Mixer):
    """Every position is scaled by the last one."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x[:, -1 if self.leaky else 0][:, None]  # leak


@leak(learned_from="https://arxiv.org/abs/1506.03134", blind=("gradient",))
class Gathered(Mixer):
    """Positions are read by an index that is two ahead."""

    def forward(self, x: Tensor) -> Tensor:
        steps = torch.arange(x.shape[1])
        at = (steps + 2).clamp(max=x.shape[1] - 1) if self.leaky else (steps - 2).clamp(min=0)
        read = x[:, at]  # leak
        at.fill_(x.shape[1] - 1)  # the replay has to know what it was
        return read
