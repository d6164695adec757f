"""Architectures of transformers in which tokens take unusual ways, built small."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from leakcheck.subjects import architectures
from leakcheck.zoo.parts import HIDDEN, VOCAB, Attention, so_far
from leakcheck.zoo.registry import control


class Logits(nn.Module):
    """A model of transformers as a function of token ids alone: one backend, no masks."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.model(input_ids, use_cache=False).logits


def mixtral(implementation: str) -> PreTrainedModel:
    """A small mixture of experts, chosen by tokens, that computes in one of three ways."""
    model = architectures.build("mixtral")
    model.set_experts_implementation(implementation)
    return model


@control(
    learned_from="https://github.com/huggingface/transformers/blob/main/src/transformers/models/gemma3/modeling_gemma3.py",
    weights="as built",
)
def gemma3_layers() -> nn.Module:
    """Layers with a window and layers without take turns, each with a rotation of its own."""
    return Logits(architectures.build("gemma3_text"))


@control(
    learned_from="https://github.com/huggingface/transformers/blob/main/src/transformers/integrations/moe.py",
    weights="as built",
)
def mixtral_in_a_loop() -> nn.Module:
    """Token-choice experts in a loop over those that were hit."""
    return Logits(mixtral("eager"))


@control(
    learned_from="https://github.com/huggingface/transformers/blob/main/src/transformers/integrations/moe.py",
    weights="as built",
)
def mixtral_grouped() -> nn.Module:
    """Token-choice experts by one product of tokens that were sorted by expert."""
    return Logits(mixtral("grouped_mm"))


@control(
    learned_from="https://github.com/huggingface/transformers/blob/main/src/transformers/integrations/moe.py",
    weights="as built",
)
def mixtral_batched() -> nn.Module:
    """Token-choice experts by a batch of products, with the weights gathered for each token."""
    return Logits(mixtral("batched_mm"))


@control(learned_from="https://github.com/huggingface/transformers/issues/34817", weights="as built", seq_len=19)
def mamba2_in_chunks() -> nn.Module:
    """A state space model in several chunks and a partial one."""
    return Logits(architectures.build("mamba2"))


@control(
    learned_from="https://github.com/huggingface/transformers/blob/main/src/transformers/models/jamba/modeling_jamba.py",
    weights="as built",
)
def jamba_layers() -> nn.Module:
    """State spaces, attention and experts in one model."""
    return Logits(architectures.build("jamba"))


@control(
    learned_from="https://github.com/huggingface/transformers/blob/main/src/transformers/models/gpt_neo/modeling_gpt_neo.py",
    weights="as built",
)
def gpt_neo_local() -> nn.Module:
    """Local attention by a buffer that is the exclusive or of two triangles."""
    return Logits(architectures.build("gpt_neo"))


class Padded(Attention):
    """Attention to those tokens that are there and not later."""

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        q, k, v = self.split(x)
        seen = self.causal(x)
        if present is not None:
            seen = seen & present[:, None, None].bool()
        weights = (q @ k.mT).masked_fill(~seen, -torch.inf).softmax(-1)
        return self.merge(weights.nan_to_num(0) @ v)


@control(learned_from="https://github.com/pytorch/pytorch/issues/103749")
class PaddedBatch(nn.Module):
    """Padding is masked beside what is later; a query before all tokens sees nothing, and its NaN becomes zero."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, HIDDEN)
        self.mixer = Padded()
        self.head = nn.Linear(HIDDEN, VOCAB)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        x = self.embed(input_ids)
        return self.head(so_far(x) + self.mixer(x, attention_mask))
