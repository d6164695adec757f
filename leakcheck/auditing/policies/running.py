"""What the questions of all policies have in common: tokens, and ways to run them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from leakcheck.config import Configuration
from leakcheck.probes.groups import Run
from leakcheck.probes.probe import Prober
from leakcheck.subjects import decoding, running
from leakcheck.subjects.adapter import Adapter

ROWS = 2  # with one alone, what mixes up rows and positions would go unseen


def drawn(prober: Prober, rows: int) -> Tensor:
    """Random token ids `[rows, seq]`."""
    generator = torch.Generator().manual_seed(prober.seed)
    return torch.randint(prober.vocab_size, (rows, prober.seq), generator=generator)


def usable(prober: Prober, configuration: Configuration, rows: int) -> Tensor:
    """Boolean `[rows, seq]`: what is no padding."""
    return running.valid_positions(configuration, prober.seq).expand(rows, -1).clone()


def steps_alone(prober: Prober) -> bool:
    """Whether each input has an output of its own, in rows that are run together: else positions cannot be told."""
    return not isinstance(prober.model, Adapter) or (prober.model.step == 1 and not prober.model.by_rows)


def forward(configuration: Configuration, arguments: Mapping[str, Any] | None = None) -> Run:
    def run(model: nn.Module, tokens: Tensor) -> Tensor:
        return running.forward(model, tokens, configuration, arguments)

    return run


def decode_last(configuration: Configuration, chunks: Sequence[int], tokens: Tensor) -> Run:
    """Runs token ids `[rows, chunks[-1]]` onto the cache of the first of `tokens` `[rows, seq]`."""
    size = chunks[-1]

    def run(model: nn.Module, last: Tensor) -> Tensor:
        whole = torch.cat([tokens[:, :-size], last], 1)
        return decoding.decode(model, whole, configuration, chunks)[:, -size:]

    return run


def decode(configuration: Configuration, chunks: Sequence[int]) -> Run:
    def run(model: nn.Module, tokens: Tensor) -> Tensor:
        return decoding.decode(model, tokens, configuration, chunks)

    return run
