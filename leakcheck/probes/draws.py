"""What is changed: every cut, several draws, laid out as rows of one batch."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from leakcheck.checkpoints.axes import Axes


@dataclass(frozen=True)
class Draw:
    """One way to change the future: other tokens, with embeddings `norm` times as long."""

    name: str
    seed: int
    norm: float = 1.0


# A large norm breaks masks whose value is merely large; two token draws make an accidental cancellation unlikely.
DRAWS = (Draw("tokens-1", 1), Draw("tokens-2", 2), Draw("norm-100", 3, norm=100.0))

_NORMS = (1.0, 1.0, 1.0, 10.0, 1000.0)  # of draws that are aimed at one pair of positions

BASE, TWIN, PAST = 0, 1, 2  # rows that every batch starts with
_ELEMENTS = 2**24  # a batch stays below this many pairwise elements, which bounds memory at long lengths


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows: the base, its twin, the base with another past, then for each draw all of it and one row for each cut.

    `tokens` is `[rows, seq]`; `scale` `[rows, seq]` multiplies the embeddings; `cut` `[rows]` is the first changed
    position, `seq` where nothing is; `whole` `[rows]` is the row in which the same draw changed every position.
    """

    tokens: torch.Tensor
    scale: torch.Tensor
    cut: torch.Tensor
    whole: torch.Tensor
    draws: tuple[str, ...]  # by row
    valid: torch.Tensor  # [seq]

    def only(self, draw: str, cut: int) -> "Batch":
        """The first rows and the one with this draw and cut."""
        row = next(r for r, name in enumerate(self.draws) if name == draw and int(self.cut[r]) == cut)
        rows = [BASE, TWIN, PAST, row]
        return Batch(
            tokens=self.tokens[rows],
            scale=self.scale[rows],
            cut=self.cut[rows],
            whole=torch.zeros(len(rows), dtype=torch.long),
            draws=tuple(self.draws[r] for r in rows),
            valid=self.valid,
        )

    @property
    def axes(self) -> Axes:
        return Axes(*self.tokens.shape)

    @cached_property
    def past(self) -> torch.Tensor:
        """Boolean `[rows, seq]`: positions before the row's cut, where nothing may move; padding left out."""
        return self._changed & self._before & self.valid

    @cached_property
    def past_padding(self) -> torch.Tensor:
        """Boolean `[rows, seq]`: padded positions before the cut, which may see anything and are counted apart."""
        return self._changed & self._before & ~self.valid

    @cached_property
    def future(self) -> torch.Tensor:
        """Boolean `[rows, seq]`: positions at or after the row's cut."""
        return self._changed & ~self._before

    @cached_property
    def source(self) -> torch.Tensor:
        """Integer `[rows, seq]`: the batch row whose values a stage's own input takes when it is measured locally."""
        return torch.where(self._before, torch.tensor(BASE), self.whole[:, None])

    @cached_property
    def covered_pairs(self) -> torch.Tensor:
        """Boolean `[seq, seq]`: some row changed the input at the second position and was measured at the first."""
        changed = (self.tokens != self.tokens[BASE]) | (self.scale != self.scale[BASE])  # [rows, seq]
        return self.past.float().T @ changed.float() > 0

    @cached_property
    def _before(self) -> torch.Tensor:
        return torch.arange(self.tokens.shape[1]) < self.cut[:, None]

    @cached_property
    def _changed(self) -> torch.Tensor:
        return (self.cut < self.tokens.shape[1])[:, None]


