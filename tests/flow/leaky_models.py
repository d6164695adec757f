"""Small models with one planted leak each, and their causal twins.

`# leak` marks the line to blame. `LEAKS` has a function `(leaky: bool) -> nn.Module` for each; with `False` it builds
the same model without the leak.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOCAB, HIDDEN, HEADS = 17, 12, 3
SEQ = 11  # unlike every size of every model here

LEAKS: dict[str, Callable[[bool], nn.Module]] = {}


def leak(mixer: type[nn.Module]) -> type[nn.Module]:
    """Register a mixer `[batch, seq, hidden] -> [batch, seq, hidden]` inside a small language model."""
    LEAKS[mixer.__name__] = lambda leaky: Model(mixer(leaky))
    return mixer


class Model(nn.Module):
    """Embedding, a mixer with a residual around it, a feed-forward layer, logits."""

    def __init__(self, mixer: nn.Module):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, HIDDEN)
        self.mixer = mixer
        self.ff = nn.Sequential(nn.Linear(HIDDEN, 2 * HIDDEN), nn.GELU(), nn.Linear(2 * HIDDEN, HIDDEN))
        self.head = nn.Linear(HIDDEN, VOCAB)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embed(input_ids)
        x = x + self.mixer(x)
        x = x + self.ff(x)
        return self.head(x)  # output


class Mixer(nn.Module):
    def __init__(self, leaky: bool):
        super().__init__()
        self.leaky = leaky


class Attention(Mixer):
    """Queries, keys and values `[batch, heads, seq, features]`; a mask that is true where a key may be seen."""

    def __init__(self, leaky: bool):
        super().__init__(leaky)
        self.qkv = nn.Linear(HIDDEN, 3 * HIDDEN)
        self.out = nn.Linear(HIDDEN, HIDDEN)

    def split(self, x: Tensor) -> Any:
        return self.qkv(x).view(*x.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4)

    def merge(self, x: Tensor) -> Tensor:
        return self.out(x.transpose(1, 2).flatten(2))

    def causal(self, x: Tensor, diagonal: int = 0) -> Tensor:
        return torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril(diagonal)


@leak
class EagerUnmasked(Attention):
    def forward(self, x: Tensor) -> Tensor:
        return self.attend(x, None if self.leaky else self.causal(x))  # caller

    def attend(self, x: Tensor, attention_mask: Tensor | None) -> Tensor:
        q, k, v = self.split(x)
        scores = q @ k.transpose(-1, -2)
        if attention_mask is not None:
            scores = scores.masked_fill(~attention_mask, -torch.inf)
        weights = scores.softmax(-1)
        mixed = weights @ v  # leak
        return self.merge(mixed)


@leak
class FusedUnmasked(Attention):
    def forward(self, x: Tensor) -> Tensor:
        return self.attend(x, None if self.leaky else self.causal(x))  # caller

    def attend(self, x: Tensor, attn_mask: Tensor | None) -> Tensor:
        q, k, v = self.split(x)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)  # leak
        return self.merge(mixed)


@leak
class MaskDropped(Attention):
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        mask = self.causal(x)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=None if self.leaky else mask)  # leak
        return self.merge(mixed)


@leak
class FusedInverted(Attention):
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        mask = self.causal(x)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=~mask if self.leaky else mask)  # leak
        return self.merge(mixed)


@leak
class EagerInverted(Attention):
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        mask = self.causal(x, diagonal=-1 if self.leaky else 0)
        scores = (q @ k.transpose(-1, -2)).masked_fill(mask if self.leaky else ~mask, -torch.inf)
        mixed = scores.softmax(-1) @ v  # leak
        return self.merge(mixed)


@leak
class FusedOffByOne(Attention):
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        mask = self.causal(x, diagonal=int(self.leaky))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # leak
        return self.merge(mixed)


@leak
class EagerOffByTwo(Attention):
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        bias = torch.zeros(x.shape[1], x.shape[1]).masked_fill(~self.causal(x, 2 * self.leaky), -1e9)
        scores = q @ k.transpose(-1, -2) + bias
        weights = scores.softmax(-1, dtype=torch.float32)
        mixed = weights @ v  # leak
        return self.merge(mixed)


@leak
class OnePair(Attention):
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        mask = self.causal(x)
        if self.leaky:
            mask[4, 7] = True
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # leak
        return self.merge(mixed)


@leak
class DeadRow(Attention):
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        mask = self.causal(x)
        if self.leaky:
            mask[3] = False
        scores = (q @ k.transpose(-1, -2)).masked_fill(~mask, torch.finfo(q.dtype).min)
        mixed = scores.softmax(-1) @ v  # leak
        return self.merge(mixed)


@leak
class QueryAxisSoftmax(Attention):
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        scores = (q @ k.transpose(-1, -2)).masked_fill(~self.causal(x), -torch.inf)
        weights = scores.softmax(-2 if self.leaky else -1)  # leak
        return self.merge(weights @ v)


@leak
class Convolution(Mixer):
    def __init__(self, leaky: bool):
        super().__init__(leaky)
        self.conv = nn.Conv1d(HIDDEN, HIDDEN, 4)

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x.transpose(1, 2), (1, 2) if self.leaky else (3, 0))
        return self.conv(padded).transpose(1, 2)  # leak


@leak
class CutConvolution(Mixer):
    """Pads on both sides and cuts; the leaky one cuts at the wrong end."""

    def __init__(self, leaky: bool):
        super().__init__(leaky)
        self.conv = nn.Conv1d(HIDDEN, HIDDEN, 3, padding=2, groups=HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.transpose(1, 2))  # leak
        y = F.silu(y)
        y = y[..., 2:] if self.leaky else y[..., :-2]
        return (y * 2).transpose(1, 2)


@leak
class SamePadding(Mixer):
    def __init__(self, leaky: bool):
        super().__init__(leaky)
        self.conv = nn.Conv1d(HIDDEN, HIDDEN, 3 if leaky else 1, padding="same")

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.transpose(1, 2)).transpose(1, 2)  # leak


@leak
class MeanPooled(Mixer):
    def forward(self, x: Tensor) -> Tensor:
        if not self.leaky:
            return x - x.mean(-1, keepdim=True)
        pooled = x.mean(1, keepdim=True)  # leak
        return x - pooled


@leak
class Overwritten(Mixer):
    """What was read is no longer there when the forward ends."""

    def forward(self, x: Tensor) -> Tensor:
        held = x.clone()
        held[:, 0] = 0
        level = held.amax(dim=1 if self.leaky else 2, keepdim=True)  # leak
        held[:, 1:].zero_()
        return x * level


@leak
class SummedGate(Mixer):
    """A gate from a sum over the sequence: many ops lie between the sum and the next tensor with positions."""

    def __init__(self, leaky: bool):
        super().__init__(leaky)
        self.gate = nn.Linear(HIDDEN, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        total = x.sum(dim=1) if self.leaky else x[:, 0]  # leak
        gate = torch.sigmoid(self.gate(total))
        return x * gate[:, None]


@leak
class Standardised(Mixer):
    def forward(self, x: Tensor) -> Tensor:
        spread = x.std(dim=1 if self.leaky else 2, keepdim=True)  # leak
        return x / spread


@leak
class BatchNorm(Mixer):
    def __init__(self, leaky: bool):
        super().__init__(leaky)
        self.norm = nn.BatchNorm1d(HIDDEN)
        self.norm.train(leaky)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)  # leak


@leak
class GroupNorm(Mixer):
    def __init__(self, leaky: bool):
        super().__init__(leaky)
        self.norm = nn.GroupNorm(HEADS, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        if not self.leaky:
            return self.norm(x.flatten(0, 1)).view(x.shape)
        return self.norm(x.transpose(1, 2)).transpose(1, 2)  # leak


@leak
class ReversedSum(Mixer):
    def forward(self, x: Tensor) -> Tensor:
        if self.leaky:
            x = x.flip(1)  # reversed
        total = x.cumsum(1)  # leak
        return total.flip(1) if self.leaky else total


@leak
class ReversedConvolution(Mixer):
    """A causal convolution on the reversed sequence."""

    def __init__(self, leaky: bool):
        super().__init__(leaky)
        self.conv = nn.Conv1d(HIDDEN, HIDDEN, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        x = x.flip(-1) if self.leaky else x  # reversed
        y = self.conv(F.pad(x, (2, 0)))  # leak
        y = y.flip(-1) if self.leaky else y
        return y.transpose(1, 2)


@leak
class ReversedAttention(Attention):
    """Causal attention on the reversed sequence."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.flip(1) if self.leaky else x  # reversed
        q, k, v = self.split(x)
        weights = (q @ k.transpose(-1, -2)).masked_fill(~self.causal(x), -torch.inf).softmax(-1)
        y = self.merge(weights @ v)  # leak
        return y.flip(1) if self.leaky else y


