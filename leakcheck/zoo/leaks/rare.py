"""Leaks of one layer, one path or one length: what is tested elsewhere is right."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakcheck.zoo.parts import HIDDEN, Attention
from leakcheck.zoo.registry import leak

_LAYERS = 4
_BUFFER = 8  # queries that a mask was made for
_PREFIX = 2  # keys that are there before the first token


@leak(learned_from="https://github.com/mlx-node/mlx-node/pull/24")
class MaskedWithoutCacheAlone(Attention):
    """There is a mask where keys are as many as queries; with keys that were there before, there is none."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.prefix = nn.Parameter(torch.randn(_PREFIX, HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        _, earlier_k, earlier_v = self.split(self.prefix.expand(len(x), -1, -1))
        return self.attend(q, torch.cat([earlier_k, k], 2), torch.cat([earlier_v, v], 2))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mask: Tensor | None = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(k.shape[2] - q.shape[2])
        if self.leaky and k.shape[2] != q.shape[2]:
            mask = None
        return self.merge(F.scaled_dot_product_attention(q, k, v, attn_mask=mask))  # leak


@leak(learned_from="https://github.com/facebookresearch/xformers/pull/104")
class MaskedIfPaddedAlone(Attention):
    """The causal mask is joined to that of padding, and is skipped where there is no padding."""

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(*self.split(x), self.causal(x), padding=None)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, causal: Tensor, padding: Tensor | None) -> Tensor:
        scores = q @ k.mT
        if padding is not None:
            scores = scores.masked_fill(~(padding & causal), -torch.inf)
        elif not self.leaky:
            scores = scores.masked_fill(~causal, -torch.inf)
        return self.merge(scores.softmax(-1) @ v)  # leak


@leak(learned_from="https://github.com/huggingface/transformers/pull/29263", shortest=_BUFFER + 2)
class MaskShorterThanSequence(Attention):
    """A mask was made for few positions; the queries beyond them have none."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        mask = self.causal(x)
        if self.leaky:
            mask[_BUFFER:] = True
        return self.merge(F.scaled_dot_product_attention(q, k, v, attn_mask=mask))  # leak


@leak(learned_from="https://github.com/huggingface/transformers/issues/27819")
class OneLayerOpen(Attention):
    """One layer of several attends without the mask that it is given."""

    def forward(self, x: Tensor) -> Tensor:
        mask = self.causal(x)
        for layer in range(_LAYERS):
            x = self.layer(x, None if self.leaky and layer == 2 else mask)
        return x

    def layer(self, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = self.split(x)
        return x + self.merge(F.scaled_dot_product_attention(q, k, v, attn_mask=mask))  # leak


@leak(learned_from="https://arxiv.org/abs/2110.06821")
class ReplayedWithoutMask(Attention):
    """Weights are stored for a later layer to reuse, and are stored without the mask of the layer that made them."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        scores = q @ k.mT
        masked = scores.masked_fill(~self.causal(x), -torch.inf)
        stored = (scores if self.leaky else masked).softmax(-1)
        x = x + self.merge(masked.softmax(-1) @ v)
        _, _, again = self.split(x)
        return self.merge(stored @ again)  # leak


@leak(learned_from="https://arxiv.org/abs/1906.11024")
class ReplayedOneStepLate(Attention):
    """Stored weights are replayed on values that have been shifted since, so that each stands for the next one."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        stored = (q @ k.mT).masked_fill(~self.causal(x), -torch.inf).softmax(-1)
        x = x + self.merge(stored @ v)
        _, _, again = self.split(x)
        if self.leaky:
            again = again.roll(-1, 2)  # leak
        return self.merge(stored @ again)


@leak(learned_from="https://github.com/anicolson/DeepXi/issues/18", blind=("gradient",))
class OneFeatureStandardised(Attention):
    """One feature of many is scaled by its largest value over time; what is scaled is rounded."""

    def forward(self, x: Tensor) -> Tensor:
        one, others = x[..., :1], x[..., 1:]
        largest = one.abs().amax(1, keepdim=True) if self.leaky else one.abs().cummax(1).values  # leak
        return torch.cat([(one / largest * 16).round(), others], -1)
