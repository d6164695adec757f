"""What reaches another row of the batch, another document, or a valid position from padding; what a cache changes."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakcheck.zoo.parts import HIDDEN, VOCAB, Attention, Mixer
from leakcheck.zoo.registry import leak

# --- rows of a batch --------------------------------------------------------------------------------------------------


@leak(
    policy="batch", codes=("LC401",), blind=("gradient",), learned_from="https://github.com/om-ai-lab/OmDet/issues/19"
)
class RowsAsSequence(Attention):
    """Attention whose kernel expects the sequence first, and is given the batch first."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(0, 1) if self.leaky else x
        q, k, v = self.split(x)
        weights = (q @ k.transpose(-1, -2)).masked_fill(~self.causal(x), -torch.inf).softmax(-1)
        mixed = self.merge(weights @ v)  # leak
        return mixed.transpose(0, 1) if self.leaky else mixed


@leak(
    policy="batch",
    codes=("LC401",),
    blind=("gradient",),
    learned_from="https://github.com/Anush008/fastembed-rs/issues/107",
)
class QuantisedPerBatch(Mixer):
    """Activations rounded to 256 steps of a scale that the largest of all rows sets."""

    def forward(self, x: Tensor) -> Tensor:
        scale = x.abs().amax() if self.leaky else x.abs().amax(-1, keepdim=True)  # leak
        return (x / scale * 127).round() * scale / 127


@leak(
    policy="batch",
    codes=("LC401",),
    blind=("gradient",),
    mode="train",
    learned_from="https://github.com/pytorch/pytorch/issues/70529",
)
class BatchStatistics(Mixer):
    """Batch norm in train mode: the statistics are those of all rows."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.norm = nn.BatchNorm1d(HIDDEN) if leaky else nn.LayerNorm(HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2) if self.leaky else self.norm(x)  # leak


@leak(
    policy="batch",
    codes=("LC401",),
    blind=("gradient",),
    learned_from="https://github.com/deepseek-ai/DeepSeek-MoE/issues/29",
)
class CapacityOverBatch(Mixer):
    """Experts take their first four tokens of the whole batch, and drop the others."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.router, self.experts = nn.Linear(HIDDEN, 2), nn.Linear(HIDDEN, 2 * HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        chosen = (self.router(x).argmax(-1, keepdim=True) == torch.arange(2)).long()  # [batch, seq, experts]
        rank = chosen.flatten(0, 1).cumsum(0).view_as(chosen) if self.leaky else chosen.cumsum(1)  # leak
        kept = chosen * (rank <= 4)
        return (self.experts(x).unflatten(-1, (2, HIDDEN)) * kept[..., None]).sum(2)


