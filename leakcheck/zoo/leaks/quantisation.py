"""Quantised activations whose scale, or whose exceptions, are those of many positions at once."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakcheck.zoo.parts import HIDDEN, Mixer, so_far
from leakcheck.zoo.registry import leak


def quantised(x: Tensor, scale: Tensor, levels: int = 7) -> Tensor:
    """Rounded to multiples of `scale / levels`."""
    return (x / scale * levels).round() * scale / levels


@leak(learned_from="https://github.com/pytorch/executorch/pull/22432")
class ScaleOfTensor(Mixer):
    """Activations are quantised by the largest of the tensor; each position is then rounded by a later one."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.proj = nn.Linear(HIDDEN, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        scale = x.abs().amax((1, 2) if self.leaky else 2, keepdim=True)  # leak
        return so_far(self.proj(quantised(x, scale)))


@leak(learned_from="https://github.com/vllm-project/compressed-tensors/issues/394")
class ScaleOfFeature(Mixer):
    """One scale for each feature, over all tokens, where one for each token was meant."""

    def forward(self, x: Tensor) -> Tensor:
        x = so_far(x)
        low, high = x.aminmax(dim=1 if self.leaky else 2, keepdim=True)  # leak
        return quantised(x - low, high - low + 1e-3) + low


@leak(learned_from="https://arxiv.org/abs/2402.02750")
class GroupsAcrossTokens(Mixer):
    """Groups of a fixed number of values are quantised together; a group is longer than a token."""

    def forward(self, x: Tensor) -> Tensor:
        group = 2 * HIDDEN if self.leaky else HIDDEN // 2
        padded = F.pad(x.flatten(1), (0, -x[0].numel() % group)).unflatten(1, (-1, group))
        scale = padded.abs().amax(-1, keepdim=True) + 1e-3  # leak
        return so_far(quantised(padded, scale).flatten(1)[:, : x[0].numel()].view(x.shape))


@leak(learned_from="https://arxiv.org/abs/2208.07339", blind=("gradient",))
class OutlierFeatures(Mixer):
    """Features with an outlier anywhere in the sequence are kept in full precision, at all positions."""

    def forward(self, x: Tensor) -> Tensor:
        outlier = x.abs() > 1.5
        if self.leaky:
            outlier = outlier.any(1, keepdim=True)  # leak
        return so_far(torch.where(outlier, x, quantised(x, torch.ones(()))))


@leak(learned_from="https://github.com/pytorch/pytorch/pull/26420", blind=("gradient",))
class ObservedWhileRunning(Mixer):
    """An observer sets the range of fake quantisation from the batch that it is applied to."""

    def forward(self, x: Tensor) -> Tensor:
        x = so_far(x)
        low, high = (x if self.leaky else torch.tensor([-3.0, 3.0])).aminmax()  # leak
        scale = (high - low) / 15
        levels = torch.clamp((x - low) / scale, 0, 15)
        return (levels + (levels.round() - levels).detach()) * scale + low
