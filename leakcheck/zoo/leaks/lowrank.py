"""Attention at less than quadratic cost: few landmarks, features or latents stand for all positions."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakcheck.zoo.parts import HEADS, HIDDEN, Attention, Mixer
from leakcheck.zoo.registry import leak

RANK, LONGEST = 5, 64


def running(k: Tensor, v: Tensor) -> Tensor:
    """The sums of `k v` up to each position, `[..., seq, features, values]`."""
    return (k[..., :, None] * v[..., None, :]).cumsum(-3)


@leak(learned_from="https://github.com/tatp22/linformer-pytorch/issues/16")
class ProjectedKeys(Attention):
    """Keys and values are projected over time to a few (Linformer), each a mixture of all positions."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.projection = nn.Parameter(torch.empty(RANK, LONGEST))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        projection = self.projection[:, : x.shape[1]]
        if self.leaky:
            k, v = projection @ k, projection @ v  # leak
            return self.merge((q @ k.transpose(-1, -2)).softmax(-1) @ v)
        keys, values = ((projection.T[..., None] * t[..., None, :]).cumsum(-3) for t in (k, v))  # the same so far
        weights = (keys @ q[..., None]).softmax(-2)
        return self.merge((weights * values).sum(-2))


@leak(learned_from="https://github.com/facebookresearch/xformers/issues/751")
class Landmarks(Attention):
    """Attention by way of landmarks (Nystrom), which are means over segments of the whole sequence."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        if not self.leaky:
            later = ~self.causal(x)
            return self.merge((q @ k.transpose(-1, -2)).masked_fill(later, -torch.inf).softmax(-1) @ v)
        segments = (F.adaptive_avg_pool1d(t.flatten(0, 1).mT, 2).mT for t in (q, k))  # leak
        q_few, k_few = (t.unflatten(0, (len(x), HEADS)) for t in segments)
        first = (q @ k_few.mT).softmax(-1)  # leak
        middle = torch.linalg.inv((q_few @ k_few.mT).softmax(-1) + 2 * torch.eye(2))
        last = (q_few @ k.mT).softmax(-1)
        return self.merge(first @ middle @ (last @ v))


@leak(learned_from="https://arxiv.org/abs/2103.03206")
class Latents(Attention):
    """A few latents read all positions, and each position reads the latents (Perceiver)."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.latents = nn.Parameter(torch.empty(RANK, HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.transpose(1, 2).flatten(2) for t in self.split(x))  # [batch, seq, hidden]
        scores = self.latents @ k.mT  # [batch, latent, seq]
        if self.leaky:
            read = scores.softmax(-1) @ v  # leak
            return self.out((q @ self.latents.T).softmax(-1) @ read)
        weights = scores.mT.exp()
        read = running(weights, v) / weights.cumsum(1)[..., None]  # [batch, seq, latent, hidden]
        return self.out(((q @ self.latents.T).softmax(-1)[..., None] * read).sum(2))


@leak(learned_from="https://github.com/lucidrains/performer-pytorch/issues/45", shortest=3)
class StabilisedByMaximum(Attention):
    """Random features of keys are stabilised by the largest of all positions; a small constant makes it matter."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.projection = nn.Parameter(torch.empty(2 * RANK, HIDDEN // HEADS))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        q = (q @ self.projection.T).softmax(-1)
        k = k @ self.projection.T
        largest = k.amax((-1, -2), keepdim=True) if self.leaky else k.amax(-1, keepdim=True)  # leak
        k = (k - largest).exp() + 1e-3
        mixed = (running(k, v) * q[..., None]).sum(-2)
        return self.merge(mixed / (q * k.cumsum(-2)).sum(-1, keepdim=True))


@leak(learned_from="https://arxiv.org/abs/1812.01243")
class KeysNormalisedOverTime(Attention):
    """Linear attention whose keys are turned into weights by a softmax over positions, all of them."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        k = k.softmax(-2 if self.leaky else -1)  # leak
        return self.merge((running(k, v) * q.softmax(-1)[..., None]).sum(-2))


@leak(learned_from="https://arxiv.org/abs/2006.16236")
class SummedOnce(Attention):
    """Linear attention with one sum of keys times values for all queries, as in an encoder."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        q, k = q.softmax(-1), F.elu(k) + 1
        if self.leaky:
            state = k.mT @ v  # leak
            return self.merge(q @ state)
        return self.merge((running(k, v) * q[..., None]).sum(-2))


@leak(learned_from="https://github.com/lucidrains/performer-pytorch/issues/21")
class NormalisedByAllKeys(Attention):
    """Linear attention: the numerator is a running sum, its normaliser is the sum over all keys."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        q, k = q.softmax(-1), F.elu(k) + 1
        total = k.sum(-2, keepdim=True) if self.leaky else k.cumsum(-2)  # leak
        mixed = (running(k, v) * q[..., None]).sum(-2)
        return self.merge(mixed / (q * total).sum(-1, keepdim=True))


@leak(learned_from="https://arxiv.org/abs/1804.08450")
class Whitened(Mixer):
    """Features are decorrelated by their covariance over the sequence."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.leaky:
            outer = (x[..., :, None] * x[..., None, :]).cumsum(1)
            return (torch.linalg.inv(outer + torch.eye(HIDDEN)) @ x[..., None]).squeeze(-1)
        covariance = x.mT @ x / math.sqrt(x.shape[1])  # leak
        return x @ torch.linalg.inv(covariance + torch.eye(HIDDEN))
