"""What laws are tried on: tokens, cuts, replacements, documents, padding, chunks. All shrink to short rows of zeros."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from hypothesis import strategies as st
from torch import Tensor

from leakcheck.laws import SIDES

VOCABULARY = 97  # of the small models that leakcheck builds
LENGTHS = range(2, 17)


@st.composite
def tokens(
    draw: st.DrawFn, *, vocab_size: int = VOCABULARY, batch: int | None = 1, lengths: Sequence[int] = LENGTHS
) -> Tensor:
    """Token ids `[batch, seq]`, of one of the `lengths`; with `batch=None` one to three rows."""
    rows = draw(st.integers(1, 3), label="rows") if batch is None else batch
    seq = draw(st.sampled_from(lengths), label="length")
    drawn = draw(st.lists(st.integers(0, vocab_size - 1), min_size=rows * seq, max_size=rows * seq), label="tokens")
    return torch.tensor(drawn, dtype=torch.long).view(rows, seq)


@st.composite
def replacements(draw: st.DrawFn, tokens: Tensor, where: Tensor, *, vocab_size: int = VOCABULARY) -> Tensor:
    """`tokens` with others in their place where a boolean mask of that shape is true: always the first, and more."""
    count = int(where.sum())
    offsets = [draw(st.integers(1, vocab_size - 1), label="first change")] if count else []
    rest = st.lists(st.integers(0, vocab_size - 1), min_size=count - len(offsets), max_size=count - len(offsets))
    offsets += draw(rest, label="other changes")
    changed = tokens.clone()
    changed[where] = (changed[where] + torch.tensor(offsets, dtype=torch.long)) % vocab_size
    return changed


def cuts(*, length: int, step: int = 1) -> st.SearchStrategy[int]:
    """Where a sequence of this length is cut in two: a multiple of `step`, with something on both sides."""
    return st.sampled_from(range(step, length, step))


@st.composite
def parts(draw: st.DrawFn, *, length: int, at_least: int = 1) -> tuple[int, ...]:
    """Lengths of consecutive parts of a sequence of this length; they shrink to one part, or `at_least` so many."""
    inner = st.sets(st.integers(1, length - 1), min_size=at_least - 1) if length > 1 else st.just(set())
    borders = [0, *sorted(draw(inner, label="borders")), length]
    return tuple(end - start for start, end in pairwise(borders))


def chunkings(*, length: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Lengths of the chunks in which a sequence of this length is decoded."""
    return parts(length=length)


def packings(*, length: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Lengths of two or more documents that are packed into a row of this length."""
    return parts(length=length, at_least=2)


@st.composite
def paddings(draw: st.DrawFn, *, batch: int, length: int) -> tuple[list[int], str]:
    """How many tokens of each row are none of padding, and on which side of them it stands."""
    kept = draw(st.lists(st.integers(1, length), min_size=batch, max_size=batch), label="tokens kept")
    return kept, draw(st.sampled_from(SIDES), label="side")
