"""Memories, summaries and retrieval: what is stored of a segment is read by that segment."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakcheck.zoo.leaks.blocks import CHUNK, chunks, joined
from leakcheck.zoo.parts import HIDDEN, Attention, predecessor
from leakcheck.zoo.registry import leak


@leak(learned_from="https://github.com/dingo-actual/infini-transformer/issues/4")
class UpdatedBeforeRead(Attention):
    """A compressive memory of keys times values takes a segment in before that segment reads it (Infini-attention)."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(chunks(x)).chunk(3, -1)  # each [batch, segment, step, hidden]
        memory = x.new_zeros(len(x), HIDDEN, HIDDEN)
        read = []
        for segment in range(q.shape[1]):
            if not self.leaky:
                read.append(q[:, segment] @ memory)
            update = (F.elu(k[:, segment]) + 1).mT @ v[:, segment]  # leak
            memory = memory + update
            if self.leaky:
                read.append(q[:, segment] @ memory)  # leak
        return self.out(joined(v + torch.stack(read, 1), x.shape[1]))


@leak(learned_from="https://arxiv.org/abs/1911.05507")
class CompressedOwnSegment(Attention):
    """Queries see the compressed memory of past segments beside their own; the memory of their own is among it."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.flatten(0, 1) for t in self.split(x))  # [batch * heads, seq, features]
        at = torch.arange(x.shape[1])
        segment = at // CHUNK
        near = (segment[:, None] == segment) & (at[:, None] >= at)
        compressed = segment.unique()
        far = compressed <= segment[:, None] if self.leaky else compressed < segment[:, None]
        few_k, few_v = (chunks(t).amax(2) for t in (k, v))
        keys, values = torch.cat([few_k, k], 1), torch.cat([few_v, v], 1)
        scores = (q @ keys.mT).masked_fill(~torch.cat([far, near], 1), -torch.inf)  # leak
        return self.merge((scores.softmax(-1) @ values).unflatten(0, (len(x), -1)))


@leak(learned_from="https://arxiv.org/abs/2207.06881")
class WriteTokenReadToo(Attention):
    """A memory token at the end reads all positions, to be read by the next segment; this one reads it too."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.token = nn.Parameter(torch.empty(1, 1, HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        first = self.attend(torch.cat([x, self.token.expand(len(x), -1, -1)], 1))
        written = first[:, -1:] if self.leaky else first[:, :1]
        return first[:, :-1] + written  # leak

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        scores = (q @ k.mT).masked_fill(~self.causal(x), -torch.inf)
        return self.merge(scores.softmax(-1) @ v)


@leak(learned_from="https://arxiv.org/abs/2004.05150")
class GlobalTokenAtEnd(Attention):
    """The last position is a global one: it sees all, and all see it."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        seen = self.causal(x)
        if self.leaky:
            seen = seen.index_fill(1, torch.tensor(x.shape[1] - 1), True)
        scores = (q @ k.mT).masked_fill(~seen, -torch.inf)
        return self.merge(scores.softmax(-1) @ v)  # leak


@leak(learned_from="https://arxiv.org/abs/2112.04426", blind=("gradient",))
class OwnChunkRetrieved(Attention):
    """Each chunk reads the neighbour that was retrieved for it; the query is the chunk itself, not the one before."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.database = nn.Parameter(torch.empty(7, HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        values = chunks(x)
        queries = values.mean(2)  # leak
        if not self.leaky:
            queries = predecessor(queries)
        nearest = (queries @ self.database.T).argmax(-1)
        neighbour = self.database[nearest]  # [batch, chunk, hidden]
        return self.out(joined(values + neighbour[:, :, None], x.shape[1]))


@leak(learned_from="https://arxiv.org/abs/2203.08913")
class OwnKeysInMemory(Attention):
    """The keys of the sequence are added to the memory before its nearest neighbours are looked up."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        scores = q @ k.mT
        if not self.leaky:
            scores = scores.masked_fill(~self.causal(x), -torch.inf)
        lowest = scores.topk(2).values[..., 1:]  # leak
        scores = scores.masked_fill(scores < lowest, -torch.inf)
        return self.merge(scores.softmax(-1) @ v)  # leak


@leak(learned_from="https://arxiv.org/abs/2407.04620")
class TrainedOnOwnBatch(Attention):
    """The state is a linear model that takes a step of descent on each mini-batch of positions, which then read it."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(chunks(x)).chunk(3, -1)  # each [batch, chunk, step, hidden]
        error = v - k
        if self.leaky:
            step = k.mT @ error  # leak
            trained = q + q @ step.cumsum(1)
        else:
            later = torch.ones(CHUNK, CHUNK, dtype=torch.bool).triu(1)
            before = predecessor((k.mT @ error).cumsum(1).flatten(2)).view(len(x), -1, HIDDEN, HIDDEN)
            trained = q + q @ before + (q @ k.mT).masked_fill(later, 0) @ error
        return self.out(joined(trained, x.shape[1]))


@leak(learned_from="https://arxiv.org/abs/1511.06349")
class LatentOfWhole(Attention):
    """A latent code is inferred from the sequence and conditions each position of its reconstruction."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.encoder = nn.GRU(HIDDEN, HIDDEN, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        states, last = self.encoder(x)
        code = last.transpose(0, 1) if self.leaky else states[:, :1]
        return self.out(x + code)  # leak
