"""Which tensors of one forward are masks, what they come from, and where one meets what is none.

Told by value and by derivation, never by name. *Data* is what depends on both the tokens and the weights. A mask is no
data. One is *born* where a tensor relates positions to positions and blocks, though nothing that it was computed from
is a mask; what is computed from masks and still reads like one is *derived* from them. A mask *acts* where it meets
data.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leakcheck.lineage.masks import LOW, Op

_GIVEN = frozenset({-1})  # the root of what the caller gave


@dataclass(frozen=True, eq=False)
class Birth:
    """A mask that is no other's: the op that made it, or `None` if it was there before the forward."""

    mask: Tensor
    op: Op | None
    first_use: Op


class Masks:
    """The masks of one forward.

    `roots` has, by identity, every mask and the numbers of the `births` that it comes from; what the caller gave, and
    what comes from it alone, has none of these. What blocks but only goes into something that is neither mask nor data
    (a table of relative positions, an index) is no mask after all.
    """

    def __init__(self, ops: Sequence[Op], *, tokens: Tensor, given: Iterable[Tensor] = ()):
        self.ops = ops
        self.batch, self.seq = tokens.shape
        self.births: dict[int, Birth] = {}
        self.data: set[int] = set()
        self.roots: dict[int, frozenset[int]] = {id(t): _GIVEN for t in given if t is not tokens and _reads_like(t)}
        self._of_tokens, self._of_weights, self._known = {id(tokens)}, set[int](), {id(tokens), *self.roots}
        self._spent: set[int] = set()  # births that went into something that is no mask
        self._blank: set[int] = set()  # births that allow everything, or nothing: a mask may be made of one yet
        last_written = {id(t): number for number, op in enumerate(ops) for t in op.written}
        for number, op in enumerate(ops):
            for tensor in op.inputs:
                if id(tensor) not in self._known:
                    self._found(tensor, op)
            self._follow(op, {id(t) for t in op.written if last_written[id(t)] == number})
        acting = frozenset[int]().union(*(self.roots[id(mask)] for _, mask in self.applications(self.roots)))
        for number in self._spent - acting:
            self.births.pop(number, None)
        self.roots = {mask: of for mask, of in self.roots.items() if of & {*self.births, *_GIVEN}}

    def _found(self, tensor: Tensor, op: Op) -> None:
        """A tensor that no op made: a weight, a buffer, or what a function made that the log does not see into."""
        self._known.add(id(tensor))
        if tensor.is_floating_point() and {self.batch, self.seq} <= set(tensor.shape):
            self.data.add(id(tensor))
        elif not isinstance(tensor, nn.Parameter) and self._relates(tensor) and _blocks(tensor):
            self._born(tensor, None, op)
        elif tensor.is_floating_point() and tensor.dim():
            self._of_weights.add(id(tensor))

    def _follow(self, op: Op, finished: set[int]) -> None:
        """`finished` are the outputs that no later op writes into; only they have their values."""
        sources = {id(t) for t in op.values}
        outputs = {id(t) for t in op.outputs}
        self._known |= outputs
        for dependent in (self._of_tokens, self._of_weights):
            if sources & dependent:
                dependent |= outputs
        if (sources & self._of_tokens and sources & self._of_weights) or sources & self.data:
            self.data |= outputs
            return
        masks = frozenset[int]().union(*(self.roots.get(source, ()) for source in sources))
        for tensor in op.outputs:
            if id(tensor) in self.data or id(tensor) not in finished:
                continue
            if masks:
                if masks <= self._blank and self._relates(tensor) and _blocks(tensor) and not _is_uniform(tensor):
                    self._born(tensor, op, op)
                    self._spent |= masks
                elif _reads_like(tensor):
                    self.roots[id(tensor)] = masks | self.roots.get(id(tensor), masks)
                elif tensor.dim():
                    self._spent |= masks
            elif self._relates(tensor) and _blocks(tensor):
                self._born(tensor, op, op)

    def _born(self, tensor: Tensor, op: Op | None, first_use: Op) -> None:
        self.roots[id(tensor)] = frozenset({len(self.births)})
        if _is_uniform(tensor):
            self._blank.add(len(self.births))
        self.births[len(self.births)] = Birth(tensor, op, first_use)

    def _relates(self, tensor: Tensor) -> bool:
        """Whether it has an axis of queries and one of keys; those may be the positions of a chunk."""
        if not _has_values(tensor):
            return False
        queries, keys = tensor.shape[-2:]
        if queries == keys > 1 or sum(size == self.seq for size in tensor.shape) >= 2:
            return True
        return queries == self.seq and keys > 1 and (tensor.dtype == torch.bool or _is_low(tensor))  # other keys

    def family(self, of: Iterable[Tensor]) -> set[int]:
        """Identities of what shares a birth with one of these masks."""
        births = frozenset[int]().union(*(self.roots.get(id(mask), ()) for mask in of)) - _GIVEN
        return {identity for identity, roots in self.roots.items() if roots & births}

    @property
    def given(self) -> set[int]:
        """Identities of what the caller gave, and of what comes from it alone."""
        return {identity for identity, roots in self.roots.items() if roots == _GIVEN}

    def applications(self, family: Iterable[int] | Mapping[int, object]) -> list[tuple[Op, Tensor]]:
        """The ops in which a mask of the family meets data, with that mask: where it acts."""
        members = set(family)
        found = []
        for op in self.ops:
            masks = [t for t in op.values if id(t) in members]
            if masks and any(id(t) in self.data for t in op.values):
                found.append((op, masks[0]))
        return found


def _has_values(tensor: Tensor) -> bool:
    """Whether it is a table of values that can be looked at: not on the meta device, neither nested nor sparse."""
    return not tensor.is_meta and not tensor.is_nested and tensor.layout is torch.strided and tensor.dim() >= 2


def _is_uniform(tensor: Tensor) -> bool:
    return tensor.dtype == torch.bool and bool(tensor.all() | ~tensor.any())


def _is_low(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and bool((tensor <= LOW).any())


def _blocks(tensor: Tensor) -> bool:
    """Boolean, or some entries low enough to block and others not, or both ones and zeros."""
    if tensor.dtype == torch.bool or (_is_low(tensor) and bool((tensor > LOW).any())):
        return True
    zeros, ones = tensor == 0, tensor == 1
    return bool((zeros | ones).all() and zeros.any() and ones.any())


def _reads_like(tensor: Tensor) -> bool:
    """Whether something derived from a mask is one still: it may block nothing, but positions or sums are none."""
    if not _has_values(tensor):
        return False
    return tensor.dtype == torch.bool or _is_low(tensor) or bool(((tensor == 0) | (tensor == 1)).all())
