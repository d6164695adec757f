"""Attention that is causal, though it does not look like it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakcheck.zoo.parts import HEADS, HIDDEN, Attention
from leakcheck.zoo.registry import control

WINDOW, CHUNK, LONGEST = 4, 4, 64


@control(learned_from="https://github.com/pytorch/pytorch/issues/103749")
class FirstRowFullyMasked(Attention):
    """A strictly causal mask leaves the first query without a key; its weights are then set to zero."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        visible = self.causal(x, diagonal=-1)
        weights = (q @ k.transpose(-1, -2)).masked_fill(~visible, -torch.inf).softmax(-1)
        weights = weights.masked_fill(~visible, 0)
        return self.merge(weights @ v)


@control(learned_from="https://arxiv.org/abs/2310.06825")
class SlidingWindow(Attention):
    """Two triangles make a band; each of them alone would let something later or something too early through."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        band = self.causal(x) & ~self.causal(x, -WINDOW)
        return self.merge(F.scaled_dot_product_attention(q, k, v, attn_mask=band))


@control(learned_from="https://github.com/pytorch/pytorch/issues/96099")
class KeptWhereTrue(Attention):
    """The mask is inverted twice: it says what to block, and is negated for a kernel that reads what to keep."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        blocked = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        return self.merge(F.scaled_dot_product_attention(q, k, v, attn_mask=~blocked))


@control(learned_from="https://arxiv.org/abs/1904.10509")
class InsideChunks(Attention):
    """Chunks attend to themselves alone: reshaped to a batch of chunks, with a partial one at the end."""

    def forward(self, x: Tensor) -> Tensor:
        seq = x.shape[1]
        padded = F.pad(x, (0, 0, 0, -seq % CHUNK)).unflatten(1, (-1, CHUNK)).flatten(0, 1)
        q, k, v = self.split(padded)
        mixed = self.merge(F.scaled_dot_product_attention(q, k, v, is_causal=True))
        return mixed.view(len(x), -1, HIDDEN)[:, :seq]


@control(learned_from="https://arxiv.org/abs/2309.17453")
class SinksAndWindow(Attention):
    """The first positions are seen by all, beside a window; the mask is a union, made causal at the end."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        at = torch.arange(x.shape[1])
        seen = ((at < 2) | (at[:, None] - at < WINDOW)) & (at <= at[:, None])
        return self.merge((q @ k.mT).masked_fill(~seen, -torch.inf).softmax(-1) @ v)


@control(
    learned_from="https://github.com/huggingface/transformers/blob/main/src/transformers/models/gpt_oss/modeling_gpt_oss.py"
)
class LearnedSink(Attention):
    """A learned score joins each row before the softmax and is dropped after it: rows do not sum to one."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.sink = nn.Parameter(torch.empty(HEADS))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        scores = (q @ k.mT).masked_fill(~self.causal(x), -torch.inf)
        sink = self.sink.view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
        return self.merge(torch.cat([scores, sink], -1).softmax(-1)[..., :-1] @ v)


@control(learned_from="https://github.com/EleutherAI/gpt-neox/pull/139")
class AdditiveNotInfinite(Attention):
    """A finite value is added to scores, which blocks as long as they are moderate (LC202)."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        return self.merge((q @ k.mT + (1 - self.causal(x).to(x.dtype)) * -1e9).softmax(-1) @ v)


@control(learned_from="https://github.com/huggingface/transformers/pull/17306")
class LowestOfType(Attention):
    """The lowest finite number of the type is filled in."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        scores = (q @ k.mT).masked_fill(~self.causal(x), torch.finfo(x.dtype).min)
        return self.merge(scores.softmax(-1) @ v)


@control(learned_from="https://github.com/pytorch/pytorch/issues/108108")
class AlignedBottomRight(Attention):
    """The mask is aligned with the last key; with as many queries as keys that is the same as with the first."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(k.shape[2] - q.shape[2])
        return self.merge(F.scaled_dot_product_attention(q, k, v, attn_mask=seen))


@control(learned_from="https://github.com/karpathy/nanoGPT/blob/master/model.py")
class BufferOfOnes(Attention):
    """The mask is a buffer of zeros and ones, longer than the sequence, compared with zero."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.register_buffer("bias", torch.ones(1, 1, LONGEST, LONGEST).tril())

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        seq = x.shape[1]
        scores = (q @ k.mT).masked_fill(self.get_buffer("bias")[:, :, :seq, :seq] == 0, -torch.inf)
        return self.merge(scores.softmax(-1) @ v)


