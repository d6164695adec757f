"""Correct models in which rows, documents, padding or a cache come close to what must not be reached."""

from typing import Any

import torch
from torch import Tensor, nn

from leakcheck.zoo.parts import HIDDEN, VOCAB, Mixer
from leakcheck.zoo.registry import control

_ALL = ("batch", "document", "padding", "cache")


@control(policies=("causal", "batch"), learned_from="https://github.com/pytorch/pytorch/issues/70529")
class SortedRows(Mixer):
    """Rows are put in another order, worked on, and put back."""

    def forward(self, x: Tensor) -> Tensor:
        order = torch.arange(len(x) - 1, -1, -1)
        return x[order].cumsum(1)[order]


@control(
    policies=("causal", *_ALL),
    proven=False,
    learned_from="https://github.com/huggingface/transformers/issues/46032",
)
class EverythingAtOnce(nn.Module):
    """Documents, padding and a cache in one attention, each of them masked; onto a cache documents go on."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(VOCAB, HIDDEN), nn.Linear(HIDDEN, VOCAB)
        self.qkv = nn.Linear(HIDDEN, 3 * HIDDEN)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        document_ids: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool = False,
    ) -> tuple[Tensor, Any] | Tensor:
        x = self.embed(input_ids)  # [batch, seq, hidden]
        q, k, v = self.qkv(x).chunk(3, -1)
        if past_key_values is not None:
            k, v = torch.cat([past_key_values[0], k], 1), torch.cat([past_key_values[1], v], 1)
        queries, keys = q.shape[1], k.shape[1]
        allowed = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
        if document_ids is not None:
            allowed = allowed & (document_ids[:, :, None] == document_ids[:, None, :])
        if attention_mask is not None:
            own = torch.eye(keys, dtype=torch.bool)[keys - queries :]
            allowed = allowed & (attention_mask[:, None, :].bool() | own)
        weights = (q @ k.transpose(-1, -2)).masked_fill(~allowed, -torch.inf).softmax(-1)
        logits = self.head(x + weights @ v)
        return (logits, (k, v)) if use_cache else logits


@control(policies=("causal", "batch"), learned_from="https://github.com/deepseek-ai/DeepSeek-MoE/issues/29")
class CapacityOfEachRow(Mixer):
    """Experts take their first four tokens of each row: what is dropped depends on what came before it there."""

    def __init__(self, leaky: bool = False):
        super().__init__(leaky)
        self.router, self.experts = nn.Linear(HIDDEN, 2), nn.Linear(HIDDEN, 2 * HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        chosen = (self.router(x).argmax(-1, keepdim=True) == torch.arange(2)).long()  # [batch, seq, experts]
        kept = chosen * (chosen.cumsum(1) <= 4)
        return (self.experts(x).unflatten(-1, (2, HIDDEN)) * kept[..., None]).sum(2)
