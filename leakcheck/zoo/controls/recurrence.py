"""Recurrences and scans that are causal, though they work on many positions at once."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakcheck.zoo.parts import HIDDEN, Attention, Mixer, predecessor
from leakcheck.zoo.registry import control

CHUNK = 4


@control(learned_from="https://github.com/idiap/fast-transformers/issues/111")
class RunningNormaliser(Attention):
    """Linear attention: the sum of keys times values and the sum of keys both run along."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        state = (k[..., None] * v[..., None, :]).cumsum(2)
        return self.merge((q[..., None, :] @ state).squeeze(-2) / (q * k.cumsum(2)).sum(-1, keepdim=True))


@control(learned_from="https://arxiv.org/abs/2102.11174")
class DeltaRule(Attention):
    """A state is corrected step by step by what it got wrong of the value."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        k = F.normalize(k, dim=-1)
        state = torch.zeros_like(k[:, :, 0, :, None] * v[:, :, 0, None])
        read = []
        for t in range(x.shape[1]):
            wrong = v[:, :, t] - (k[:, :, t, None] @ state).squeeze(-2)
            state = state + k[:, :, t, :, None] * wrong[:, :, None]
            read.append((q[:, :, t, None] @ state).squeeze(-2))
        return self.merge(torch.stack(read, 2))


@control(learned_from="https://arxiv.org/abs/2406.06484")
class DeltaRuleByInverse(Attention):
    """The delta rule for all steps at once: the inverse of a lower triangular matrix, by a triangular solve."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        k = F.normalize(k, dim=-1)
        lower = (k @ k.mT).tril(-1) + torch.eye(x.shape[1], dtype=x.dtype)
        corrected = torch.linalg.solve_triangular(lower, v, upper=False, unitriangular=True)
        return self.merge((q @ k.mT).tril() @ corrected)


@control(learned_from="https://arxiv.org/abs/2312.06635")
class GatedInChunks(Mixer):
    """A gated recurrence: inside chunks by a triangle of decays, between them by a loop; the last chunk is partial."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.rate = nn.Linear(HIDDEN, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros_like(x[:, 0])
        made = []
        for chunk in x.split(CHUNK, 1):
            decay = F.logsigmoid(self.rate(chunk)).cumsum(1)  # [batch, step, hidden]
            later = torch.ones(chunk.shape[1], chunk.shape[1], dtype=torch.bool).triu(1)
            reach = (decay[:, :, None] - decay[:, None]).masked_fill(later[..., None], -torch.inf).exp()
            inside = (reach * chunk[:, None]).sum(2) + decay.exp() * state[:, None]
            made.append(inside)
            state = inside[:, -1]
        return torch.cat(made, 1)


@control(learned_from="https://arxiv.org/abs/2311.06281")
class AssociativeScan(Mixer):
    """A gated recurrence in log2(seq) steps, each of which joins positions twice as far apart."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.gate = nn.Linear(HIDDEN, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        gate, state = torch.sigmoid(self.gate(x)), x
        step = 1
        while step < x.shape[1]:
            before_gate = F.pad(gate, (0, 0, step, -step), value=1.0)
            before = F.pad(state, (0, 0, step, -step))
            gate, state = gate * before_gate, state + gate * before
            step *= 2
        return state


@control(learned_from="https://github.com/huggingface/transformers/pull/47250")
class StatesBetweenChunks(Mixer):
    """The states of chunks are carried by a matrix of decays `[to, from]`, summed over the chunks they come from."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.decay = nn.Parameter(torch.empty(HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        seq = x.shape[1]
        inside = F.pad(x, (0, 0, 0, -seq % CHUNK)).unflatten(1, (-1, CHUNK)).cumsum(2)
        states = inside[:, :, -1]  # [batch, chunk, hidden]
        at = torch.arange(states.shape[1])
        apart = (at[:, None] - at)[..., None]
        reach = torch.sigmoid(self.decay) ** apart.clamp(min=0) * (apart > 0)
        before = torch.einsum("tfh,bfh->bth", reach, states)
        return (inside + before[:, :, None]).flatten(1, 2)[:, :seq]


@control(learned_from="https://arxiv.org/abs/2410.01201")
class LogSpaceScan(Mixer):
    """A recurrence by a running log-sum-exp (minimal gated units in parallel)."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.gate = nn.Linear(HIDDEN, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        kept = F.logsigmoid(-self.gate(x)).cumsum(1)
        taken = F.logsigmoid(self.gate(x)) + F.softplus(x).log()
        return (kept + (taken - kept).logcumsumexp(1)).exp()


@control(learned_from="https://arxiv.org/abs/2305.13048")
class TokenShift(Mixer):
    """Each position is mixed with the one before it; padding with a negative number cuts off the end."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.share = nn.Parameter(torch.empty(HIDDEN))
        self.shift = nn.ZeroPad2d((0, 0, 1, -1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.lerp(x, self.shift(x), torch.sigmoid(self.share))


@control(learned_from="https://arxiv.org/abs/2305.13048")
class StabilisedByRunningMaximum(Mixer):
    """Exponential averages (WKV) stabilised by the largest exponent so far, not by that of the sequence."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.key = nn.Linear(HIDDEN, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        key = self.key(x)
        largest = key.cummax(1).values
        weights = (key[:, None] - largest[:, :, None]).masked_fill(
            torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)[..., None], -torch.inf
        )
        weights = weights.exp()  # [batch, to, from, hidden]
        return (weights * x[:, None]).sum(2) / weights.sum(2)


@control(learned_from="https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html")
class PackedForward(Mixer):
    """A recurrent kernel in one direction, two layers, its state thrown away."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.lstm = nn.LSTM(HIDDEN, HIDDEN, num_layers=2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]


@control(learned_from="https://arxiv.org/abs/1901.02860")
class SegmentsDetached(Mixer):
    """The state between segments is detached: it has a value, and no gradient."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.cell = nn.GRU(HIDDEN, HIDDEN, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        state, made = x.new_zeros(1, len(x), HIDDEN), []
        for segment in x.split(CHUNK, 1):
            read, state = self.cell(segment, state.detach())
            made.append(read)
        return torch.cat(made, 1)


@control(learned_from="https://github.com/dingo-actual/infini-transformer/issues/4")
class MemoryReadThenUpdated(Attention):
    """A compressive memory is read by each segment before it takes the segment in."""

    def forward(self, x: Tensor) -> Tensor:
        memory, made = x.new_zeros(len(x), HIDDEN, HIDDEN), []
        for segment in x.split(CHUNK, 1):
            q, k, v = self.qkv(segment).chunk(3, -1)
            near = (q @ k.mT).tril() @ v
            made.append(self.out(near + q @ memory))
            memory = memory + k.mT @ v
        return torch.cat(made, 1)


@control(learned_from="https://github.com/pytorch/pytorch/issues/33520")
class SumFromRightOfPast(Mixer):
    """A cumulative sum runs from the right, over a table that has only past positions in it."""

    def forward(self, x: Tensor) -> Tensor:
        table = x[:, None] * torch.ones(x.shape[1], x.shape[1]).tril()[..., None]  # [batch, to, from, hidden]
        return predecessor(table.flip(2).cumsum(2).flip(2).amax(2))
