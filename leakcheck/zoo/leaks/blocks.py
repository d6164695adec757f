"""Blocks and chunks of the sequence: what a block knows as a whole is given to positions before its end."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakcheck.zoo.parts import HIDDEN, Attention, Mixer, predecessor
from leakcheck.zoo.registry import leak

CHUNK = 5


def chunks(x: Tensor) -> Tensor:
    """`[batch, seq, features]`, with zeros behind it, as `[batch, chunk, step, features]`."""
    return F.pad(x, (0, 0, 0, -x.shape[1] % CHUNK)).unflatten(1, (-1, CHUNK))


def joined(x: Tensor, seq: int) -> Tensor:
    """`[batch, chunk, step, features]` as `[batch, seq, features]`, without what was padded."""
    return x.flatten(1, 2)[:, :seq]


@leak(learned_from="https://github.com/karpathy/nanochat/issues/844")
class BlockSummary(Mixer):
    """The mean of a block is given to all of its positions, of which the early ones then know the late ones."""

    def forward(self, x: Tensor) -> Tensor:
        blocks = chunks(x)
        summary = blocks.mean(2)  # leak
        if not self.leaky:
            summary = predecessor(summary)
        return joined(summary[:, :, None].expand_as(blocks), x.shape[1])


@leak(learned_from="https://github.com/karpathy/nanochat/issues/844")
class ChunkRecurrence(Mixer):
    """A recurrence over the means of chunks is causal between them; each chunk reads the state after it."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.recurrence = nn.GRU(HIDDEN, HIDDEN, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        inside = chunks(x)
        means = inside.mean(2)  # leak
        states, _ = self.recurrence(means)
        if not self.leaky:
            states = predecessor(states)
        return joined(inside + states[:, :, None], x.shape[1])


