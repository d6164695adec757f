"""Mixtral as litgpt has it: experts in a loop."""

from litgpt import GPT, Config
from torch import nn


def build() -> nn.Module:
    config = Config.from_name(
        "Mixtral-8x7B-v0.1",
        block_size=64,
        vocab_size=97,
        padded_vocab_size=97,
        n_layer=2,
        n_head=4,
        n_query_groups=2,
        n_embd=32,
        intermediate_size=48,
        n_expert=4,
    )
    return GPT(config)
