"""Labels are kept per storage and laid out like it, so that views and in-place writes need no rules.

A tensor reads its labels through its own size, stride and offset. The record of a storage hangs on the storage object:
it lives exactly as long, where an address would be reused.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from leakcheck.flow.labels import BLOCKED, DTYPE, HARD_MASK, KNOWN, ZERO, Labels
from leakcheck.flow.selection import Owners

_ATTRIBUTE = "_leakcheck_record"
_HELD = "_leakcheck_held"


@dataclass(eq=False)
class Record:
    """What is known of one storage: `uniform`, or a flat `plane` with one label for each `unit` bytes.

    `facts` are what routing rules know of the values of the storage as a whole; any write forgets them.
    """

    mirror: "Mirror"
    number: int
    uniform: int | None
    unit: int
    plane: Tensor | None = None
    codes: Tensor | None = None
    selections: dict = field(default_factory=dict)
    soft: bool = False
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
        """The record of a tensor's storage; a storage never seen holds known values."""
        storage = tensor.untyped_storage()
        found = getattr(storage, _ATTRIBUTE, None)
        if found is not None and found.mirror is self:
            return found
        return self._new(storage, tensor, KNOWN)

    def _new(self, storage: Any, tensor: Tensor, uniform: int) -> Record:
        self._count += 1
        made = Record(self, self._count, uniform, max(tensor.element_size(), 1))
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
        record = self.record(tensor)
        if record.uniform is not None:
            return Labels.full(tensor.shape, record.uniform)
        assert record.plane is not None
        size = tensor.element_size()
        if size < record.unit:
            self._refine(record, size)
        ratio = size // record.unit
        plane = _through(record.plane, tensor, ratio)
        owners = None
        if record.codes is not None:
            codes = _through(record.codes, tensor, ratio)
            if bool(codes.any()):
                owners = Owners(codes, dict(record.selections))
        return Labels(plane, owners, record.soft)

    def write(self, tensor: Tensor, labels: Labels) -> None:
        """Set the labels of what `tensor` shows of its storage."""
        record = self.record(tensor)
        record.facts = {}
        record.structure.clear()
        storage_bytes = tensor.untyped_storage().nbytes()
        size = tensor.element_size()
        whole = tensor.numel() * size == storage_bytes
        if labels.uniform is not None and (whole or labels.uniform == record.uniform):
            record.uniform, record.unit = labels.uniform, size
            record.plane = record.codes = None
            record.selections, record.soft = {}, False
            record.facts = dict(labels.facts or {}) if whole else {}
            return
        if whole and tensor.is_contiguous():
            flat = labels.plane.reshape(-1)
            record.plane = _adopted(flat)
            record.uniform, record.unit, record.soft = None, size, labels.soft
            record.codes, record.selections = None, {}
            if labels.owners is not None:
                record.codes = labels.owners.codes.expand(labels.shape).reshape(-1).clone()
                record.selections = dict(labels.owners.selections)
            record.facts = dict(labels.facts or {})
            return
        self._densify(record, tensor)
        if size < record.unit:
            self._refine(record, size)
        ratio = size // record.unit
        assert record.plane is not None
        _store(record.plane, tensor, ratio, labels.plane)
        record.soft = record.soft or labels.soft
        if labels.owners is not None:
            if record.codes is None:
                record.codes = torch.zeros_like(record.plane, dtype=torch.int64)
            record.selections.update(labels.owners.selections)
        if record.codes is not None:
            codes = torch.zeros((), dtype=torch.int64) if labels.owners is None else labels.owners.codes
            _store(record.codes, tensor, ratio, codes.expand(labels.shape))

    def _densify(self, record: Record, tensor: Tensor) -> None:
        """A plane in place of a uniform label, before a part of the storage is written."""
        if record.plane is not None:
            return
        size = tensor.element_size()
        count = tensor.untyped_storage().nbytes() // size
        assert record.uniform is not None
        if record.uniform == KNOWN and tensor.device.type != "meta":
            whole = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage(), 0, (count,))
            record.plane = by_value(whole).contiguous()
        else:
            record.plane = torch.full((count,), record.uniform, dtype=DTYPE)
        record.uniform, record.unit = None, size

    @staticmethod
    def _refine(record: Record, size: int) -> None:
        """More labels per byte: a complex tensor seen as real, a tensor seen as a smaller type."""
        ratio = record.unit // size
        assert record.plane is not None
        record.plane = record.plane.repeat_interleave(ratio)
        if record.codes is not None:
            record.codes = record.codes.repeat_interleave(ratio)
        record.unit = size

    def structure(self, tensor: Tensor) -> Labels:
        """Labels with the zeros and the blocking constants of known values made visible."""
        record = self.record(tensor)
        if record.uniform != KNOWN or tensor.device.type == "meta":
            return self.read(tensor)
        key = (tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype, tensor._version)
        if key not in record.structure:
            record.structure[key] = Labels(by_value(tensor))
        return record.structure[key]


def by_value(tensor: Tensor) -> Tensor:
    """The labels of known values: ZERO, BLOCKED or KNOWN."""
    known = torch.full((), KNOWN, dtype=DTYPE)
    plane = torch.where(tensor == 0, ZERO, known)
    if tensor.is_floating_point():
        plane = torch.where(tensor <= blocking(tensor.dtype), BLOCKED, plane)
    return plane.to(DTYPE)


def blocking(dtype: torch.dtype) -> float:
    """At or below this a mask value of the dtype absorbs any score."""
    return max(HARD_MASK, torch.finfo(dtype).min)


def _through(flat: Tensor, tensor: Tensor, ratio: int) -> Tensor:
    if ratio == 1:
        return flat.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
    parts = flat.as_strided(
        (*tensor.shape, ratio), (*(s * ratio for s in tensor.stride()), 1), tensor.storage_offset() * ratio
    )
    return parts.amax(-1)


def _store(flat: Tensor, tensor: Tensor, ratio: int, values: Tensor) -> None:
    if ratio == 1:
        flat.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).copy_(values.expand(tensor.shape))
        return
    parts = flat.as_strided(
        (*tensor.shape, ratio), (*(s * ratio for s in tensor.stride()), 1), tensor.storage_offset() * ratio
    )
    parts.copy_(values.expand(tensor.shape).unsqueeze(-1).expand(*tensor.shape, ratio))


def _adopted(flat: Tensor) -> Tensor:
    """A plane that a record may write into: the one given, unless another record holds it or it is a part of one."""
    storage = flat.untyped_storage()
    fresh = flat.is_contiguous() and storage.nbytes() == flat.numel() * flat.element_size()
    if not fresh or getattr(storage, _HELD, False):
        flat = flat.clone(memory_format=torch.contiguous_format)
        storage = flat.untyped_storage()
    setattr(storage, _HELD, True)
    return flat