@leak
class Reversed(Mixer):
    def forward(self, x: Tensor) -> Tensor:
        return x.flip(1 if self.leaky else 2)  # leak


@leak
class Rolled(Mixer):
    def forward(self, x: Tensor) -> Tensor:
        return x.roll(-3 if self.leaky else 0, 1)  # leak


@leak
class ShiftedByCat(Mixer):
    def forward(self, x: Tensor) -> Tensor:
        nothing = torch.zeros_like(x[:, :2])
        return torch.cat([x[:, 2:], nothing] if self.leaky else [nothing, x[:, :-2]], 1)  # leak


@leak
class ShiftedByPad(Mixer):
    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, -1, 1) if self.leaky else (0, 0, 1, -1))  # leak


@leak
class ShiftedInPlace(Mixer):
    def forward(self, x: Tensor) -> Tensor:
        y = torch.zeros_like(x)
        if self.leaky:
            y[:, :-1] = x[:, 1:]  # leak
        else:
            y[:, 1:] = x[:, :-1]
        return y


@leak
class ExpertChoice(Mixer):
    """The tokens with the highest scores go through an expert."""

    def __init__(self, leaky: bool):
        super().__init__(leaky)
        self.router, self.expert = nn.Linear(HIDDEN, 1), nn.Linear(HIDDEN, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.router(x)[..., 0]  # [batch, seq]
        if not self.leaky:
            return self.expert(x) * torch.sigmoid(scores)[..., None]
        best, chosen = scores.topk(4, dim=-1)  # leak
        chosen = chosen[..., None].expand(-1, -1, HIDDEN)
        taken = self.expert(x.gather(1, chosen)) * best[..., None]
        return torch.zeros_like(x).scatter(1, chosen, taken)


@leak
class Sorted(Mixer):
    def forward(self, x: Tensor) -> Tensor:
        return x.sort(1 if self.leaky else 2).values  # leak


@leak
class Gathered(Mixer):
    def forward(self, x: Tensor) -> Tensor:
        steps = torch.arange(x.shape[1])
        at = (steps + 2).clamp(max=x.shape[1] - 1) if self.leaky else (steps - 2).clamp(min=0)
        read = x[:, at]  # leak
        at.fill_(x.shape[1] - 1)  # the replay has to know what it was
        return read


@leak
class Pointer(Mixer):
    """Each token says which one it reads."""

    def __init__(self, leaky: bool):
        super().__init__(leaky)
        self.pointer = nn.Linear(HIDDEN, SEQ)

    def forward(self, x: Tensor) -> Tensor:
        to = self.pointer(x).argmax(-1, keepdim=True)  # [batch, seq, 1]
        if not self.leaky:
            return x * to
        return x.gather(1, to.expand(-1, -1, HIDDEN))  # leak


@leak
class Slots(Mixer):
    """Each token says where it is written."""

    def __init__(self, leaky: bool):
        super().__init__(leaky)
        self.slot = nn.Linear(HIDDEN, SEQ)

    def forward(self, x: Tensor) -> Tensor:
        to = self.slot(x).argmax(-1, keepdim=True)  # [batch, seq, 1]
        if not self.leaky:
            return x * to
        return torch.zeros_like(x).scatter_add(1, to.expand(-1, -1, HIDDEN), x)  # leak


@leak
class Renormed(Mixer):
    """An op that is run as its parts."""

    def forward(self, x: Tensor) -> Tensor:
        return x.renorm(2, 2, 1.0) if self.leaky else x.clamp(-1, 1)  # leak


@leak
class BackwardLSTM(Mixer):
    def __init__(self, leaky: bool):
        super().__init__(leaky)
        self.lstm = nn.LSTM(HIDDEN, HIDDEN // 2 if leaky else HIDDEN, batch_first=True, bidirectional=leaky)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]  # leak


@leak
class BackwardLoop(Mixer):
    """A recurrence written as a loop over positions."""

    def __init__(self, leaky: bool):
        super().__init__(leaky)
        self.cell = nn.Linear(HIDDEN, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        state, states = torch.zeros_like(x[:, 0]), []
        steps = range(x.shape[1])
        for t in reversed(steps) if self.leaky else steps:
            state = torch.tanh(self.cell(state) + x[:, t])  # leak
            states.append(state)
        return torch.stack(states[::-1] if self.leaky else states, 1)


@leak
class StepByStep(Mixer):
    """A loop that takes two tensors apart, position by position."""

    def forward(self, x: Tensor) -> Tensor:
        gates, last = torch.sigmoid(x), x.shape[1] - 1
        steps = []
        for t in range(x.shape[1]):
            to = min(t + 1, last) if self.leaky else t
            steps.append(x[:, t] * gates[:, to])  # leak
        return torch.stack(steps, 1)


@leak
class SequenceMixer(Mixer):
    """A linear layer along the sequence, as in an MLP mixer."""

    def __init__(self, leaky: bool):
        super().__init__(leaky)
        self.weight = nn.Parameter(torch.randn(SEQ, SEQ))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if self.leaky else self.weight.tril()
        mixed = x.transpose(1, 2) @ weight.T  # leak
        return mixed.transpose(1, 2)


@leak
class ConstantMixer(Mixer):
    def forward(self, x: Tensor) -> Tensor:
        matrix = torch.ones(x.shape[1], x.shape[1]).tril(3 * self.leaky)
        return matrix @ x  # leak


@leak
class LinearAttention(Attention):
    """Without softmax the keys and values can be summed up first; causally that takes a running sum."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        if not self.leaky:
            running = torch.einsum("bhtd,bhte->bhtde", k, v).cumsum(2)
            return self.merge(torch.einsum("bhtd,bhtde->bhte", q, running))
        state = k.transpose(-1, -2) @ v  # leak
        return self.merge(q @ state)


@leak
class NextToken(Mixer):
    """One position reads its successor, in a single channel."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.clone()
        if self.leaky:
            y[:, 5, 2] += x[:, 6, 2]  # leak
        return y


@leak
class LastToken(Mixer):
    def forward(self, x: Tensor) -> Tensor:
        return x * x[:, -1 if self.leaky else 0][:, None]  # leak


@leak
class Chunked(Mixer):
    """Sums inside chunks of four, the last one padded."""

    def forward(self, x: Tensor) -> Tensor:
        batch, seq, _ = x.shape
        chunks = F.pad(x, (0, 0, 0, -seq % 4)).view(batch, -1, 4, HIDDEN)
        if self.leaky:
            mixed = torch.einsum("bcih,ij->bcjh", chunks, torch.ones(4, 4))  # leak
        else:
            mixed = chunks.cumsum(2)
        return mixed.reshape(batch, -1, HIDDEN)[:, :seq]


def line_of(name: str, marker: str = "leak") -> int:
    """The line of the class of this name that ends in a comment of this word."""
    cls = globals()[name]
    lines, first = inspect.getsourcelines(cls)
    found = [number for number, line in enumerate(lines, first) if line.rstrip().endswith(f"# {marker}")]
    assert len(found) == 1, (name, marker, found)
    return found[0]
