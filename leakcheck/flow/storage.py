"""Labels are kept per storage and laid out like it, so that views and in-place writes need no rules.

A tensor reads its labels through its own size, stride and offset. The record of a storage hangs on the storage object:
it lives exactly as long, where an address would be reused.

Most tensors have one label for all features of a position, and the same labels for all heads. So a record keeps one
label for each *unit* of consecutive bytes, and only one period of what repeats.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from leakcheck.flow.absent import is_absent
from leakcheck.flow.labels import BLOCKED, DTYPE, GENERIC, HARD_MASK, KNOWN, ZERO, Labels, collapsed, unexpanded
from leakcheck.flow.selection import Owners

_ATTRIBUTE = "_leakcheck_record"


@dataclass(eq=False)
class Record:
    """What is known of one storage: `uniform`, or a flat `plane`: byte p has the label `plane[p // unit % len(plane)]`.

    Where there are owners `codes` are laid out like `plane`. Both are `shared` with whoever has read or written them,
    and are copied before a part of them is written. `facts` are what routing rules know of the values of the storage as
    a whole; any write forgets them.
    """

    mirror: "Mirror"
    number: int
    uniform: int | None
    unit: int
    plane: Tensor | None = None
    codes: Tensor | None = None
    shared: bool = False
    selections: dict = field(default_factory=dict)
    soft: bool = False
    least: int | None = None  # no label is below it
    size: int = KNOWN  # the label of what decides how large it is (`sizes.py`)
    facts: dict[str, Any] = field(default_factory=dict)
    structure: dict[tuple, Labels] = field(default_factory=dict)


class Mirror:
    """The records of one trace."""

    def __init__(self) -> None:
        self._count = 0
        self.sized = False  # whether any record has a labelled size
        self._kept: list[Any] = []  # storages that outlive the trace, to be cleaned

    def record(self, tensor: Tensor) -> Record:
        """The record of a tensor's storage; a storage never seen holds known values, if it has any."""
        storage = tensor.untyped_storage()
        found = getattr(storage, _ATTRIBUTE, None)
        if found is not None and found.mirror is self:
            return found
        return self._new(storage, tensor)

    def _new(self, storage: Any, tensor: Tensor) -> Record:
        self._count += 1
        made = Record(self, self._count, GENERIC if is_absent(tensor) else KNOWN, max(tensor.element_size(), 1))
        setattr(storage, _ATTRIBUTE, made)
        return made

    def seed(self, tensor: Tensor, labels: Labels) -> None:
        """Labels from outside: parameters, buffers, inputs. `close` takes them away again."""
        self._kept.append(tensor.untyped_storage())
        self.write(tensor, labels)

    def close(self) -> None:
        for storage in self._kept:
            if getattr(storage, _ATTRIBUTE, None) is not None:
                delattr(storage, _ATTRIBUTE)
        self._kept.clear()

    def read(self, tensor: Tensor) -> Labels:
        return self.labels(self.record(tensor), tensor)

    def labels(self, record: Record, tensor: Tensor) -> Labels:
        """What `read` gives, for a tensor whose record is at hand."""
        if record.uniform is not None:
            return Labels.full(tensor.shape, record.uniform)
        assert record.plane is not None
        core = _seen(record.plane, record.unit, tensor)
        if core is None:  # rows of a batch in one dimension
            core = _seen(record.plane.repeat(_periods(record, tensor)), record.unit, tensor)
        if core is None:
            self._refine(record, tensor)
            core = _window(record.plane, record.unit, tensor).amax(-1)
        record.shared = True
        if record.codes is None:
            return Labels.spread(core, tensor.shape, None, record.soft, record.least)
        self._refine(record, tensor)
        codes = _window(record.codes, record.unit, tensor).amax(-1)
        if codes.dim() and codes.shape[-1] > 1 and torch.equal(first := codes[..., :1].expand_as(codes), codes):
            codes = first  # most rows have one owner
        owners = Owners(codes, dict(record.selections)) if bool(unexpanded(codes).any()) else None
        return Labels.spread(core, tensor.shape, owners, record.soft, record.least)

    def write(self, tensor: Tensor, labels: Labels) -> None:
        """Set the labels of what `tensor` shows of its storage."""
        if 0 in tensor.stride():  # an expanded view: what shows in several places is what any of them wrote
            repeated = [d for d, step in enumerate(tensor.stride()) if step == 0 and tensor.shape[d] > 1]
            labels = labels.over(repeated, keepdim=True) if repeated else labels
            for d in repeated:
                tensor = tensor.narrow(d, 0, 1)
        record = self.record(tensor)
        record.facts = {}
        record.structure.clear()
        size = tensor.element_size()
        whole = tensor.numel() * size == tensor.untyped_storage().nbytes()
        if labels.uniform is not None and (whole or labels.uniform == record.uniform):
            record.uniform, record.unit = labels.uniform, size
            record.plane = record.codes = None
            record.selections, record.soft = {}, False
            record.facts = dict(labels.facts or {}) if whole else {}
            return
        order = _memory_order(tensor) if whole else None
        if order is not None:
            record.uniform, record.soft, record.shared, record.least = None, labels.soft, True, labels.least
            record.codes, record.selections = None, {}
            if labels.owners is None:
                record.plane, count = _repeated(labels.core, tensor.shape, order)
                record.unit = count * size
            else:
                dims = tuple(order or range(tensor.dim()))
                record.plane, record.unit = _flat(labels.plane.permute(dims)), size
                record.codes = _flat(labels.owners.codes.expand(labels.shape).permute(dims))
                record.selections = dict(labels.owners.selections)
            record.facts = dict(labels.facts or {})
            return
        self._densify(record, tensor)
        self._refine(record, tensor)
        assert record.plane is not None
        if record.shared:
            record.plane, record.shared = record.plane.clone(), False
            record.codes = None if record.codes is None else record.codes.clone()
        _window(record.plane, record.unit, tensor).copy_(labels.plane.unsqueeze(-1))
        record.soft, record.least = record.soft or labels.soft, None
        if labels.owners is not None:
            if record.codes is None:
                record.codes = torch.zeros_like(record.plane, dtype=torch.int64)
            record.selections.update(labels.owners.selections)
        if record.codes is not None:
            codes = torch.zeros((), dtype=torch.int64) if labels.owners is None else labels.owners.codes
            _window(record.codes, record.unit, tensor).copy_(codes.expand(labels.shape).unsqueeze(-1))

    def _densify(self, record: Record, tensor: Tensor) -> None:
        """A plane in place of a uniform label, before a part of the storage is written."""
        if record.plane is not None:
            return
        size = tensor.element_size()
        count = tensor.untyped_storage().nbytes() // size
        assert record.uniform is not None
        if record.uniform == KNOWN and not is_absent(tensor):
            whole = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage(), 0, (count,), (1,))
            record.plane = by_value(whole).plane.contiguous()
        else:
            record.plane = torch.full((count,), record.uniform, dtype=DTYPE)
        record.uniform, record.unit, record.shared = None, size, False

    @staticmethod
    def _refine(record: Record, tensor: Tensor) -> None:
        """A plane that spells out what repeats, with at least one label for each element of the tensor."""
        assert record.plane is not None
        unit = math.gcd(record.unit, tensor.element_size())
        ratio = record.unit // unit
        periods = _periods(record, tensor)
        if ratio == periods == 1:
            return
        record.plane = record.plane.repeat_interleave(ratio).repeat(periods)
        if record.codes is not None:
            record.codes = record.codes.repeat_interleave(ratio).repeat(periods)
        record.unit, record.shared = unit, False

    def structure(self, tensor: Tensor) -> Labels:
        """Labels with the zeros and the blocking constants of known values made visible."""
        record = self.record(tensor)
        if record.uniform != KNOWN:
            return self.labels(record, tensor)
        key = (tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype)
        if key not in record.structure:
            record.structure[key] = by_value(tensor)
        return record.structure[key]