@leak(
    policy="batch",
    codes=("LC401",),
    blind=("gradient",),
    learned_from="https://github.com/pytorch/pytorch/issues/67651",
)
class HeadsSplicedIntoRows(Attention):
    """Heads are merged by a view in the wrong order, so that those of one row are put into another."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        weights = (q @ k.transpose(-1, -2)).masked_fill(~self.causal(x), -torch.inf).softmax(-1)
        heads = (weights @ v).transpose(0, 1)  # [heads, batch, seq, features]
        if self.leaky:
            return self.out(heads.permute(2, 0, 1, 3).reshape(x.shape[1], x.shape[0], -1).transpose(0, 1))  # leak
        return self.merge(heads.transpose(0, 1))


# --- documents of a row -----------------------------------------------------------------------------------------------


class Told(nn.Module):
    """A small language model that is `told` something of each token, `[batch, seq]`."""

    def __init__(self, leaky: bool):
        super().__init__()
        self.leaky = leaky
        self.embed, self.head = nn.Embedding(VOCAB, HIDDEN), nn.Linear(HIDDEN, VOCAB)
        self.qkv, self.kernel = nn.Linear(HIDDEN, 3 * HIDDEN), nn.Linear(3, HIDDEN)

    def logits(self, input_ids: Tensor, told: Tensor) -> Tensor:
        x = self.embed(input_ids)  # [batch, seq, hidden]
        return self.head(x + self.mix(x, told))

    def mix(self, x: Tensor, told: Tensor) -> Tensor:
        raise NotImplementedError


class Documents(Told):
    """`document_ids` `[batch, seq]` say which document a token is of."""

    def forward(self, input_ids: Tensor, document_ids: Tensor | None = None) -> Tensor:
        return self.logits(input_ids, torch.zeros_like(input_ids) if document_ids is None else document_ids)

    def attention(self, x: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
        """Weights `[batch, query, key]` and values `[batch, key, hidden]`."""
        q, k, v = self.qkv(x).chunk(3, -1)
        return (q @ k.transpose(-1, -2)).masked_fill(~allowed, -torch.inf).softmax(-1), v


def _causal(x: Tensor) -> Tensor:
    return torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()


@leak(
    policy="document",
    codes=("LC205",),
    blind=("gradient",),
    learned_from="https://github.com/alex-hh/profam/issues/495",
)
class MaskIgnoresDocuments(Documents):
    """The mask is causal and no more."""

    def mix(self, x: Tensor, documents: Tensor) -> Tensor:
        allowed = _causal(x) if self.leaky else _causal(x) & (documents[:, :, None] == documents[:, None, :])
        weights, values = self.attention(x, allowed)
        return weights @ values  # leak


@leak(
    policy="document",
    codes=("LC205",),
    blind=("gradient",),
    learned_from="https://github.com/huggingface/nanoVLM/pull/204",
)
class PositionsBeginAnew(Documents):
    """Positions begin anew with each document; the mask does not look at them."""

    def forward(self, input_ids: Tensor, position_ids: Tensor | None = None) -> Tensor:
        at = torch.arange(input_ids.shape[1]) if position_ids is None else position_ids
        at = at.expand_as(input_ids)
        return super().forward(input_ids, (at == 0).cumsum(-1))

    def mix(self, x: Tensor, documents: Tensor) -> Tensor:
        allowed = _causal(x) if self.leaky else _causal(x) & (documents[:, :, None] == documents[:, None, :])
        weights, values = self.attention(x, allowed)
        return weights @ values  # leak


@leak(
    policy="document",
    codes=("LC205",),
    blind=("gradient",),
    learned_from="https://github.com/huggingface/transformers/pull/46588",
)
class ConvolutionOverBorders(Documents):
    """Attention is kept within documents, and a short convolution slides over their borders."""

    def mix(self, x: Tensor, documents: Tensor) -> Tensor:
        weights, values = self.attention(x, _causal(x) & (documents[:, :, None] == documents[:, None, :]))
        weighed = weights @ values
        for back in range(3):
            near = F.pad(x, (0, 0, back, 0))[:, : x.shape[1]]  # leak
            if not self.leaky:
                near = near * (documents == F.pad(documents, (back, 0), value=-1)[:, : x.shape[1]])[..., None]
            weighed = weighed + near * self.kernel.weight[:, back]  # leak
        return weighed


@leak(
    policy="document",
    codes=("LC205",),
    blind=("gradient",),
    learned_from="https://github.com/PrimeIntellect-ai/prime-rl/issues/3000",
)
class StateOverBorders(Documents):
    """A recurrent state that goes on from one document to the next."""

    def mix(self, x: Tensor, documents: Tensor) -> Tensor:
        state, states = torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            if t and not self.leaky:
                state = state * (documents[:, t] == documents[:, t - 1])[:, None]
            state = 0.7 * state + x[:, t]  # leak
            states.append(state)
        return torch.stack(states, 1)


# --- padding ----------------------------------------------------------------------------------------------------------


class Padded(Told):
    """`attention_mask` `[batch, seq]` says what is no padding."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.logits(input_ids, torch.ones_like(input_ids) if attention_mask is None else attention_mask)


