"""What one policy asks of one forward: which inputs are which, and what may not see what."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leakcheck.codes import Code
from leakcheck.probes.groups import Change, Mix, Run


@dataclass(frozen=True, eq=False)
class Order:
    """An output may see the inputs whose label is at most its limit: both integers `[rows, seq]`."""

    labels: Tensor
    limit: Tensor

    @classmethod
    def both_ways(cls, index: Tensor) -> tuple["Order", "Order"]:
        """Nothing sees what has another index: neither a larger one nor a smaller one."""
        reverse = index.max() - index
        return cls(index, index), cls(reverse, reverse)


@dataclass(frozen=True, eq=False)
class Question:
    """Whether `run`, on `tokens` `[rows, seq]`, keeps apart what every one of `orders` keeps apart.

    `same_as` is another way to run them, which has to give the same: then there is no proof, only that nothing differs.
    `valid` `[rows, seq]` is false for padding. The forward is run on `chunks` of the sequence, one after the other.
    `code` is that of the finding, `what` says in words what is looked at. `last` runs tokens of the last chunk alone,
    after the others as they are: there the axes of one chunk can be told.
    """

    code: Code
    what: str
    run: Run
    tokens: Tensor
    valid: Tensor
    orders: tuple[Order, ...] = ()
    groups: tuple[tuple[str, Tensor], ...] = ()  # of inputs that are changed together: name, boolean [rows, seq]
    same_as: Run | None = None
    chunks: tuple[int, ...] = ()  # the whole sequence at once if there are none
    last: Run | None = None

    @property
    def otherwise(self) -> "Question | None":
        """The same of the other way to run it."""
        return None if self.same_as is None else replace(self, run=self.same_as, same_as=None, chunks=())

    @property
    def changes(self) -> tuple[Change, ...]:
        return tuple(Change(name, inputs, self.blind(inputs)) for name, inputs in self.groups)

    @property
    def pairs(self) -> int:
        """How many pairs of a changed input and an output that may not see it there are; or outputs compared."""
        if not self.groups:
            return int(self.valid.sum())
        return sum(int(change.inputs.sum()) * int(change.blind.sum()) for change in self.changes)

    def blind(self, inputs: Tensor) -> Tensor:
        """Boolean `[rows, seq]`: the outputs that may see none of these inputs; all of them where nothing differs."""
        if not inputs.any():
            return self.valid
        blind = torch.zeros_like(self.valid)
        for order in self.orders:
            blind |= order.labels[inputs].min() > order.limit
        return blind & self.valid

    def leak(self, order: Order) -> Mix | None:
        """A leak of this order to plant: outputs of one row read an input that none of them may see."""
        for row, position in reversed(self._sources(order)):
            late = (order.limit < order.labels[row, position]) & self.valid & self._together(position)
            if late.any():
                nearest = min(late.any(1).nonzero()[:, 0].tolist(), key=lambda other: abs(other - row))
                return Mix(late & (torch.arange(len(late)) == nearest)[:, None], row, position)
        return None

    def clean(self, order: Order) -> Mix | None:
        """The clean twin: an output reads another input of its row, which it may see, and everybody who sees it."""
        leak = self.leak(order)
        for row, position in [] if leak is None else leak.targets.nonzero().tolist():
            seen = (order.labels[row] <= order.labels[row, position]) & self.valid[row] & self._together(position)
            seen[position] = False
            if seen.any():
                target = torch.zeros_like(self.valid)
                target[row, position] = True
                return Mix(target, row, int(seen.nonzero()[-1]))
        return None

    def _sources(self, order: Order) -> list[tuple[int, int]]:
        changed = torch.stack([inputs for _, inputs in self.groups]).any(0)
        return [(row, position) for row, position in changed.nonzero().tolist()]

    def _together(self, position: int) -> Tensor:
        """Boolean `[seq]`: the positions that are run at once with this one."""
        ends = torch.tensor(self.chunks or (self.valid.shape[1],)).cumsum(0)
        number = torch.bucketize(torch.arange(self.valid.shape[1]), ends, right=True)
        return number == number[position]