def by_value(tensor: Tensor) -> Labels:
    """The labels of known values: ZERO, BLOCKED or KNOWN."""
    if tensor.numel() == 1:
        value = tensor.item()
        blocks = tensor.is_floating_point() and value <= blocking(tensor.dtype)
        return Labels.full(tensor.shape, ZERO if value == 0 else BLOCKED if blocks else KNOWN)
    plane = torch.where(tensor == 0, ZERO, torch.full((), KNOWN, dtype=DTYPE))
    if tensor.is_floating_point():
        plane = plane.masked_fill_(tensor <= blocking(tensor.dtype), BLOCKED)
    return collapsed(plane)


def blocking(dtype: torch.dtype) -> float:
    """At or below this a mask value of the dtype absorbs any score."""
    return max(HARD_MASK, torch.finfo(dtype).min)


def _periods(record: Record, tensor: Tensor) -> int:
    """How many times the plane stands in the storage."""
    assert record.plane is not None
    period = record.unit * len(record.plane)
    return tensor.untyped_storage().nbytes() // period if period else 1


def _seen(flat: Tensor, unit: int, tensor: Tensor) -> Tensor | None:
    """A core of the labels of the tensor's elements; `None` if its strides cut through units."""
    shape, size, period = tensor.shape, tensor.element_size(), unit * flat.numel()
    if not tensor.numel():
        return flat.new_empty(shape)
    start, inside = divmod(int(tensor.storage_offset()) * size % period, unit)
    last = start  # the unit of the last element, and where in its unit it lies
    sizes, strides = [], []
    for n, stride in zip(shape, tensor.stride(), strict=True):
        step = stride * size % period if n > 1 else 0
        if step % unit:
            inside += (n - 1) * stride * size
            step = 0
        last += (n - 1) * (step // unit)
        strides.append(step // unit)
        sizes.append(n if step else 1)
    if inside + size > unit or last >= period // unit:
        return None
    return flat.as_strided(sizes, strides, flat.storage_offset() + start)


def _memory_order(tensor: Tensor) -> list[int] | None:
    """The order of dimensions in which the tensor, as large as its storage, fills it; `None` if it does not.

    It is empty where it is the dimensions' own.
    """
    if tensor.is_contiguous():
        return []
    strides = tensor.stride()
    order = sorted(range(tensor.dim()), key=lambda d: -strides[d])
    return order if tensor.permute(order).is_contiguous() else None


def _repeated(core: Tensor, shape: Sequence[int], order: list[int]) -> tuple[Tensor, int]:
    """Flat labels that, each repeated `count` times and all of that over and over, make up the plane in memory."""
    if order:
        core, shape = core.permute(order), [shape[d] for d in order]
    first, last, count = 0, core.dim(), 1
    while last and core.shape[last - 1]:
        alike = core.narrow(last - 1, 0, 1)  # of all features
        if core.shape[last - 1] > 1 and not torch.equal(alike.expand_as(core), core):
            break
        core, last = alike, last - 1
        count *= shape[last]
    sizes = core.shape
    while first < last and sizes[first] == 1:
        first += 1
    inner = [*sizes[:first], *shape[first:last], *sizes[last:]]  # spelt out between
    flat = _flat(core.expand(inner))
    while len(flat) % 2 == 0 and len(flat) and torch.equal(*flat.chunk(2)):  # rows of a batch that has been flattened
        flat = flat[: len(flat) // 2]
    return flat, max(count, 1)


def _flat(plane: Tensor) -> Tensor:
    return plane.reshape(-1).contiguous()


def _window(flat: Tensor, unit: int, tensor: Tensor) -> Tensor:
    """The labels of all units of each element, `[*shape, units]`, from a plane that spells out what repeats."""
    ratio = tensor.element_size() // unit
    strides = [stride * ratio for stride in tensor.stride()]
    start = flat.storage_offset() + tensor.storage_offset() * ratio
    return flat.as_strided((*tensor.shape, ratio), (*strides, 1), start)
