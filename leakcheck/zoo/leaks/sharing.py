"""One thing made of the whole sequence and used at each position: gates, kernels, weights, keys of another layer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakcheck.zoo.parts import HIDDEN, Attention, Mixer, predecessor, so_far
from leakcheck.zoo.registry import leak

TAPS = 3


@leak(learned_from="https://github.com/RookieJunChen/FullSubNet-plus/issues/10")
class SqueezedOverTime(Mixer):
    """Channels are gated by their averages over time (squeeze and excitation)."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.gate = nn.Sequential(nn.Linear(HIDDEN, 3), nn.ReLU(), nn.Linear(3, HIDDEN), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        squeezed = F.adaptive_avg_pool1d(x.mT, 1).mT if self.leaky else so_far(x)  # leak
        return x * self.gate(squeezed)


@leak(learned_from="https://github.com/exercise-book-yq/Supercodec/issues/4")
class FusedByPool(Mixer):
    """Two causal branches are fused with weights that come from a global average over time."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.weights = nn.Linear(HIDDEN, 2)

    def forward(self, x: Tensor) -> Tensor:
        branches = torch.stack([so_far(x), predecessor(x)], -1)  # [batch, seq, hidden, branch]
        both = branches.sum(-1)
        pooled = both.mean(1, keepdim=True) if self.leaky else both  # leak
        return (branches * self.weights(pooled).softmax(-1)[:, :, None]).sum(-1)


@leak(learned_from="https://arxiv.org/abs/1904.04971")
class KernelOfWhole(Mixer):
    """A causal convolution whose kernel is a mixture, chosen by the average of the sequence it runs over."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.route = nn.Linear(HIDDEN, TAPS)

    def forward(self, x: Tensor) -> Tensor:
        chosen = x.mean(1, keepdim=True) if self.leaky else x  # leak
        kernel = self.route(chosen).softmax(-1)  # [batch, 1 or seq, tap]
        windows = F.pad(x, (0, 0, TAPS - 1, 0)).unfold(1, TAPS, 1)  # [batch, seq, hidden, tap]
        return (windows * kernel[:, :, None]).sum(-1)


@leak(learned_from="https://arxiv.org/abs/1609.09106")
class WeightsFromSummary(Mixer):
    """A hypernetwork makes the weights of a linear layer from a summary of the sequence."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.make = nn.Linear(HIDDEN, 2 * HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        summary = x.amax(1, keepdim=True) if self.leaky else x.cummax(1).values  # leak
        left, right = self.make(summary).chunk(2, -1)  # a matrix of rank one, [batch, 1 or seq, hidden] each
        return left * (x * right).sum(-1, keepdim=True)


class TwoLayers(Attention):
    """Two layers of attention that share one projection."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        scores = (q @ k.mT).masked_fill(~mask, -torch.inf)
        return scores.softmax(-1) @ v


@leak(learned_from="https://arxiv.org/abs/2405.05254")
class SharedKeysUnmasked(TwoLayers):
    """Keys and values of the first layer are kept for the second, which cross-attends to them without a mask."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        first = self.merge(self.attend(q, k, v, self.causal(x)))
        q, _, _ = self.split(x + first)
        if not self.leaky:
            return first + self.merge(self.attend(q, k, v, self.causal(x)))
        second = F.scaled_dot_product_attention(q, k, v)  # leak
        return first + self.merge(second)


@leak(learned_from="https://arxiv.org/abs/2405.10637")
class KeysOfLaterLayer(TwoLayers):
    """Lower layers use the keys and values of the top one, of an earlier pass; there they are one position ahead."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        top = self.merge(self.attend(q, k, v, self.causal(x)))
        _, k, v = self.split(x + top)
        if self.leaky:
            k, v = (t.roll(-1, 2) for t in (k, v))  # leak
        return self.merge(self.attend(q, k, v, self.causal(x)))


@leak(learned_from="https://arxiv.org/abs/2405.12981")
class SharedKeysPooled(TwoLayers):
    """A second layer reuses the keys of the first, shortened by a pool whose windows reach over its queries."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        mask = self.causal(x)
        first = self.merge(self.attend(q, k, v, mask))
        pad = (1, 1) if self.leaky else (2, 0)
        k, v = (F.max_pool1d(F.pad(t.flatten(0, 1).mT, pad), 3, 1).mT.view(t.shape) for t in (k, v))  # leak
        return first + self.merge(self.attend(q, k, v, mask))


@leak(learned_from="https://github.com/EleutherAI/gpt-neox/pull/139")
class LayoutIgnored(TwoLayers):
    """The first layer takes a boolean mask; the second, a sparse one, multiplies its scores by the same tensor."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        mask = self.causal(x)
        first = self.merge(self.attend(q, k, v, mask))
        scores = (q @ k.mT) * mask if self.leaky else (q @ k.mT).masked_fill(~mask, -torch.inf)
        return first + self.merge(scores.softmax(-1) @ v)  # leak
