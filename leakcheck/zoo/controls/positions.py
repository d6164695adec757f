"""Positions told in unusual ways: by bias, by rotation, by tables longer than the sequence, by counting."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakcheck.zoo.parts import HEADS, HIDDEN, VOCAB, Attention, so_far
from leakcheck.zoo.registry import control

LONGEST, BUCKETS = 64, 8


class Biased(Attention):
    """Causal attention with something added to its scores `[head or 1, query, key]` by the subclass."""

    def bias(self, seq: int) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        scores = q @ k.mT + self.bias(x.shape[1])
        return self.merge(scores.masked_fill(~self.causal(x), -torch.inf).softmax(-1) @ v)


@control(learned_from="https://arxiv.org/abs/2108.12409")
class LinearBias(Biased):
    """A slope for each head: later keys would get a bonus, were they not masked (ALiBi)."""

    def bias(self, seq: int) -> Tensor:
        at = torch.arange(seq)
        slopes = 2.0 ** -torch.arange(1, HEADS + 1)
        return (at - at[:, None]) * slopes[:, None, None]


@control(learned_from="https://github.com/huggingface/transformers/blob/main/src/transformers/models/t5/modeling_t5.py")
class BucketedDistance(Biased):
    """A learned bias for buckets of distance, with buckets for both directions."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.table = nn.Embedding(2 * BUCKETS, HEADS)

    def bias(self, seq: int) -> Tensor:
        at = torch.arange(seq)
        distance = at - at[:, None]
        near = distance.abs().clamp(max=BUCKETS - 1)
        return self.table(near + BUCKETS * (distance > 0)).permute(2, 0, 1)


@control(learned_from="https://arxiv.org/abs/2205.09921")
class LogarithmicBias(Biased):
    """A bias by the logarithm of the distance with a learned rate (KERPLE)."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.rate = nn.Parameter(torch.empty(HEADS, 1, 1))

    def bias(self, seq: int) -> Tensor:
        at = torch.arange(seq)
        return -F.softplus(self.rate) * torch.log1p((at[:, None] - at).abs())


@control(learned_from="https://arxiv.org/abs/1901.02860")
class ShiftedByReshape(Attention):
    """Relative scores are aligned by padding and reshaping: what spills into the next row is masked."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.relative = nn.Parameter(torch.empty(LONGEST, HIDDEN // HEADS))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        seq = x.shape[1]
        by_distance = q @ self.relative[:seq].flip(0).T  # [batch, head, query, distance]
        shifted = F.pad(by_distance, (1, 0)).view(*q.shape[:2], seq + 1, seq)[:, :, 1:]
        scores = (q @ k.mT + shifted).masked_fill(~self.causal(x), -torch.inf)
        return self.merge(scores.softmax(-1) @ v)


@control(learned_from="https://arxiv.org/abs/2104.09864")
class RotatedByTable(Attention):
    """Queries and keys are rotated by tables for more positions than there are."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        angles = torch.arange(LONGEST)[:, None] * 100.0 ** -torch.arange(0, 1, 0.5)
        self.register_buffer("angles", torch.cat([angles, angles], -1))  # [position, features]

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        angles = self.get_buffer("angles")[: x.shape[1]]
        q, k = (t * angles.cos() + self.half_turned(t) * angles.sin() for t in (q, k))
        return self.merge(F.scaled_dot_product_attention(q, k, v, is_causal=True))

    def half_turned(self, t: Tensor) -> Tensor:
        first, second = t.chunk(2, -1)
        return torch.cat([-second, first], -1)


@control(learned_from="https://github.com/huggingface/transformers/issues/25104")
class RotatedByLength(RotatedByTable):
    """The base of the rotation grows with the length of the sequence, which is known without its tokens."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        base = 100.0 * max(1.0, x.shape[1] / 8)
        angles = torch.arange(x.shape[1])[:, None] * base ** -torch.arange(0, 1, 0.5)
        turn = torch.polar(torch.ones_like(angles), angles)
        q, k = (self.turned(t, turn) for t in (q, k))
        return self.merge(F.scaled_dot_product_attention(q, k, v, is_causal=True))

    def turned(self, t: Tensor, turn: Tensor) -> Tensor:
        pairs = torch.view_as_complex(t.float().unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * turn).flatten(-2).to(t.dtype)


@control(learned_from="https://arxiv.org/abs/2405.18719")
class CountedByGates(Attention):
    """Distances are counted by gates of the keys between, summed from the right over those that the query sees."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.rate = nn.Parameter(torch.empty(HEADS, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        scores = q @ k.mT
        gates = torch.sigmoid(scores) * self.causal(x)
        apart = gates.flip(-1).cumsum(-1).flip(-1)
        scores = (scores - F.softplus(self.rate) * apart).masked_fill(~self.causal(x), -torch.inf)
        return self.merge(scores.softmax(-1) @ v)


class Counting(nn.Module):
    """A language model whose positions are counted by the subclass."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, HIDDEN)
        self.positions = nn.Embedding(LONGEST, HIDDEN)
        self.head = nn.Linear(HIDDEN, VOCAB)

    def numbers(self, input_ids: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.head(so_far(self.embed(input_ids) + self.positions(self.numbers(input_ids))))


@control(
    learned_from="https://github.com/huggingface/transformers/blob/main/src/transformers/models/roberta/modeling_roberta.py"
)
class NumbersCountTokens(Counting):
    """Tokens that are no padding are counted as they come, so that numbers depend on tokens."""

    def numbers(self, input_ids: Tensor) -> Tensor:
        real = (input_ids != 0).long()
        return real.cumsum(1) * real


@control(learned_from="https://github.com/huggingface/transformers/issues/25452")
class NumbersBeginAnew(Counting):
    """Numbers begin anew after each separator: the position of the last one is a running maximum."""

    def numbers(self, input_ids: Tensor) -> Tensor:
        at = torch.arange(input_ids.shape[1]).expand_as(input_ids)
        begins = torch.where(input_ids == 3, at, 0).cummax(1).values
        return at - begins


@control(learned_from="https://arxiv.org/abs/1706.03762")
class NumbersFromTheEnd(Counting):
    """Numbers run from the end to the beginning, which the length decides and no token does."""

    def numbers(self, input_ids: Tensor) -> Tensor:
        return torch.arange(input_ids.shape[1]).flip(0).expand_as(input_ids)
