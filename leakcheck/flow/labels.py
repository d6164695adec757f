"""The label algebra: what rules are written in.

A label says which input an element can depend on. Labels are small integers, joined by `max`:

    ZERO < BLOCKED < KNOWN < GENERIC < 0, 1, 2, ... (labels of inputs) < HOLE

ZERO: known to be zero. BLOCKED: a constant so low that softmax gives it no weight. KNOWN: depends on no input and no
parameter, so its value in this run is its value in every run. GENERIC: depends on parameters, value not assumed (a
zero-initialised gate is no zero). HOLE: an op without a rule was in the way; nothing is known. A *soft* label belongs
to a score that a finite mask value such as -1e4 was added to: softmax takes it for blocked, everything else sees the
label beneath. UNWRITTEN, just below HOLE: memory from `empty` that no op has written; to read it means that something
else did.

An element may also have an owner (`selection.py`): it sits in a slot whose position depends on the tokens.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from leakcheck.flow import selection
from leakcheck.flow.selection import Owners, unexpanded

DTYPE = torch.int16
ZERO, BLOCKED, KNOWN, GENERIC = -4, -3, -2, -1
HOLE, UNWRITTEN = 32_000, 31_999
LARGEST = 9_000  # the largest label of an input: soft labels need the room below
_SOFT = 20_000  # a soft label is the label beneath, less this
HARD_MASK, SOFT_MASK = -1e30, -1e3  # at or below: absorbs any score; blocks as long as scores stay above it

_CONSTANTS: dict[int, Tensor] = {}


class Labels:
    """The labels of one tensor: a plane of integers of its shape, or one `uniform` label for all of it.

    Its `core` is the plane with one element along the dimensions that it is known to be constant along. The algebra
    computes with cores alone.
    """

    __slots__ = ("_core", "_least", "_plane", "facts", "owners", "shape", "soft", "uniform")

    def __init__(self, plane: Tensor, owners: Owners | None = None, soft: bool = False, least: int | None = None):
        self._plane: Tensor | None = plane
        self._core: Tensor | None = None
        self._least = least
        self.shape = plane.shape
        self.uniform: int | None = None
        self.owners = owners
        self.soft = soft  # whether any label is soft
        self.facts: dict[str, Any] | None = None  # what routing rules know of the values as a whole

    @classmethod
    def full(cls, shape: Sequence[int], label: int) -> "Labels":
        labels = cls.__new__(cls)
        labels._plane, labels.shape, labels.uniform, labels._least = None, torch.Size(shape), label, label
        labels._core, labels.owners, labels.soft, labels.facts = None, None, False, None
        return labels

    @classmethod
    def spread(
        cls,
        core: Tensor,
        shape: Sequence[int],
        owners: Owners | None = None,
        soft: bool = False,
        least: int | None = None,
    ) -> "Labels":
        """`core` has as many dimensions as `shape`, each of its size or of size 1."""
        labels = cls.__new__(cls)
        labels._core, labels.shape, labels._least = core, torch.Size(shape), least
        labels._plane, labels.uniform, labels.owners, labels.soft, labels.facts = None, None, owners, soft, None
        return labels

    @property
    def plane(self) -> Tensor:
        """int16, of `shape`; expanded along dimensions that it is known to be constant along."""
        if self._plane is None:
            self._plane = self.core.expand(self.shape)
        return self._plane

    @property
    def core(self) -> Tensor:
        if self._core is None:
            if self.uniform is None:
                self._core = unexpanded(self.plane)
            else:
                constant = _CONSTANTS.get(self.uniform)
                if constant is None:
                    constant = _CONSTANTS[self.uniform] = torch.tensor(self.uniform, dtype=DTYPE)
                self._core = constant.expand([min(n, 1) for n in self.shape])
        return self._core

    @property
    def least(self) -> int:
        """No label is below it: mostly this alone tells, without a look at the plane, that none is ZERO or BLOCKED."""
        if self._least is None:
            self._least = int(self.core.min()) if self.shape.numel() else HOLE
        return self._least

    @property
    def is_constant(self) -> bool:
        """Whether no element depends on an input; decided without looking at a plane."""
        return self.uniform is not None and self.uniform < 0

    @property
    def highest(self) -> int:
        if self.uniform is not None:
            return self.uniform
        return int(self.hardened().core.max()) if self.shape.numel() else KNOWN

    def hardened(self) -> "Labels":
        """Soft labels give way to the labels beneath."""
        if not self.soft:
            return self
        core = self.core
        return Labels.spread(torch.where(core < -_SOFT // 2, core + _SOFT, core), self.shape, self.owners)

    def is_soft(self) -> Tensor:
        return (self.core < -_SOFT // 2).expand(self.shape)

    def softened(self, where: Tensor) -> "Labels":
        """Soft labels where the mask is true and a label of an input or parameter stands."""
        base = self.hardened()
        core = base.core
        core = torch.where(unexpanded(where) & (core >= GENERIC) & (core < UNWRITTEN), core - _SOFT, core)
        return Labels(core.expand(self.shape), base.owners, soft=True)

    def settled(self) -> "Labels":
        """Owners give way: an element of a slot takes on all that the slot could hold, and what decides that."""
        if self.owners is None:
            return self
        base = self.hardened()
        return Labels(torch.maximum(base.plane, self.owners.everything()))

    def view(self, function: Callable[[Tensor], Tensor]) -> "Labels":
        """Rearranged by a function that only moves elements (transpose, expand, a gather by fixed indices, ...)."""
        owners = None if self.owners is None else self.owners.view(function)
        if self.uniform is not None:
            return Labels.full(function(torch.empty(self.shape, device="meta")).shape, self.uniform)
        return Labels(function(self.plane), owners, self.soft, self._least)

    def stating(self, **facts: Any) -> "Labels":
        """The same labels with facts about the values as a whole, which hold until the storage is written."""
        stated = self.view(lambda t: t)
        stated.facts = facts
        return stated

    def expand(self, shape: Sequence[int]) -> "Labels":
        if self.shape == torch.Size(shape):
            return self
        if broadcast(self.shape, shape) != torch.Size(shape):
            raise RuntimeError(f"labels of shape {list(self.shape)} do not expand to {list(shape)}")
        if self.uniform is not None:
            return Labels.full(shape, self.uniform)
        owners = None if self.owners is None else self.owners.view(lambda t: t.expand(shape))
        core = self.core[(None,) * (len(shape) - len(self.shape))]
        return Labels.spread(core, shape, owners, self.soft, self._least)

    def over(self, dims: Sequence[int] | int | None = None, *, keepdim: bool = False) -> "Labels":
        """The join along `dims` (all of them for `None`), for a reduction. ZEROs alone stay ZERO."""
        every = tuple(range(len(self.shape)))
        dims = every if dims is None else (dims,) if isinstance(dims, int) else tuple(dims) or every
        dims = tuple(sorted({d % len(self.shape) for d in dims})) if every else ()
        shape = _reduced(self.shape, dims, keepdim)
        if self.uniform is not None:
            return Labels.full(shape, self.uniform if self.uniform != BLOCKED else KNOWN)
        if not every:
            return self
        if any(self.shape[d] == 0 for d in dims):
            return Labels.full(shape, KNOWN)
        base = self.hardened()
        plane = base.core.amax(dims, keepdim=keepdim)
        if base.least < KNOWN:
            plane = torch.where(plane == BLOCKED, KNOWN, plane)
        if base.owners is None:
            return Labels.spread(plane, shape, least=base.least)
        plane = plane.expand(shape)
        owners, clash = base.owners.over(dims, keepdim)
        if clash is not None:
            plane = torch.where(clash, base.settled().plane.amax(dims, keepdim=keepdim), plane)
        return Labels(plane, owners)

    def everywhere(self, shape: Sequence[int]) -> "Labels":
        """Every element of a result of `shape` may depend on every element here."""
        return Labels.full(shape, max(self.settled().highest, KNOWN))


def some(mask: Tensor) -> bool:
    """`bool(mask.any())`, which is slow on large masks."""
    return mask.numel() > 0 and bool(mask.view(torch.uint8).amax())


def collapsed(plane: Tensor) -> Labels:
    """The labels of a plane, expanded along every dimension along which it is constant."""
    shape = plane.shape
    for d in range(plane.dim()):
        if shape[d] > 1 and torch.equal(first := plane.narrow(d, 0, 1).expand_as(plane), plane):
            plane = first.narrow(d, 0, 1)
    if plane.numel() == 1:
        return Labels.full(shape, int(plane))
    return Labels(plane.expand(shape))


def broadcast(*shapes: Sequence[int]) -> torch.Size:
    """`torch.broadcast_shapes`, in a tenth of its time.

    Raises:
        RuntimeError: the shapes do not fit.
    """
    result = [1] * max(len(shape) for shape in shapes)
    for shape in shapes:
        for d in range(-len(shape), 0):
            if shape[d] != 1 and shape[d] != result[d]:
                if result[d] != 1:
                    raise RuntimeError(f"shapes {[list(s) for s in shapes]} do not broadcast")
                result[d] = shape[d]
    return torch.Size(result)


def cat(planes: Sequence[Tensor], dim: int) -> Tensor:
    """`torch.cat` that leaves expanded what is expanded in all of them."""
    first, dim = planes[0], dim % planes[0].dim()
    shape = list(first.shape)
    shape[dim] = sum(plane.shape[dim] for plane in planes)
    if len(planes) == 1:
        return first
    if all(plane.stride(dim) == 0 for plane in planes):
        cores = [unexpanded(plane) for plane in planes]
        if all(torch.equal(core, cores[0]) for core in cores):
            return cores[0].expand(shape)
    for d in range(first.dim()):
        if d != dim and all(plane.stride(d) == 0 for plane in planes):
            planes = [plane.narrow(d, 0, min(1, plane.shape[d])) for plane in planes]
    return torch.cat(list(planes), dim).expand(shape)


def _reduced(shape: torch.Size, dims: Sequence[int], keepdim: bool) -> list[int]:
    return [1 if d in dims else s for d, s in enumerate(shape) if keepdim or d not in dims]


def join(*several: Labels) -> Labels:
    """Elementwise, with broadcasting: depends on all of them. No ZERO and no BLOCKED survives."""
    return floor(highest(*several))


def floor(labels: Labels) -> Labels:
    """ZERO and BLOCKED give way to KNOWN."""
    if labels.least >= KNOWN:
        return labels
    if labels.uniform is not None:
        return Labels.full(labels.shape, KNOWN)
    base = labels.hardened()
    return Labels.spread(base.core.clamp(min=KNOWN), base.shape, base.owners, least=KNOWN)


def highest(*several: Labels) -> Labels:
    """Elementwise maximum with broadcasting: `join` for ops that give zero for zeros."""
    result = several[0].hardened()
    for other in several[1:]:
        result = _highest_of_two(result, other.hardened())
    return result


def _highest_of_two(a: Labels, b: Labels) -> Labels:
    if a.uniform is not None and b.uniform is not None:
        return Labels.full(broadcast(a.shape, b.shape), max(a.uniform, b.uniform))
    shape = a.shape if a.shape == b.shape else broadcast(a.shape, b.shape)
    core = torch.maximum(a.core, b.core)
    if a.owners is None and b.owners is None:
        return Labels.spread(core, shape, least=max(a.least, b.least))
    plane = core.expand(shape)
    owners, clash = selection.meet(a.owners, b.owners, shape, a, b)
    if clash is not None:
        settled = torch.maximum(a.settled().plane, b.settled().plane)
        plane = torch.where(clash, settled, plane)
    return Labels(plane, owners)


def select(condition: Tensor, yes: Labels, no: Labels) -> Labels:
    """`yes` where the condition, a known boolean tensor, is true; `no` elsewhere."""
    shape = broadcast(condition.shape, yes.shape, no.shape)
    if yes.uniform is not None and yes.uniform == no.uniform:
        return Labels.full(shape, yes.uniform)
    owners = None
    if yes.owners is not None or no.owners is not None:
        owners, clash = selection.choose(condition, yes, no, shape)
        if clash:
            yes, no = yes.settled(), no.settled()
    plane = torch.where(unexpanded(condition), yes.core, no.core)
    return Labels(plane.expand(shape), owners, yes.soft or no.soft)


def zero_where(condition: Tensor, labels: Labels) -> Labels:
    """ZERO where the known condition is true."""
    return select(condition, Labels.full((), ZERO), labels)


def dense(*several: Any) -> bool:
    """Whether any of the labels depends on an input (or is not uniform)."""
    return any(not labels.is_constant for labels in several)