@leak(
    policy="padding",
    codes=("LC204",),
    blind=("gradient",),
    mask="left-padded",
    learned_from="https://github.com/ml-explore/mlx-lm/issues/1906",
)
class LeftPaddingAttended(Padded):
    """The mask of the padding never reaches attention, whose own is causal."""

    def mix(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        own = torch.eye(x.shape[1], dtype=torch.bool)  # a padded query has to see something
        allowed = _causal(x) if self.leaky else _causal(x) & (mask[:, None, :].bool() | own)
        weights = (q @ k.transpose(-1, -2)).masked_fill(~allowed, -torch.inf).softmax(-1)
        return weights @ v  # leak


@leak(
    policy="padding",
    codes=("LC204",),
    blind=("gradient",),
    mask="left-padded",
    learned_from="https://github.com/jsboige/CoursIA/issues/15045",
)
class MeanOverPadding(Padded):
    """A running mean that counts padding among the positions."""

    def mix(self, x: Tensor, mask: Tensor) -> Tensor:
        kept = torch.ones_like(mask)[..., None] if self.leaky else mask[..., None]
        total = (x * kept).cumsum(1)  # leak
        return total / kept.cumsum(1).clamp(min=1)


@leak(
    policy="padding",
    codes=("LC204",),
    blind=("gradient",),
    mask="right-padded",
    learned_from="https://github.com/pytorch/pytorch/issues/81985",
)
class NormOverPadding(Padded):
    """A norm over time, whose statistics are those of padding too."""

    def mix(self, x: Tensor, mask: Tensor) -> Tensor:
        kept = torch.ones_like(mask)[..., None] if self.leaky else mask[..., None]
        power = (x * x * kept).sum(1, keepdim=True) / kept.sum(1, keepdim=True)  # leak
        return x * power.rsqrt()


@leak(
    policy="padding",
    codes=("LC204",),
    blind=("gradient",),
    mask="left-padded",
    learned_from="https://github.com/pytorch/audio/issues/4205",
)
class ConvolutionReadsPadding(Padded):
    """Attention keeps to the mask, a convolution reads whatever stands beside it."""

    def mix(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x if self.leaky else x * mask[..., None]
        weights = self.kernel.weight[:, None, :]  # [hidden, 1, 3]
        return F.conv1d(F.pad(x.transpose(1, 2), (2, 0)), weights, groups=HIDDEN).transpose(1, 2)  # leak


# --- a cache ----------------------------------------------------------------------------------------------------------


class Cached(nn.Module):
    """A small language model that decodes onto `past_key_values`: what `mix` keeps of the past."""

    def __init__(self, leaky: bool):
        super().__init__()
        self.leaky = leaky
        self.embed, self.head = nn.Embedding(VOCAB, HIDDEN), nn.Linear(HIDDEN, VOCAB)
        self.at, self.qkv = nn.Embedding(64, HIDDEN), nn.Linear(HIDDEN, 3 * HIDDEN)

    def forward(
        self, input_ids: Tensor, past_key_values: Any = None, use_cache: bool = False
    ) -> tuple[Tensor, Any] | Tensor:
        mixed, kept = self.mix(self.embed(input_ids), past_key_values)
        logits = self.head(mixed)
        return (logits, kept) if use_cache else logits

    def mix(self, x: Tensor, past: Any) -> tuple[Tensor, Any]:
        raise NotImplementedError

    def grown(self, x: Tensor, past: Any) -> tuple[Tensor, ...]:
        """Queries of the new positions; keys and values of all."""
        q, k, v = self.qkv(x).chunk(3, -1)
        if past is not None:
            k, v = torch.cat([past[0], k], 1), torch.cat([past[1], v], 1)
        return q, k, v

    def causal(self, queries: int, keys: int) -> Tensor:
        return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)


@leak(
    policy="cache",
    codes=("LC302",),
    blind=("gradient",),
    learned_from="https://github.com/mlx-node/mlx-node/pull/24",
)
class ChunkUnmasked(Cached):
    """There is a mask only where there are as many queries as keys, so none for a chunk onto a cache."""

    def mix(self, x: Tensor, past: Any) -> tuple[Tensor, Any]:
        q, k, v = self.grown(x, past)
        scores = q @ k.transpose(-1, -2)  # leak
        if not self.leaky or past is None:
            scores = scores.masked_fill(~self.causal(q.shape[1], k.shape[1]), -torch.inf)
        return x + scores.softmax(-1) @ v, (k, v)  # leak


@leak(
    policy="cache",
    codes=("LC301",),
    blind=("flow", "gradient"),
    blamed=False,
    learned_from="https://github.com/lucidrains/rotary-embedding-torch/issues/11",
)
class PositionsNotAdvanced(Cached):
    """Positions of what is decoded onto a cache are counted from zero again."""

    def mix(self, x: Tensor, past: Any) -> tuple[Tensor, Any]:
        begin = 0 if self.leaky or past is None else past[0].shape[1]  # leak
        x = x + self.at(begin + torch.arange(x.shape[1]))
        q, k, v = self.grown(x, past)
        scores = (q @ k.transpose(-1, -2)).masked_fill(~self.causal(q.shape[1], k.shape[1]), -torch.inf)
        return x + scores.softmax(-1) @ v, (k, v)


@leak(
    policy="cache",
    codes=("LC301",),
    blind=("flow", "gradient"),
    blamed=False,
    learned_from="https://github.com/huggingface/transformers/issues/46032",
)
class StateDroppedByChunk(Cached):
    """A recurrent state that a single token takes up, and a chunk of several begins anew."""

    def mix(self, x: Tensor, past: Any) -> tuple[Tensor, Any]:
        fresh = past is None or (self.leaky and x.shape[1] > 1)  # leak
        state, states = torch.zeros_like(x[:, 0]) if fresh else past, []
        for t in range(x.shape[1]):
            state = 0.7 * state + x[:, t]
            states.append(state)
        return x + torch.stack(states, 1), state
