"""What is changed: every cut, several draws, laid out as rows of one batch."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from leakcheck.checkpoints.axes import Axes
from leakcheck.config import CAUSAL, Contract
from leakcheck.findings import WorstCase


@dataclass(frozen=True)
class Draw:
    """One way to change the future: other tokens, with embeddings `norm` times as long."""

    name: str
    seed: int
    norm: float = 1.0


# A large norm breaks masks whose value is merely large; two token draws make an accidental cancellation unlikely.
DRAWS = (Draw("tokens-1", 1), Draw("tokens-2", 2), Draw("norm-100", 3, norm=100.0))

_NORMS = (1.0, 1.0, 1.0, 10.0, 1000.0)  # of draws that are aimed at one pair of positions


@dataclass(frozen=True)
class Plant:
    """A leak to plant: the inputs of one output, the last of them at `position`, read the input at `source`."""

    position: int
    source: int
    step: int = 1

    @property
    def inputs(self) -> slice:
        return slice(self.position - self.step + 1, self.position + 1)


BASE, TWIN, PAST = 0, 1, 2  # rows that every batch starts with
_ELEMENTS = 2**24  # a batch stays below this many pairwise elements, which bounds memory at long lengths


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows: the base, its twin, the base with another past, then for each draw all of it and one row for each cut.

    `tokens` is `[rows, seq]`; `scale` `[rows, seq]` multiplies the embeddings; `cut` `[rows]` is the first changed
    position, `seq` where nothing is; `whole` `[rows]` is the row in which the same draw changed every position. `limit`
    `[seq]` is the last position that each may see. With `mirrored` all that is turned round: changed is what lies
    before the cut, and `limit` is the first position that each may see.
    """

    tokens: torch.Tensor
    scale: torch.Tensor
    cut: torch.Tensor
    whole: torch.Tensor
    draws: tuple[str, ...]  # by row
    valid: torch.Tensor  # [seq]
    limit: torch.Tensor  # [seq]
    mirrored: bool = False
    step: int = 1  # how many inputs make one output

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
            limit=self.limit,
            mirrored=self.mirrored,
            step=self.step,
        )

    def has(self, case: WorstCase) -> bool:
        here = zip(self.draws, self.cut.tolist(), strict=True)
        return self.mirrored == case.before and (case.draw, case.cut) in here

    def showing(self, plant: Plant) -> "Batch":
        """The first rows and one whose change the planted leak alone lets through; all rows if there is none."""
        cut = plant.source + 1 if self.mirrored else plant.source
        draw = next((name for name, at in zip(self.draws, self.cut.tolist(), strict=True) if at == cut), None)
        return self if draw is None else self.only(draw, cut)

    @property
    def plant(self) -> Plant | None:
        """Where a leak can be planted: in the middle, a position that is no padding and the next it may not see.

        `None` where there is no such pair.
        """
        seq = len(self.valid)
        beyond = self.limit - 1 if self.mirrored else self.limit + 1
        usable = [
            Plant(position, source, self.step)
            for position, source in enumerate(beyond.tolist())
            if 0 <= source < seq and self.valid[position] and self.valid[source] and (position + 1) % self.step == 0
        ]
        return usable[len(usable) // 2] if usable else None

    @property
    def axes(self) -> Axes:
        return Axes(*self.tokens.shape)

    @cached_property
    def past(self) -> torch.Tensor:
        """Boolean `[rows, seq]`: positions that may see nothing of the row's change, so do not move; no padding."""
        return self._changed & self._blind & self.valid

    @cached_property
    def past_padding(self) -> torch.Tensor:
        """Boolean `[rows, seq]`: such positions that are padding, may see anything and are counted apart."""
        return self._changed & self._blind & ~self.valid

    @cached_property
    def future(self) -> torch.Tensor:
        """Boolean `[rows, seq]`: the positions whose input was changed: at or after the row's cut."""
        return self._changed & ~self._same

    @cached_property
    def allowed(self) -> torch.Tensor:
        """Boolean `[rows, seq]`: positions that may see the row's change."""
        return self._changed & ~self._blind

    @cached_property
    def source(self) -> torch.Tensor:
        """Integer `[rows, seq]`: the batch row whose values a stage's own input takes when it is measured locally."""
        return torch.where(self._same, torch.tensor(BASE), self.whole[:, None])

    @cached_property
    def covered_pairs(self) -> torch.Tensor:
        """Boolean `[seq, seq]`: some row changed the input at the second position and was measured at the first."""
        changed = (self.tokens != self.tokens[BASE]) | (self.scale != self.scale[BASE])  # [rows, seq]
        return self.past.float().T @ changed.float() > 0

    @cached_property
    def _same(self) -> torch.Tensor:
        before = torch.arange(self.tokens.shape[1]) < self.cut[:, None]
        return ~before if self.mirrored else before

    @cached_property
    def _blind(self) -> torch.Tensor:
        return self.limit >= self.cut[:, None] if self.mirrored else self.limit < self.cut[:, None]

    @cached_property
    def _changed(self) -> torch.Tensor:
        seq = self.tokens.shape[1]
        return (self.cut > 0 if self.mirrored else self.cut < seq)[:, None]


@dataclass(frozen=True, eq=False)
class Setting:
    """What all batches of one configuration have in common.

    `valid` `[seq]` is false for padding; the number of rows will be none of `sizes` (the model's), so that the batch
    axis can be told from every other. `base` are the ids `[seq]` of the first row, drawn if there are none. Cuts are
    multiples of `step`, of as many inputs as make one output. With `every` each cut is made with all draws, else with
    one in turn: each pair of positions is covered either way.
    """

    vocab_size: int
    valid: torch.Tensor
    seed: int
    sizes: Collection[int]
    contract: Contract = CAUSAL
    base: torch.Tensor | None = None
    step: int = 1
    every: bool = True

    @property
    def seq(self) -> int:
        return len(self.valid)

    def limit(self, *, mirrored: bool) -> torch.Tensor:
        """Integer `[seq]`: the first position that each may see if `mirrored`, else the last."""
        return torch.tensor(self.contract.earliest(self.seq) if mirrored else self.contract.latest(self.seq))

    def first_row(self, generator: torch.Generator) -> torch.Tensor:
        drawn = torch.randint(self.vocab_size, (self.seq,), generator=generator)
        return drawn if self.base is None else self.base


def batches(setting: Setting) -> Iterator[Batch]:
    """All cuts of all draws, in as few batches as memory allows; with a window also of changes before the cut."""
    seq = setting.seq
    base = setting.first_row(torch.Generator().manual_seed(setting.seed))
    per_batch = max(2, _ELEMENTS * setting.step**2 // (seq * seq * 16))
    for mirrored in (False, True):
        limit = setting.limit(mirrored=mirrored)
        blind = int(limit.max()) if mirrored else seq - 1  # no position would be blind to a later cut
        at = range(setting.step, blind + 1, setting.step)
        if setting.every:
            cuts = [(draw, cut) for draw in DRAWS for cut in at]
        else:
            cuts = [(DRAWS[i % len(DRAWS)], cut) for i, cut in enumerate(at)]
        for start in range(0, len(cuts), per_batch):
            yield _batch(base, cuts[start : start + per_batch], setting, mirrored)


def _batch(base: torch.Tensor, cuts: list[tuple[Draw, int]], setting: Setting, mirrored: bool) -> Batch:
    seq, seed = len(base), setting.seed
    last = int(setting.valid.nonzero()[-1])
    past = base.clone()
    past[:last] = _other_tokens(base, setting.vocab_size, seed + 1000)[:last]

    nothing, everything = (0, seq) if mirrored else (seq, 0)
    one = torch.ones(seq)
    rows = [(base, one, nothing, BASE, "base")] * 2 + [(past, one, nothing, PAST, "past")]
    for draw in dict.fromkeys(draw for draw, _ in cuts):
        other = _other_tokens(base, setting.vocab_size, seed + draw.seed)
        whole = len(rows)
        for cut in (everything, *(cut for of, cut in cuts if of is draw)):
            changed = slice(0, cut) if mirrored else slice(cut, seq)
            tokens, scale = base.clone(), one.clone()
            tokens[changed], scale[changed] = other[changed], draw.norm
            rows.append((tokens, scale, cut, whole, draw.name))
    return _laid_out(rows, setting, mirrored)


def aimed(setting: Setting, reader: int, source: int, number: int) -> Batch:
    """Changes aimed at whether position `reader` reads position `source`, which it may not see.

    Changed are the source alone, all from the source on, and all that the reader may not see on that side. With each
    `number` all tokens are drawn anew; the source takes every token of the vocabulary in turn, and some embeddings are
    longer.
    """
    seq, size = setting.seq, setting.vocab_size
    generator = torch.Generator().manual_seed(setting.seed + 7919 * (number + 1))
    base = torch.randint(size, (seq,), generator=generator)
    other = (base + torch.randint(1, size, (seq,), generator=generator)) % size
    every = torch.randperm(size, generator=torch.Generator().manual_seed(setting.seed))
    base[source], other[source] = every[2 * number % size], every[(2 * number + 1) % size]
    past, last = base.clone(), int(setting.valid.nonzero()[-1])
    past[:last] = other[:last]

    mirrored = source < reader
    limit = int(setting.limit(mirrored=mirrored)[reader])
    nothing, everything = (0, seq) if mirrored else (seq, 0)
    changes = [
        ("one token", slice(source, source + 1)),
        ("from it on", slice(0, source + 1) if mirrored else slice(source, seq)),
        ("out of sight", slice(0, limit) if mirrored else slice(limit + 1, seq)),
    ]
    name, norm, one = f"aimed-{number}", _NORMS[number % len(_NORMS)], torch.ones(seq)
    whole = 3  # the row after the first three
    rows = [(base, one, nothing, BASE, "base")] * 2 + [(past, one, nothing, PAST, "past")]
    rows += [(other, norm * one, everything, whole, name)]
    for what, changed in changes:
        tokens, scale = base.clone(), one.clone()
        tokens[changed], scale[changed] = other[changed], norm
        rows.append((tokens, scale, changed.stop if mirrored else changed.start, whole, f"{name}, {what}"))
    return _laid_out(rows, setting, mirrored)


def _laid_out(rows: list[tuple[torch.Tensor, torch.Tensor, int, int, str]], setting: Setting, mirrored: bool) -> Batch:
    """Rows of tokens, scale, cut, whole and draw; twins fill them up to a number that tells the batch axis."""
    while len(rows) in setting.sizes or len(rows) == setting.seq:
        rows.append(rows[TWIN])
    return Batch(
        tokens=torch.stack([row[0] for row in rows]),
        scale=torch.stack([row[1] for row in rows]),
        cut=torch.tensor([row[2] for row in rows]),
        whole=torch.tensor([row[3] for row in rows]),
        draws=tuple(row[4] for row in rows),
        valid=setting.valid,
        limit=setting.limit(mirrored=mirrored),
        mirrored=mirrored,
        step=setting.step,
    )


def _other_tokens(base: torch.Tensor, vocab_size: int, seed: int) -> torch.Tensor:
    """Tokens `[seq]` that differ from `base` at every position."""
    generator = torch.Generator().manual_seed(seed)
    return (base + torch.randint(1, vocab_size, base.shape, generator=generator)) % vocab_size
