"""Brute force: change every token from a cut on, one row at a time, in float64, and see which earlier positions move.

Written without any of leakcheck, so that the two can disagree.
"""

import copy

import torch
from torch import nn

SEED = 20_11


def moves(model: nn.Module, *, seq: int, vocab_size: int, train: bool = False, draws: int = 2) -> torch.Tensor:
    """Largest move `[cut, position]` of the logits at `position` when every token at or after `cut` is replaced."""
    generator = torch.Generator().manual_seed(SEED)
    base = torch.randint(vocab_size, (seq,), generator=generator)
    largest = torch.zeros(seq, seq, dtype=torch.float64)
    for _ in range(draws):
        other = (base + torch.randint(1, vocab_size, (seq,), generator=generator)) % vocab_size
        largest = torch.maximum(largest, moves_between(model, base, other, train=train))
    return largest


def moves_between(
    model: nn.Module, base: torch.Tensor, other: torch.Tensor, *, norm: float = 1.0, train: bool = False
) -> torch.Tensor:
    """As `moves`, for one given replacement whose embeddings are `norm` times as long."""
    model = copy.deepcopy(model).double().train(train)
    seq = len(base)
    before = logits(model, base, torch.ones(seq))
    moved = torch.zeros(seq, seq, dtype=torch.float64)
    for cut in range(seq):
        tokens, scale = base.clone(), torch.ones(seq)
        tokens[cut:] = other[cut:]
        scale[cut:] = norm
        moved[cut] = (logits(model, tokens, scale) - before).abs().amax(-1)
    return moved


def largest_leak(moved: torch.Tensor) -> float:
    """The largest move of a position before its cut."""
    return moved.tril(-1).max().item()  # [cut, position]: position < cut


def logits(model: nn.Module, tokens: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    embedding = next(module for module in model.modules() if isinstance(module, nn.Embedding))
    hook = embedding.register_forward_hook(lambda module, args, output: output * scale[:, None].to(output.dtype))
    torch.manual_seed(SEED)  # what is random inside is the same for every row
    try:
        with torch.no_grad():
            output = model(tokens[None])
    finally:
        hook.remove()
    return getattr(output, "logits", output)[0].double()