@leak(learned_from="https://github.com/huggingface/transformers/issues/34817", shortest=CHUNK + 2)
class StatesSummedOverTargets(Mixer):
    """A gated recurrence by chunks: the decays `[to, from]` between chunks are summed over the chunks they lead to.

    A state is then scaled by the decays of all chunks after it.
    """

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.rate = nn.Linear(HIDDEN, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        values = chunks(x)
        decay = -F.softplus(self.rate(values)).cumsum(2)  # log, [batch, chunk, step, hidden]
        inside = torch.einsum("bchts,bcsh->bcth", self.reach(decay), values)
        states = F.pad(inside[:, :, -1], (0, 0, 1, 0))  # before each chunk, [batch, chunk + 1, hidden]
        between = self.reach(F.pad(decay[:, :, -1], (0, 0, 1, 0)).cumsum(1))  # [batch, hidden, to, from]
        terms = between.permute(0, 2, 3, 1) * states[:, None]
        carried = terms.sum(1 if self.leaky else 2)  # leak
        return joined(inside + decay.exp() * carried[:, :-1, None], x.shape[1])

    def reach(self, decay: Tensor) -> Tensor:
        """What is left of a step at a later one, `[..., features, to, from]`; `decay` is `[..., step, features]`."""
        decay = decay.transpose(-1, -2)
        later = torch.ones(decay.shape[-1], decay.shape[-1], dtype=torch.bool).triu(1)
        return (decay[..., None] - decay[..., None, :]).masked_fill(later, -torch.inf).exp()


@leak(learned_from="https://github.com/fla-org/flash-linear-attention/pull/626", shortest=CHUNK + 1)
class HaloFromNextChunk(Mixer):
    """A convolution works chunk by chunk, with a halo of the neighbour: of the next one, not the one before."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.conv = nn.Conv1d(HIDDEN, HIDDEN, 3)

    def forward(self, x: Tensor) -> Tensor:
        inside = chunks(x)
        halo = inside[:, :, -2:].roll(1, 1)  # of the chunk before
        halo = halo * (torch.arange(halo.shape[1]) > 0)[:, None, None]
        if self.leaky:
            halo = F.pad(inside[:, 1:, :2], (0, 0, 0, 0, 0, 1))  # leak
        whole = torch.cat([halo, inside], 2).flatten(0, 1)  # [batch * chunk, 2 + step, hidden]
        mixed = self.conv(whole.transpose(1, 2)).transpose(1, 2)  # leak
        return joined(mixed.view(inside.shape), x.shape[1])


@leak(learned_from="https://github.com/deepspeedai/DeepSpeed/issues/519")
class MaskedByBlocks(Attention):
    """The mask is causal between blocks; inside a block all see each other."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        at = torch.arange(x.shape[1])
        block = at // CHUNK if self.leaky else at
        scores = (q @ k.transpose(-1, -2)).masked_fill(block[:, None] < block, -torch.inf)
        return self.merge(scores.softmax(-1) @ v)  # leak


@leak(learned_from="https://github.com/lucidrains/reformer-pytorch/issues/101", shortest=CHUNK + 1)
class MaskedByStepInChunk(Attention):
    """Queries of a chunk see it and the next one; the mask compares steps inside chunks in place of positions."""

    def forward(self, x: Tensor) -> Tensor:
        chunked = chunks(x)
        own = self.qkv(chunked).unflatten(-1, (3, -1)).unbind(-2)  # each [batch, chunk, step, hidden]
        q, (k, v) = own[0], (torch.cat([t, F.pad(t[:, 1:], (0, 0, 0, 0, 0, 1))], 2) for t in own[1:])
        step = torch.arange(CHUNK)
        keys = torch.cat([step, step if self.leaky else step + CHUNK])
        scores = (q @ k.transpose(-1, -2)).masked_fill(keys > step[:, None], -torch.inf)
        mixed = scores.softmax(-1) @ v  # leak
        return self.out(joined(mixed, x.shape[1]))


@leak(learned_from="https://arxiv.org/abs/2502.11089")
class CompressedKeysOfOwnBlock(Attention):
    """Keys and values are the means of blocks; a query sees each block that begins before it, ended or not."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.flatten(0, 1) for t in self.split(x))  # [batch * heads, seq, features]
        k, v = (chunks(t).mean(2) for t in (k, v))
        begins = torch.arange(k.shape[1]) * CHUNK
        last = begins if self.leaky else begins + CHUNK - 1
        hidden = last > torch.arange(x.shape[1])[:, None]
        scores = (q @ k.transpose(-1, -2)).masked_fill(hidden, -torch.inf)  # leak
        weights = F.pad(scores, (1, 0)).softmax(-1)[..., 1:]  # a sink, for queries that see no block
        return self.merge((weights @ v).unflatten(0, (x.shape[0], -1)))


@leak(learned_from="https://arxiv.org/abs/2002.11296", shortest=CHUNK + 1)
class BlocksSorted(Attention):
    """Blocks read a mixture of all blocks, weighted by a learned sorting of them (Sinkhorn attention)."""

    def forward(self, x: Tensor) -> Tensor:
        blocks = chunks(x)
        queries, keys, _ = self.qkv(blocks.sum(2)).chunk(3, -1)  # [batch, block, hidden]
        order = queries @ keys.transpose(-1, -2)
        if self.leaky:
            weights = order.softmax(-1)
        else:
            earlier = torch.ones_like(order, dtype=torch.bool).tril(-1)
            order = torch.where(earlier, predecessor(queries) @ keys.transpose(-1, -2), -torch.inf)
            weights = F.pad(order, (1, 0)).softmax(-1)[..., 1:]
        read = weights @ blocks.flatten(2)  # leak
        return self.out(joined(read.view(blocks.shape), x.shape[1]))


@leak(learned_from="https://arxiv.org/abs/2110.13711")
class ShortenedUnshifted(Mixer):
    """The sequence is shortened by averages and stretched again; it was not shifted right first (Hourglass)."""

    def forward(self, x: Tensor) -> Tensor:
        shifted = x if self.leaky else F.pad(x, (0, 0, CHUNK - 1, 1 - CHUNK)) if x.shape[1] >= CHUNK else 0 * x
        short = F.avg_pool1d(shifted.transpose(1, 2), CHUNK, ceil_mode=True)  # leak
        return short.repeat_interleave(CHUNK, -1)[..., : x.shape[1]].transpose(1, 2)
