"""Decoding with a cache gives what the full forward gives, and shows no position its future."""

from collections.abc import Sequence

import torch

from leakcheck import codes
from leakcheck.auditing.policies.question import Order, Question
from leakcheck.auditing.policies.registry import policy
from leakcheck.auditing.policies.running import ROWS, decode, decode_last, drawn, forward, usable
from leakcheck.config import Configuration
from leakcheck.probes.probe import Prober
from leakcheck.subjects.decoding import cache_argument

_SINGLE = 24  # tokens that are decoded one by one at most


@policy("cache", needs="past_key_values or cache_params in eval mode")
def cache(prober: Prober, configuration: Configuration) -> Sequence[Question]:
    """That two ways to run a model agree has no proof: probes compare them.

    Whether a chunk onto a cache shows its own future to its past is a matter of labels, which are positions.
    """
    masks = ("none", "ones", "left-padded")  # nobody decodes behind padding on the right
    if cache_argument(prober.model) is None or configuration.mode != "eval" or configuration.mask not in masks:
        return ()
    tokens, valid = drawn(prober, ROWS), usable(prober, configuration, ROWS)
    full = forward(configuration)
    padded = int((~valid[0]).sum())
    several = _several(prober.seq, padded)
    ways = {"token by token": _singles(prober.seq, padded), "in chunks of several tokens": several}
    agree = [
        Question(
            code=codes.CACHE_DISAGREES,
            what=f"a cache, {how} ({'+'.join(map(str, chunks))})",
            run=decode(configuration, chunks),
            tokens=tokens,
            valid=valid,
            same_as=full,
            chunks=chunks,
        )
        for how, chunks in ways.items()
    ]
    at = torch.arange(prober.seq).expand(ROWS, -1)
    last = prober.seq - several[-1]  # where the last chunk begins
    cuts = range(last + 1, prober.seq)
    if not cuts:
        return agree
    future = Question(
        code=codes.CACHE_SHOWS_FUTURE,
        what="a later position of the chunk that is decoded onto a cache",
        run=decode(configuration, several),
        tokens=tokens,
        valid=valid,
        orders=(Order(at, at),),
        groups=tuple((f"position {cut} and later", at >= cut) for cut in cuts),
        same_as=full,
        chunks=several,
        last=decode_last(configuration, several, tokens),
    )
    return [future, *agree]


def _singles(seq: int, padded: int) -> tuple[int, ...]:
    """One by one, padding with the first; of a long sequence the first and the last."""
    ones = seq - padded - 1
    if ones <= _SINGLE:
        return (padded + 1, *(1,) * ones)
    half = _SINGLE // 2
    return (padded + 1, *(1,) * half, ones - _SINGLE, *(1,) * half)


def _several(seq: int, padded: int) -> tuple[int, ...]:
    """A first piece onto an empty cache, padding in it; two more onto what it leaves, a single token between them."""
    piece = max(1, (seq - padded - 1) // 3)
    return (seq - 1 - 2 * piece, piece, 1, piece)
