"""GPT as litgpt has it, which grew out of nanoGPT."""

from litgpt import GPT, Config
from torch import nn


def build() -> nn.Module:
    config = Config(block_size=64, vocab_size=97, padded_vocab_size=97, n_layer=2, n_head=4, n_embd=32)
    return GPT(config)
