"""Where on the way from an input to an output the label enters an earlier position.

The way is followed from the input on. Its element is at home as long as it sits where it sat before, along an axis of
the same size. Ops that only move elements may carry it elsewhere (padding, a flip) and are not to blame for that,
unless they put it at an earlier position for good. To blame is the op that makes an earlier position of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from leakcheck.flow.provenance import At, Move, Recording
from leakcheck.flow.rows import Axis, Layout, Shape, groups, index

Extent = tuple[int, int]  # the size of an axis, or of several taken as one; the index along it

# Their outputs may be longer or shorter than their inputs and still be aligned with them.
_WINDOWED = ("conv", "pool", "upsample", "im2col")


@dataclass(frozen=True, eq=False)
class Crossing:
    """`number` is that of the move to blame. It leads to position `row`, if that can be told there.

    `turned_by` reversed the sequence before it, if any did.
    """

    number: int
    row: int | None
    turned_by: Move | None = None


def crossing(way: Sequence[Move], recording: Recording, axis: Axis, source: int) -> Crossing:
    """The move that brings what comes from index `source` of the axis to a lower one."""
    walk = _Walk(recording, axis, source)
    for number, move in enumerate(way):
        if number:
            walk.look(way[number - 1], move)
        if walk.crossed is None:
            walk.follow(number, move)
        if walk.crossed is not None:
            return Crossing(walk.crossed, walk.row, walk.turned_by)
    number = _first_elsewhere(way, axis, source)
    return Crossing(number, axis.row(way[number].made.shape, way[number].target))


class _Walk:
    """Where the element is on its way; `crossed` is the number of the move that took it to an earlier position."""

    def __init__(self, recording: Recording, axis: Axis, source: int):
        self.recording, self.axis, self.source = recording, axis, source
        self.home: set[Extent] | None = None  # extents at which the element is at home; `None`: at no axis
        self.turned_by: Move | None = None
        self.mirror = 0  # index + mirrored index, while the sequence is reversed
        self.number = 0
        self.suspect: int | None = None  # the first move that may have crossed, which is not told yet
        self.crossed: int | None = None
        self.row: int | None = None  # to which row

    def real(self, row: int) -> int:
        return row if self.turned_by is None else self.mirror - row

    def look(self, before: Move, move: Move) -> None:
        """From the output of the last move to the operand of this one, which may be another view of the storage."""
        told = self.axis.rows(move.taken.shape, move.source)
        if before.made.shape == move.taken.shape and before.made.stride == move.taken.stride:
            return
        aligned = bool(self.axis.rows(before.made.shape, before.target))
        if self.home is not None:
            self.home = _seen(before.made, before.target, move.taken, move.source, self.home)
        if len(told) == 1 and not aligned:
            self._put(told[0])
            self.home = self._extents(move.taken.shape, move.source)

    def follow(self, number: int, move: Move) -> None:
        self.number = number
        if number == 0:
            self.home = self._extents(move.taken.shape, move.source) or {(self.axis.size, self.source)}
        made, at = move.made.shape, move.target
        kept = {(n, i) for n, i in self.home or () if any(index(made, at, group) == i for group in groups(made, n))}
        if kept:
            self.home = kept
            self._turned_in_the_middle(move)
        elif move.mixes():
            self._mixed(move)
        else:
            self._moved(move)

    def _turned_in_the_middle(self, move: Move) -> None:
        """The sequence may be reversed around the element, which stays where it is."""
        middle = [n for n, i in self.home or () if 2 * i == n - 1]
        if not middle or move.source != move.target or move.taken.shape != move.made.shape or move.mixes():
            return
        for dim, *rest in groups(move.taken.shape, middle[0]):
            if not rest and move.reverses(dim):
                self._turn(move, move.source[dim], move.target[dim])

    def _turn(self, move: Move, before: int, after: int) -> None:
        self.mirror = self.real(before) + after
        self.turned_by = move if self.turned_by is None else None

    def _extents(self, shape: Shape, at: At) -> set[Extent]:
        for size in (self.axis.size, self.axis.size * self.axis.other):
            if found := groups(shape, size):
                return {(size, index(shape, at, group)) for group in found}
        return set()

    def _put(self, row: int) -> None:
        """The element was put in a row unchanged. What changed it before that may be why it is there."""
        if self.real(row) < self.source:
            self.crossed, self.row = self.number if self.suspect is None else self.suspect, self.real(row)
        self.suspect = None

    def _moved(self, move: Move) -> None:
        """A pure move: the element is at home where it was put, unless that is an earlier position."""
        dim = self._dim(move)
        rows = self.axis.rows(move.made.shape, move.target)
        if dim is not None:
            size, at = move.made.shape[dim], move.target[dim]
            if size == self.axis.size == move.taken.shape[dim] and move.reverses(dim):
                self._turn(move, move.source[dim], at)
            self.home = {(size, at)}
        else:
            self.home = self._extents(move.made.shape, move.target) or None
        if len(rows) == 1:
            self._put(rows[0])

    def _mixed(self, move: Move) -> None:
        """Something new comes of the element and of others, elsewhere."""
        if self.home is None and (met := self._met(move)) is not None:
            if self.real(met) < self.source:
                self.crossed, self.row = self.number, self.real(met)
            return
        rows = self.axis.rows(move.made.shape, move.target)
        dim = self._dim(move)
        if rows:
            if min(self.real(row) for row in rows) < self.source:
                self.crossed, self.row = self.number, self.real(rows[0]) if len(rows) == 1 else None
            self.home = self._extents(move.made.shape, move.target)
        elif dim is not None and any(word in move.step.name for word in _WINDOWED):
            self.suspect = self.number if self.suspect is None else self.suspect
            self.home = {(move.made.shape[dim], move.target[dim])}
        elif self.home is not None and (other := self._elsewhere(move)) is not None:
            (size, before), after = other
            if (after < before) != (self.turned_by is not None):
                self.crossed = self.number
            self.home = {(size, after)}
        elif self.home is not None:
            self.crossed = self.number

    def _dim(self, move: Move) -> int | None:
        """The dim of the operand along which the element is at home, if the output has as many dims."""
        if self.home is None or len(move.taken.shape) != len(move.made.shape):
            return None
        single = [(g[0], i) for n, i in self.home for g in groups(move.taken.shape, n) if len(g) == 1]
        dims = [d for d, i in single if move.source[d] == i]
        changed = [d for d in dims if (move.made.shape[d], move.target[d]) != (move.taken.shape[d], move.source[d])]
        return changed[0] if changed else None

    def _elsewhere(self, move: Move) -> tuple[Extent, int] | None:
        """An extent of the home at which the output has another index."""
        assert self.home is not None
        for n, i in self.home:
            for group in groups(move.made.shape, n):
                return (n, i), index(move.made.shape, move.target, group)
        return None

    def _met(self, move: Move) -> int | None:
        """The row of another operand that shows one row alone, as in a loop over positions."""
        for i, taken in enumerate(move.step.operands):
            if i == move.operand or taken.at_least(0) is None or 0 in taken.layout.shape:
                continue
            first = (0,) * len(taken.layout.shape)
            written = self.recording.writer(taken.layout, first, move.step.number)
            if written is None:
                continue
            produced = written[0].outputs[written[1]]
            for group in groups(produced.shape, self.axis.size):
                shown = produced.seen_as(taken.layout, group)
                if int(shown.min()) == int(shown.max()):
                    return int(shown.min())
        return None


def _seen(made: Layout, at: At, taken: Layout, source: At, home: set[Extent]) -> set[Extent] | None:
    """The extents of an element in another view of its storage; `None` if that shows its row alone."""
    found: set[Extent] = set()
    for size, i in home:
        for group in groups(made.shape, size):
            if index(made.shape, at, group) != i:
                continue
            shown = made.seen_as(taken, group)  # [*taken.shape], the index along `group` in `made`
            varies = [d for d, n in enumerate(taken.shape) if n > 1 and bool((shown != shown.narrow(d, 0, 1)).any())]
            if varies:
                span = tuple(range(varies[0], varies[-1] + 1))
                total = 1
                for d in span:
                    total *= taken.shape[d]
                found.add((total, index(taken.shape, source, span)))
    return found or None


def _first_elsewhere(way: Sequence[Move], axis: Axis, source: int) -> int:
    """Where axes do not tell: the first move to a lower row, or one that is told to be; else the last one."""
    for number, move in enumerate(way):
        told = axis.row(move.made.shape, move.target)
        if told is not None and told < source:
            return number
    return max(len(way) - 1, 0)
