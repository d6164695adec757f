"""Brute force on one function alone: does a result move that its labels say cannot?

It is run on the shapes of a real call, in float64 where it takes that, first on the values of the call and then on
random ones. Every position is changed by itself, by steps small and large, and then half of all positions at a time, in
halves that tell any two apart: for conditions that a single change seldom meets.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from leakcheck.flow import labels as L
from leakcheck.flow.labels import GENERIC, Labels
from leakcheck.flow.operand import Operand
from leakcheck.subjects.subject import randomise

_DRAWS = 3  # the first on the values of the call, the others on random ones
_SINGLE = 2048  # that many positions are changed by themselves, drawn at random where there are more
_ROUNDING = 2.0**10  # in units of the machine epsilon of the largest result


class Check:
    """One call of a function with these arguments, `operands` for those that are tensors.

    `label(labels of the arguments, shape)` is what is claimed of a result. `cells(shape)` numbers the positions of an
    argument, elements of one number being one position.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        label: Callable[[Sequence[Labels], torch.Size], Labels],
        cells: Callable[[torch.Size], Tensor],
        args: tuple,
        kwargs: dict,
        operands: Sequence[Operand],
    ):
        self.function, self.label, self.cells = function, label, cells
        self.leaves, self.spec = tree_flatten((args, kwargs))
        found = iter(operands)
        self.operands = [next(found) if isinstance(leaf, Tensor) else None for leaf in self.leaves]
        self.generator = torch.Generator().manual_seed(0)

    def counterexample(self) -> str | None:
        """What the labels do not allow and yet happens, in words; `None` if nothing was found."""
        error: str | None = None
        tried = False
        for draw in range(_DRAWS):
            for double in (True, False):
                try:
                    leaves = self._drawn(double, random=draw > 0)
                    base = self._run(leaves)
                except Exception as failure:  # it does not take these values: the others decide
                    error = f"{type(failure).__name__}: {failure}".splitlines()[0]
                    continue
                if not all(bool(t.isfinite().all()) for t in base):
                    continue
                if not all(same(a, b) for a, b in zip(base, self._run(leaves), strict=True)):
                    return "it is no function of its arguments: two runs differ"
                tried = True
                if found := self._moved(leaves, base):
                    return found
                break
        return None if tried else f"it could not be checked ({error or 'its results are not finite'})"

    def _moved(self, leaves: list[Any], base: list[Tensor]) -> str | None:
        for number, operand in enumerate(self.operands):
            if operand is None or operand.labels.settled().highest < 0:
                continue
            for at in self._changes(operand.shape):
                changed = list(leaves)
                changed[number] = self._changed(leaves[number], at)
                try:
                    results = self._run(changed)
                except Exception:  # it does not take these values: the others decide
                    continue
                if [t.shape for t in results] != [t.shape for t in base]:
                    return f"the shape of its result depends on the values of {_described(at)}"
                if found := self._wrong(number, at, base, results):
                    return self._narrowed(number, at, leaves, changed, base) or found
        return None

    def _wrong(self, number: int, at: Tensor, base: list[Tensor], results: list[Tensor]) -> str | None:
        shape = at.shape
        for before, after in zip(base, results, strict=True):
            wrong = _moves(before, after) & ~self._allowed(number, at, before.shape)
            if bool(wrong.any()):
                where = tuple(wrong.nonzero()[0].tolist())
                moved = f"moved position {list(where)} of a result {list(before.shape)}"
                by = _distance(before[where], after[where])
                return f"changing {_described(at)} of an argument {list(shape)} {moved} by {by:.1e}"
        return None

    def _narrowed(
        self, number: int, at: Tensor, leaves: list[Any], changed: list[Any], base: list[Tensor]
    ) -> str | None:
        """The same with one position changed, if one is enough."""
        cells = self.cells(at.shape)
        for cell in cells[at].unique()[:_SINGLE]:
            here = cells == cell
            one = list(leaves)
            one[number] = torch.where(here, changed[number], leaves[number])
            try:
                results = self._run(one)
            except Exception:  # it does not take these values
                continue
            if [t.shape for t in results] == [t.shape for t in base] and (
                found := self._wrong(number, here, base, results)
            ):
                return found
        return None

    def _allowed(self, number: int, at: Tensor, shape: torch.Size) -> Tensor:
        """What the labels say can move: the very rule that would be believed."""
        several = [
            Labels(torch.where(at, 0, GENERIC).to(L.DTYPE)) if i == number else Labels.full(operand.shape, GENERIC)
            for i, operand in enumerate(self.operands)
            if operand is not None
        ]
        return self.label(several, shape).plane >= 0

    def _changes(self, shape: torch.Size) -> Iterator[Tensor]:
        """Boolean, of an argument's shape: each position alone, and every half that one bit of its number tells."""
        cells = self.cells(shape)
        count = int(cells.max()) + 1 if cells.numel() else 0
        single = torch.randperm(count, generator=self.generator) if count > _SINGLE else torch.arange(count)
        for cell in single[:_SINGLE]:
            yield cells == cell
        for bit in range(max(count - 1, 0).bit_length()):
            yield (cells >> bit & 1).bool()
            yield ~(cells >> bit & 1).bool()

    def _drawn(self, double: bool, random: bool) -> list[Any]:
        """The arguments anew: all numbers in float64 if `double`; what depends on tokens or parameters `random`."""
        leaves = []
        for leaf, operand in zip(self.leaves, self.operands, strict=True):
            if isinstance(leaf, nn.Module):
                module = copy.deepcopy(leaf)
                if random:
                    randomise(module, int(torch.randint(1 << 30, (), generator=self.generator)))
                leaves.append(module.double() if double else module)
                continue
            if operand is None:
                leaves.append(leaf)
                continue
            value = leaf.detach().clone()
            if random and not operand.known:
                value = self._noise(value)
            if double and (value.is_floating_point() or value.is_complex()):
                value = value.to(torch.complex128 if value.is_complex() else torch.float64)
            leaves.append(value)
        return leaves

    def _noise(self, like: Tensor) -> Tensor:
        """Other values of the kind: normal, or those of an integer tensor in another order."""
        if like.is_floating_point() or like.is_complex():
            return torch.randn(like.shape, generator=self.generator, dtype=like.dtype)
        return like.reshape(-1)[torch.randperm(like.numel(), generator=self.generator)].reshape(like.shape)

    def _changed(self, value: Tensor, at: Tensor) -> Tensor:
        if value.dtype == torch.bool:
            return value ^ at
        if value.is_floating_point() or value.is_complex():
            size = 10 ** (4 * torch.rand((), generator=self.generator).item() - 2)  # some conditions need large values
            return torch.where(at, value + size * self._noise(value), value)
        other = value.reshape(-1)[torch.randint(value.numel(), value.shape, generator=self.generator)]
        return torch.where(at, other, value)

    def _run(self, leaves: list[Any]) -> list[Tensor]:
        args, kwargs = tree_unflatten([x.clone() if isinstance(x, Tensor) else x for x in leaves], self.spec)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.default_generator.manual_seed(0)  # of what it draws itself, the same each time
            return [leaf.clone() for leaf in tree_leaves(self.function(*args, **kwargs)) if isinstance(leaf, Tensor)]


def same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def _moves(before: Tensor, after: Tensor) -> Tensor:
    """Where a result moves by more than rounding."""
    if not (before.is_floating_point() or before.is_complex()):
        return before != after
    if not before.numel():
        return torch.zeros(before.shape, dtype=torch.bool)
    largest = torch.maximum(before.abs().max(), after.abs().nan_to_num(0, 0).max())
    return ~((after - before).abs() <= _ROUNDING * torch.finfo(before.dtype).eps * largest)


def _distance(before: Tensor, after: Tensor) -> float:
    return (after.to(torch.complex128) - before.to(torch.complex128)).abs().item()


def _described(at: Tensor) -> str:
    """The positions that were changed: one by its index, more by their number."""
    places = at.nonzero().tolist()
    same = [d for d in range(at.dim()) if len({place[d] for place in places}) == 1]
    index = ", ".join(str(places[0][d]) if d in same else ":" for d in range(at.dim()))
    return f"position [{index}]" if same or len(places) == 1 else f"{len(places)} elements at once"
