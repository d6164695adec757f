"""Where on the way from an input to an output the label enters a position that may not have it: an earlier one.

The way is followed from the input on. Its element is at home as long as it sits where it sat before, along an axis of
the same size. Ops that only move elements may carry it elsewhere (padding, a flip) and are not to blame for that,
unless they put it at an earlier position for good. To blame is the op that makes an earlier position of it. Where
something else than time tells what may be seen, `late` says which positions may not, and they may lie behind it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from leakcheck.flow.provenance import At, Move, Recording
from leakcheck.flow.rows import Axis, Group, Layout, Shape, groups, index, product

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


Late = Callable[[int], bool]  # whether what is at this index of the axis may not see the source


def crossing(
    way: Sequence[Move], recording: Recording, axis: Axis, source: int, late: Late | None = None, *, back: bool = True
) -> Crossing:
    """The move that brings what comes from index `source` of the axis to one that is `late`; by default a lower one.

    The output lies before the source, or not (`back` is false).
    """
    late = late or (lambda row: row < source)
    walk = _Walk(recording, axis, late, back)
    for number, move in enumerate(way):
        if number:
            walk.look(way[number - 1].made, way[number - 1].target, move)
        else:
            walk.begin(move)
        if walk.crossed is None:
            walk.follow(number, move)
        if walk.crossed is not None:
            return Crossing(walk.crossed, walk.row, walk.turned_by)
    number = _first_elsewhere(way, axis, late)
    return Crossing(number, axis.row(way[number].made.shape, way[number].target))


class _Walk:
    """Where the element is on its way; `crossed` is the number of the move that took it to a late position."""

    def __init__(self, recording: Recording, axis: Axis, late: Late, back: bool):
        self.recording, self.axis, self.late, self.back = recording, axis, late, back
        self.home: set[Group] | None = None  # axes along which the element is at home; `None`: at none
        self.turned_by: Move | None = None
        self.mirror = 0  # index + mirrored index, while the sequence is reversed
        self.number = 0
        self.suspect: int | None = None  # the first move that may have crossed, which is not told yet
        self.lost: int | None = None  # the last move that mixed positions while the element was at home nowhere
        self.crossed: int | None = None
        self.row: int | None = None  # to which row

    def real(self, row: int) -> int:
        return row if self.turned_by is None else self.mirror - row

    def begin(self, move: Move) -> None:
        """At the input, whose axes are known: `[batch, seq, ...]`."""
        source = self.recording.source
        if move.taken.storage == source.storage:
            self.home = self._seen(source, move.taken, {(1,) if self.axis.name == "sequence" else (0,)})
        else:
            self.home = self._along(move.taken.shape)

    def look(self, layout: Layout, at: At, move: Move) -> None:
        """From the output of the last move to the operand of this one, which may be another view of the storage."""
        if layout.shape == move.taken.shape and layout.stride == move.taken.stride:
            return
        if self.home is not None:
            self.home = self._seen(layout, move.taken, self.home)
        told = self.axis.rows(move.taken.shape, move.source)
        if len(told) == 1 and not self.axis.rows(layout.shape, at):
            self._found()
            self._put(told[0])
            self.home = self._along(move.taken.shape)

    def follow(self, number: int, move: Move) -> None:
        self.number = number
        kept = {after for before, after in self._pairs(move) if _index(move, before, after) == 0}
        if kept:
            self.home = kept
            self._turned_in_the_middle(move)
        elif move.mixes():
            self._mixed(move)
        else:
            self._moved(move)

    def _turned_in_the_middle(self, move: Move) -> None:
        """The sequence may be reversed around the element, which stays where it is."""
        if move.source != move.target or move.taken.shape != move.made.shape:
            return
        for dim, *more in self.home or ():
            middle = 2 * move.source[dim] == move.taken.shape[dim] - 1
            if not more and middle and not move.mixes() and move.reverses(dim):
                self._turn(move, move.source[dim], move.target[dim])

    def _turn(self, move: Move, before: int, after: int) -> None:
        self.mirror = self.real(before) + after
        self.turned_by = move if self.turned_by is None else None

    def _seen(self, made: Layout, taken: Layout, home: set[Group]) -> set[Group] | None:
        """The axes of a view that axes of another view of the storage lie along; `None` if it shows one row alone."""
        found: set[Group] = set()
        for group in home:
            shown = made.seen_as(taken, group)  # [*taken.shape], the index along `group` in `made`
            varies = [d for d, n in enumerate(taken.shape) if n > 1 and bool((shown != shown.narrow(d, 0, 1)).any())]
            along = tuple(range(varies[0], varies[-1] + 1)) if varies else ()
            flattened = product(made.shape, group) == self.axis.size * self.axis.other
            if along and not (flattened and product(taken.shape, along) == self.axis.other):
                found.add(along)
        return found or None

    def _along(self, shape: Shape) -> set[Group] | None:
        """The axes that may be the sequence."""
        return set(groups(shape, self.axis.size) or groups(shape, self.axis.size * self.axis.other)) or None

    def _pairs(self, move: Move) -> list[tuple[Group, Group]]:
        """Axes along which the operand's element is at home, with those of the output that are as long."""
        taken, made = move.taken.shape, move.made.shape
        pairs = []
        for before in sorted(self.home or ()):
            same = len(taken) == len(made) and all(taken[d] == made[d] for d in before)
            pairs += [(before, after) for after in ([before] if same else groups(made, product(taken, before)))]
        return pairs

    def _put(self, row: int) -> None:
        """The element was put in a row unchanged. What changed it before that may be why it is there."""
        if self.late(self.real(row)):
            self.crossed, self.row = self.number if self.suspect is None else self.suspect, self.real(row)
        self.suspect = None

    def _moved(self, move: Move) -> None:
        """A pure move: the element is at home where it was put, unless that is an earlier position."""
        dim, pairs = self._dim(move), self._pairs(move)
        rows = self.axis.rows(move.made.shape, move.target)
        if dim is not None:
            if move.made.shape[dim] == self.axis.size == move.taken.shape[dim] and move.reverses(dim):
                self._turn(move, move.source[dim], move.target[dim])
            self.home = {(dim,)}
        elif pairs and not rows:
            self.home = {pairs[0][1]}
        else:
            self.home = self._along(move.made.shape)
        if len(rows) == 1:
            if move.source == move.target and move.taken.shape == move.made.shape:
                self._found()
            self._put(rows[0])

    def _found(self) -> None:
        """The row is told again, by a view or a copy, which did not put it there."""
        self.suspect = self.lost if self.suspect is None else self.suspect

    def _mixed(self, move: Move) -> None:
        """Something new comes of the element and of others, elsewhere."""
        if self.home is None and (met := self._met(move)) is not None:
            if self.late(self.real(met)):
                self.crossed, self.row = self.number, self.real(met)
            return
        rows = self.axis.rows(move.made.shape, move.target)
        dim, pairs = self._dim(move), self._pairs(move)
        if rows:
            if any(self.late(self.real(row)) for row in rows):
                self.crossed, self.row = self.number, self.real(rows[0]) if len(rows) == 1 else None
            self.home = self._along(move.made.shape)
        elif dim is not None and any(word in move.step.name for word in _WINDOWED):
            self.suspect = self.number if self.suspect is None else self.suspect
            self.home = {(dim,)}
        elif pairs:
            if (_index(move, *pairs[0]) < 0) == (self.back == (self.turned_by is None)):
                self.crossed = self.number
            self.home = {pairs[0][1]}
        elif self.home is not None:
            self.crossed = self.number
        elif not _elementwise(move):
            self.lost = self.number

    def _dim(self, move: Move) -> int | None:
        """The dim of the operand along which the element is at home, if the output has as many dims."""
        if self.home is None or len(move.taken.shape) != len(move.made.shape):
            return None
        dims = sorted(dim for dim, *more in self.home if not more)
        changed = [d for d in dims if (move.made.shape[d], move.target[d]) != (move.taken.shape[d], move.source[d])]
        return changed[0] if changed else None

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


def _index(move: Move, before: Group, after: Group) -> int:
    """By how much the index along axes of the output is above the one along axes of the operand."""
    return index(move.made.shape, move.target, after) - index(move.taken.shape, move.source, before)


def _elementwise(move: Move) -> bool:
    """Whether the element is where it was, but for broadcasting."""
    if len(move.taken.shape) != len(move.made.shape):
        return False
    return all(n == 1 or a == b for n, a, b in zip(move.taken.shape, move.source, move.target, strict=True))


def _first_elsewhere(way: Sequence[Move], axis: Axis, late: Late) -> int:
    """Where axes do not tell: the first move to a row that is late, or told to be; else the last one."""
    for number, move in enumerate(way):
        told = axis.row(move.made.shape, move.target)
        if told is not None and late(told):
            return number
    return max(len(way) - 1, 0)
