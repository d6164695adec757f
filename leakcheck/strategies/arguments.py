"""For every law what it takes besides the model."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from hypothesis import strategies as st

from leakcheck.laws import LAWS, chunks
from leakcheck.strategies.inputs import LENGTHS, VOCABULARY, chunkings, cuts, packings, paddings, replacements, tokens

Arguments = dict[str, Any]

_DRAWN: dict[str, Callable[..., st.SearchStrategy[Arguments]]] = {}


def arguments(
    law: str, *, vocab_size: int = VOCABULARY, lengths: Sequence[int] = LENGTHS, step: int = 1
) -> st.SearchStrategy[Arguments]:
    """Arguments for the law of that name, to be called as `LAWS[law](model, **arguments)`.

    Sequences have one of the `lengths`, ascending and above one; they are cut at multiples of `step`.

    Raises:
        KeyError: there is no such law.
    """
    return _DRAWN[law](vocab_size=vocab_size, lengths=lengths, step=step)


def _of(law: str) -> Callable[[Callable[..., Arguments]], None]:
    if law not in LAWS:
        raise ValueError(f"there is no law {law!r}")
    if law in _DRAWN:
        raise ValueError(f"the arguments of {law} are drawn in two ways")

    def register(drawing: Callable[..., Arguments]) -> None:
        _DRAWN[law] = st.composite(drawing)

    return register


@_of("causal")
def _causal(draw: st.DrawFn, vocab_size: int, lengths: Sequence[int], step: int) -> Arguments:
    before = draw(tokens(vocab_size=vocab_size, lengths=lengths))
    seq = before.shape[1]
    future = torch.arange(seq)[None] >= draw(cuts(length=seq, step=step), label="cut")
    return {"tokens": before, "changed": draw(replacements(before, future, vocab_size=vocab_size))}


@_of("prefix_consistent")
def _prefix(draw: st.DrawFn, vocab_size: int, lengths: Sequence[int], step: int) -> Arguments:
    whole = draw(tokens(vocab_size=vocab_size, lengths=lengths))
    return {"tokens": whole, "length": draw(cuts(length=whole.shape[1], step=step), label="length of the prefix")}


@_of("repeatable")
def _repeatable(draw: st.DrawFn, vocab_size: int, lengths: Sequence[int], step: int) -> Arguments:
    drawn = tokens(vocab_size=vocab_size, lengths=lengths)
    return {"tokens": draw(drawn), "between": draw(drawn)}


@_of("batch_independent")
def _batch(draw: st.DrawFn, vocab_size: int, lengths: Sequence[int], step: int) -> Arguments:
    batch = draw(st.integers(2, 3), label="rows")
    together = draw(tokens(vocab_size=vocab_size, lengths=lengths, batch=batch))
    return {"tokens": together, "order": draw(st.permutations(range(batch)), label="order")}


@_of("padding_unseen")
def _padding_unseen(draw: st.DrawFn, vocab_size: int, lengths: Sequence[int], step: int) -> Arguments:
    padded = _padded(draw, vocab_size, lengths)
    before, seq = padded["tokens"], padded["tokens"].shape[1]
    kept, places = torch.tensor(padded["lengths"])[:, None], torch.arange(seq)
    padding = places < seq - kept if padded["side"] == "left" else places >= kept
    return {**padded, "changed": draw(replacements(before, padding, vocab_size=vocab_size))}


@_of("padding_invariant")
def _padding_invariant(draw: st.DrawFn, vocab_size: int, lengths: Sequence[int], step: int) -> Arguments:
    return _padded(draw, vocab_size, lengths)


@_of("documents_independent")
def _documents(draw: st.DrawFn, vocab_size: int, lengths: Sequence[int], step: int) -> Arguments:
    packed = draw(tokens(vocab_size=vocab_size, lengths=lengths))
    return {"tokens": packed, "lengths": draw(packings(length=packed.shape[1]))}


@_of("cache_consistent")
def _decoded(draw: st.DrawFn, vocab_size: int, lengths: Sequence[int], step: int) -> Arguments:
    decoded = draw(tokens(vocab_size=vocab_size, lengths=lengths, batch=None))
    return {"steps": chunks(decoded, draw(chunkings(length=decoded.shape[1])))}


@_of("flow_is_sound")
def _sound(draw: st.DrawFn, vocab_size: int, lengths: Sequence[int], step: int) -> Arguments:
    before = draw(tokens(vocab_size=vocab_size, lengths=lengths))
    place = draw(st.integers(1, before.shape[1] - 1), label="place of the change")
    there = torch.arange(before.shape[1])[None] == place
    return {"tokens": before, "changed": draw(replacements(before, there, vocab_size=vocab_size))}


def _padded(draw: st.DrawFn, vocab_size: int, lengths: Sequence[int]) -> Arguments:
    """Rows of which one at least is padded."""
    rows = draw(tokens(vocab_size=vocab_size, lengths=lengths, batch=None))
    batch, seq = rows.shape
    kept, side = draw(paddings(batch=batch, length=seq))
    kept[0] = min(kept[0], seq - 1)
    return {"tokens": rows, "lengths": kept, "side": side}
