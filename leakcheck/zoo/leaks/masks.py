"""Attention whose mask is lost, wrong, or applied where it does not block."""

import torch
import torch.nn.functional as F
from torch import Tensor

from leakcheck.zoo.parts import Attention
from leakcheck.zoo.registry import leak


@leak(learned_from="https://github.com/huggingface/transformers/pull/48769")
class EagerUnmasked(Attention):
    """The kernel masks only by the mask that it is given, and it is given none."""

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


@leak(learned_from="https://github.com/rasbt/LLMs-from-scratch/issues/1061")
class FusedInverted(Attention):
    """A boolean mask that says what to block, given to a kernel that reads it as what to see."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        mask = self.causal(x)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=~mask if self.leaky else mask)  # leak
        return self.merge(mixed)
