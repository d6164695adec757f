"""Slots whose occupant depends on the tokens: what `sort` and `nonzero` make, and how it cancels.

Token-choice experts sort tokens by expert, work row by row, and put the rows back. Element for element, the sorted
tensor depends on every token, since any token may have moved any other. The result does not. The argument:

A *selection* S puts rows r of a domain into slots. Which row sits in which slot, the arrangement, depends on labels
`arrangement`. An element that sits in the slot of row r, and is a function of what belongs to r, has the *owner* r; its
label leaves the arrangement out. Two elements have one owner exactly if they sit in one slot, whatever the arrangement
is. So an op that does the same to every slot, and combines elements of one owner with what is the same for all slots,
gives elements of these owners. An op that combines two owners, or a slot with something that differs from slot to slot
(its number, a weight for each), reveals what sits where: its result is *settled*, it takes on the arrangement and all
that any slot could hold. So does every op whose rule does not ask for owners, and every op that is given some of the
slots only.

What is scattered to a place that is a function of its owner alone (`out[perm] = x`, `index_add_(0, token, x)`), or
gathered from the slot of a given row (`x[inverse]`), is again where the row is, whatever the arrangement was: the
owner falls off, and what stays is the row's own label. Where a selection takes some rows only (`nonzero`), the result
also depends on whether the row was taken (`taken`), and rows that were not taken in this run could be in another: the
scatter gives them what they would have brought (`potential`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from leakcheck.flow.labels import Labels

ZERO = -4  # as in labels.py, which imports this module

# A code is 0 for no owner, else the kind, the selection and the row + 1, in these bits.
_ROW, _KIND = 32, 56
OWNED = 1  # a function of what belongs to the row
SLOT = 2  # its value is the number of the row's slot; its label has the arrangement
COORDINATE = 3  # COORDINATE + d: its value is the d-th coordinate of the row; owned by the row


@dataclass(eq=False)
class Selection:
    """One sort or one `nonzero`.

    `rows[s]` is the row in slot s, in this run. `arrangement` is the join of the labels that decide it. `taken[r]` is
    the label of whether r is taken at all; `None` where every row always is. `coordinates[d][r]` is what `nonzero`
    gives for r. `potential[r]` bounds the labels of all that rows bring along, `content` those of all rows. `in_order`:
    the slots are in the order of their rows. `bag` identifies the values that were sorted, `keys[r]` are their labels.
    """

    number: int
    rows: Tensor
    arrangement: int
    taken: Tensor | None = None
    coordinates: tuple[Tensor, ...] = ()
    potential: Tensor | None = None
    in_order: bool = False
    content: int = -2
    bag: int | None = None
    keys: Tensor | None = None

    def code(self, kind: int) -> int:
        return kind << _KIND | self.number << _ROW

    def owners(self, kind: int = OWNED) -> "Owners":
        """One element for each slot."""
        return Owners(self.code(kind) + 1 + self.rows, {self.number: self})

    def brings(self, label: int) -> None:
        """Something with this label, of no known row, came into slots of the selection."""
        self.content = max(self.content, label)
        if self.potential is not None and label >= 0:
            self.potential = self.potential.clamp(min=label)

    @property
    def everything(self) -> int:
        held = self.content if self.potential is None else max(self.content, int(self.potential.max()))
        return max(self.arrangement, held)


def unexpanded(plane: Tensor, keep: int | None = None) -> Tensor:
    """One element along every dimension of stride 0, but for one to `keep`."""
    strides = plane.stride()
    if 0 not in strides:
        return plane
    sizes = [min(n, 1) if stride == 0 else n for n, stride in zip(plane.shape, strides, strict=True)]
    if keep is not None:
        sizes[keep] = plane.shape[keep]
    return plane.as_strided(sizes, strides)


@dataclass(eq=False)
class Owners:
    """A code for each element of a tensor."""

    codes: Tensor  # int64, of the tensor's shape
    selections: dict[int, Selection] = field(default_factory=dict)

    def view(self, function: Callable[[Tensor], Tensor]) -> "Owners":
        return Owners(function(self.codes), self.selections)

    def rows(self) -> Tensor:
        """The row of each element, -1 where it has no owner."""
        return self._each(lambda codes: (codes & ((1 << _ROW) - 1)) - 1)

    def kinds(self) -> Tensor:
        return self._each(lambda codes: codes >> _KIND)

    def numbers(self) -> Tensor:
        return self._each(lambda codes: (codes >> _ROW) & ((1 << (_KIND - _ROW)) - 1))

    def _each(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """An elementwise function of the codes, expanded as they are."""
        return function(unexpanded(self.codes)).expand(self.codes.shape)

    def only(self) -> Selection | None:
        """The selection, if every element belongs to one and the same."""
        if len(self.selections) != 1 or not self.codes.numel():
            return None
        (selection,) = self.selections.values()
        return selection if bool((unexpanded(self.codes) != 0).all()) else None

    def complete(self) -> bool:
        """Whether every slot of every selection is here: an op on a part could treat slots differently."""
        codes, rows, numbers = (unexpanded(each) for each in (self.codes, self.rows(), self.numbers()))
        return all(
            len(rows[(numbers == number) & (codes != 0)].unique()) == len(selection.rows)
            for number, selection in self.selections.items()
        )

    def plain(self) -> "Owners":
        """After an op: coordinates become mere functions of their rows, slot numbers mere values."""

        def plain(codes: Tensor) -> Tensor:
            codes = torch.where(codes >> _KIND == SLOT, 0, codes)
            return torch.where(codes == 0, codes, codes & ((1 << _KIND) - 1) | OWNED << _KIND)

        return Owners(self._each(plain), self.selections)

    def everything(self) -> Tensor:
        """For each element what it may depend on once the arrangement counts; int16, far below all for no owner."""
        result = torch.full(self.codes.shape, torch.iinfo(torch.int16).min, dtype=torch.int16)
        kinds, numbers = self.kinds(), self.numbers()
        for number, selection in self.selections.items():
            here = (numbers == number) & (self.codes != 0) & (kinds != SLOT)
            result = torch.where(here, max(selection.everything, -2), result).to(torch.int16)
        return result

    def over(self, dims: Sequence[int], keepdim: bool) -> tuple["Owners | None", Tensor | None]:
        """The owners after a reduction; and where different ones met (`None` for nowhere)."""
        codes = self.plain().codes
        high = codes.amax(tuple(dims), keepdim=keepdim)
        clash = high != codes.amin(tuple(dims), keepdim=keepdim)
        if not bool(clash.any()):
            return Owners(high, self.selections), None
        return Owners(torch.where(clash, 0, high), self.selections), clash


def meet(
    a: Owners | None, b: Owners | None, shape: torch.Size, labels_a: "Labels", labels_b: "Labels"
) -> tuple[Owners | None, Tensor | None]:
    """The owners of an elementwise result; and where what met must settle (`None` for nowhere)."""
    if a is None or b is None:
        (one, free) = (a, labels_b) if b is None else (b, labels_a)
        assert one is not None
        codes = one.plain().codes.expand(shape)
        if differs_by_slot(codes, free):
            return None, codes != 0
        if free.highest >= 0:
            for selection in one.selections.values():
                selection.brings(free.highest)
        return Owners(codes, one.selections), None
    x, y = a.plain().codes.expand(shape), b.plain().codes.expand(shape)
    selections = {**a.selections, **b.selections}
    clash = x != y
    if not bool(clash.any()):
        return Owners(x, selections), None
    return Owners(torch.where(clash, 0, x), selections), clash


def differs_by_slot(codes: Tensor, free: "Labels") -> bool:
    """Whether something without owners may differ from slot to slot: neither broadcast along the slots nor all zero."""
    if free.uniform == ZERO:
        return False
    return _vary_along(codes, free.shape)


def choose(condition: Tensor, yes: "Labels", no: "Labels", shape: torch.Size) -> tuple[Owners | None, bool]:
    """The owners of `torch.where` with a known condition; and whether both sides must settle.

    They keep their owners if the condition is the same for every slot, and no side without owners differs by slot.
    """
    for side in (yes, no):
        if side.owners is None:
            continue
        codes = side.owners.codes.expand(shape)
        other = no if side is yes else yes
        if _vary_along(codes, condition.shape) or (other.owners is None and differs_by_slot(codes, other)):
            return None, True
    nobody = torch.zeros((), dtype=torch.int64)
    x, y = (nobody if side.owners is None else side.owners.codes for side in (yes, no))
    selections = {**(yes.owners.selections if yes.owners else {}), **(no.owners.selections if no.owners else {})}
    return Owners(torch.where(condition, x, y).expand(shape), selections), False


def _vary_along(codes: Tensor, shape: torch.Size) -> bool:
    """Whether codes differ along a dim that something of `shape` is not merely broadcast along."""
    lead = codes.dim() - len(shape)
    along = [lead + d for d, size in enumerate(shape) if size > 1 and codes.shape[lead + d] > 1]
    return any(bool((codes != codes.narrow(d, 0, 1)).any()) for d in along)