def batches(*, seq: int, vocab_size: int, valid: torch.Tensor, seed: int, sizes: Collection[int]) -> Iterator[Batch]:
    """All cuts 1..seq-1 of all draws, in as few batches as memory allows.

    The number of rows is none of `sizes` (the model's), so that the batch axis can be told from every other.
    """
    generator = torch.Generator().manual_seed(seed)
    base = torch.randint(vocab_size, (seq,), generator=generator)
    per_batch = max(2, _ELEMENTS // (seq * seq * 16))
    cuts = [(draw, cut) for draw in DRAWS for cut in range(1, seq)]
    for start in range(0, len(cuts), per_batch):
        yield _batch(base, cuts[start : start + per_batch], vocab_size, valid, seed, sizes)


def _batch(
    base: torch.Tensor,
    cuts: list[tuple[Draw, int]],
    vocab_size: int,
    valid: torch.Tensor,
    seed: int,
    sizes: Collection[int],
) -> Batch:
    seq = len(base)
    last = int(valid.nonzero()[-1])
    past = base.clone()
    past[:last] = _other_tokens(base, vocab_size, seed + 1000)[:last]

    rows = [(base, torch.ones(seq), seq, BASE, "base")] * 2 + [(past, torch.ones(seq), seq, PAST, "past")]
    for draw in dict.fromkeys(draw for draw, _ in cuts):
        other = _other_tokens(base, vocab_size, seed + draw.seed)
        whole = len(rows)
        for cut in (0, *(cut for of, cut in cuts if of is draw)):
            tokens, scale = base.clone(), torch.ones(seq)
            tokens[cut:] = other[cut:]
            scale[cut:] = draw.norm
            rows.append((tokens, scale, cut, whole, draw.name))
    return _laid_out(rows, valid, sizes)


def aimed(
    reader: int, source: int, number: int, *, vocab_size: int, valid: torch.Tensor, seed: int, sizes: Collection[int]
) -> Batch:
    """Changes aimed at whether position `reader` reads position `source` behind it.

    Changed are the source alone, all from the source on, and all behind the reader. With each `number` all tokens are
    drawn anew; the source takes every token of the vocabulary in turn, and some embeddings are longer.
    """
    seq, generator = len(valid), torch.Generator().manual_seed(seed + 7919 * (number + 1))
    base = torch.randint(vocab_size, (seq,), generator=generator)
    other = (base + torch.randint(1, vocab_size, (seq,), generator=generator)) % vocab_size
    every = torch.randperm(vocab_size, generator=torch.Generator().manual_seed(seed))
    base[source], other[source] = every[2 * number % vocab_size], every[(2 * number + 1) % vocab_size]
    past, last = base.clone(), int(valid.nonzero()[-1])
    past[:last] = other[:last]

    name, norm, one = f"aimed-{number}", _NORMS[number % len(_NORMS)], torch.ones(seq)
    whole = 3  # the row after the first three
    rows = [(base, one, seq, BASE, "base")] * 2 + [(past, one, seq, PAST, "past"), (other, norm * one, 0, whole, name)]
    for what, cut, end in (("one token", source, source + 1), ("from it on", source, seq), ("behind", reader + 1, seq)):
        tokens, scale = base.clone(), one.clone()
        tokens[cut:end], scale[cut:end] = other[cut:end], norm
        rows.append((tokens, scale, cut, whole, f"{name}, {what}"))
    return _laid_out(rows, valid, sizes)


def _laid_out(
    rows: list[tuple[torch.Tensor, torch.Tensor, int, int, str]], valid: torch.Tensor, sizes: Collection[int]
) -> Batch:
    """Rows of tokens, scale, cut, whole and draw; twins fill them up to a number that tells the batch axis."""
    while len(rows) in sizes or len(rows) == len(valid):
        rows.append(rows[TWIN])
    return Batch(
        tokens=torch.stack([row[0] for row in rows]),
        scale=torch.stack([row[1] for row in rows]),
        cut=torch.tensor([row[2] for row in rows]),
        whole=torch.tensor([row[3] for row in rows]),
        draws=tuple(row[4] for row in rows),
        valid=valid,
    )


def _other_tokens(base: torch.Tensor, vocab_size: int, seed: int) -> torch.Tensor:
    """Tokens `[seq]` that differ from `base` at every position."""
    generator = torch.Generator().manual_seed(seed)
    return (base + torch.randint(1, vocab_size, base.shape, generator=generator)) % vocab_size