@control(learned_from="https://arxiv.org/abs/2205.14135")
class OnlineSoftmax(Attention):
    """Blocks of keys in turn, with a running maximum and a running sum (flash attention by hand)."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        seen = self.causal(x)
        top = x.new_full((*q.shape[:3], 1), -torch.inf)
        total, mixed = torch.zeros_like(top), torch.zeros_like(q)
        for begin in range(0, x.shape[1], CHUNK):
            block = slice(begin, begin + CHUNK)
            scores = (q @ k[:, :, block].mT).masked_fill(~seen[:, block], -torch.inf)
            higher = torch.maximum(top, scores.amax(-1, keepdim=True))
            shrink, weights = (top - higher).nan_to_num(0).exp(), (scores - higher).nan_to_num(-torch.inf).exp()
            total, mixed = total * shrink + weights.sum(-1, keepdim=True), mixed * shrink + weights @ v[:, :, block]
            top = higher
        return self.merge(mixed / total)


@control(learned_from="https://arxiv.org/abs/2006.16236")
class ExponentialsMasked(Attention):
    """Weights are masked after the exponential and normalised after that, not by softmax."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        weights = torch.exp(q @ k.mT / 8) * self.causal(x)
        return self.merge(weights @ v / weights.sum(-1, keepdim=True))


@control(
    learned_from="https://github.com/huggingface/transformers/blob/main/src/transformers/models/bloom/modeling_bloom.py"
)
class ScoresTransposed(Attention):
    """Scores are `[key, query]`: the softmax is over the axis before the last, and the mask is an upper triangle."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        hidden = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril(-1)
        weights = (k @ q.mT).masked_fill(hidden, -torch.inf).softmax(-2)
        return self.merge(weights.mT @ v)


@control(learned_from="https://arxiv.org/abs/2408.00118")
class ScoresCapped(Attention):
    """Scores are squashed to a cap; the mask comes after, where nothing squashes it."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        scores = 5 * torch.tanh(q @ k.mT / 5)
        return self.merge(scores.masked_fill(~self.causal(x), -torch.inf).softmax(-1) @ v)


@control(learned_from="https://arxiv.org/abs/2410.05258")
class DifferenceOfTwo(Attention):
    """One softmax is subtracted from another: weights may be negative, but only of keys that both see."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        later = ~self.causal(x)
        first, second = (
            (a @ b.mT).masked_fill(later, -torch.inf).softmax(-1)
            for a, b in zip(q.chunk(2, -1), k.chunk(2, -1), strict=True)
        )
        return self.merge((first - 0.5 * second) @ v)


@control(learned_from="https://arxiv.org/abs/2203.08913")
class BestKeysOnly(Attention):
    """Of the keys that a query may see, those with the highest scores; early queries have fewer than are taken."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        scores = (q @ k.mT).masked_fill(~self.causal(x), -torch.inf)
        lowest = scores.topk(3).values[..., -1:]
        return self.merge(scores.masked_fill(scores < lowest, -torch.inf).softmax(-1) @ v)


@control(learned_from="https://arxiv.org/abs/2410.17980")
class StickBreaking(Attention):
    """Each key leaves a part of the stick to those before it: a sum from the right, over what the query sees."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        scores = q @ k.mT
        left = F.logsigmoid(-scores).masked_fill(~self.causal(x), 0)
        after = left.flip(-1).cumsum(-1).flip(-1) - left
        weights = torch.exp(F.logsigmoid(scores) + after) * self.causal(x)
        return self.merge(weights @ v)


@control(learned_from="https://arxiv.org/abs/1706.03762")
class DroppedWeights(Attention):
    """Dropout of the weights draws for later keys too, and in train mode scales those that stay."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        weights = (q @ k.mT).masked_fill(~self.causal(x), -torch.inf).softmax(-1)
        return self.merge(F.dropout(weights, 0.2, self.training) @ v)


@control(learned_from="https://arxiv.org/abs/2305.13245")
class GroupedHeads(Attention):
    """All heads share the keys of one, by repetition inside the kernel."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        return self.merge(F.scaled_dot_product_attention(q, k[:, :1], v[:, :1], is_causal=True, enable_gqa=True))


@control(learned_from="https://github.com/pytorch/pytorch/issues/33520")
class ReversedWithReversedMask(Attention):
    """The sequence is reversed before and after, and the mask is the upper triangle that belongs to it."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x.flip(1))
        earlier = self.causal(x, -1)
        return self.merge((q @ k.mT).masked_fill(earlier, -torch.inf).softmax(-1) @ v).flip(1)
