"""Tensors that are as large as the tokens say: what `nonzero`, `unique` and a boolean index make.

Such a size carries tokens where no value does (`torch.ones_like(x[mask]).sum()`). So the record of such a storage keeps
the label of what decides its size. That label goes on to whatever is computed from it, and is joined to every element
that is not one row's own (`selection.py`). What is put back into a tensor has that tensor's size. Where Python reads a
size, `escapes.py` reports it.

A tensor that is empty in this run has no element to carry labels, and need not be empty in the next: its size then
carries the labels of all that it was made from.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from leakcheck.flow import labels as L
from leakcheck.flow.labels import KNOWN, Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.storage import Mirror

BY_MASK = frozenset({"aten::index", "aten::masked_select"})  # only a boolean operand decides the size
_SIZED_AS_FIRST = frozenset(
    f"aten::{name}"
    for name in (
        "index_put", "_index_put_impl", "_unsafe_index_put", "index_add", "index_copy", "index_fill", "index_reduce",
        "scatter", "scatter_add", "scatter_reduce", "masked_scatter", "_grouped_mm",
    )
)  # fmt: skip


class Sizes:
    """What the operands of one op say of the size of its outputs."""

    def __init__(self, mirror: Mirror, name: str, operands: Sequence[Operand], outputs: Sequence[Tensor]):
        sizes = [mirror.record(x.tensor).size for x in operands]
        self._mirror, self._outputs = mirror, outputs
        self._as_first = name.removesuffix("_") in _SIZED_AS_FIRST
        if self._as_first:
            empty = [size for x, size in zip(operands[1:], sizes[1:], strict=True) if not x.tensor.numel()]
            self.label, self.joined = sizes[0], max(sizes[0], *empty, KNOWN)
        else:
            self.label = self.joined = max(sizes, default=KNOWN)
        self._operands = operands

    def decided(self, name: str) -> None:
        """The op looks at values to decide how large its outputs are."""
        operands = [x for x in self._operands[1:] if x.is_mask]
        for x in operands if name in BY_MASK else self._operands:
            self.label = max(self.label, x.labels.settled().highest)
        self.joined = max(self.joined, self.label)

    def join(self, labels: Any) -> Any:
        """The labels of the outputs, with that of the size where an element is not one row's own."""
        if self.joined <= KNOWN:
            return labels
        several = labels if isinstance(labels, (list, tuple)) else [labels] * len(self._outputs)
        return [_joined(each, self.joined) for each in several]

    def store(self, *, in_place: bool) -> None:
        """Remember the size of the outputs; what is written in place keeps its own."""
        if self.label <= KNOWN or in_place:
            return
        if any(not output.numel() for output in self._outputs):
            self.label = max(self.label, *(x.labels.settled().highest for x in self._operands))
        for output in self._outputs:
            self._mirror.sized = True
            self._mirror.record(output).size = self.label


def _joined(labels: Labels | int, size: int) -> Labels | int:
    if isinstance(labels, int):
        return max(labels, size)
    base = labels.hardened()
    if base.owners is None:
        result = L.join(base, Labels.full((), size))
    else:
        plane = torch.where(base.owners.codes == 0, base.plane.clamp(min=size), base.plane)
        result = Labels(plane, base.owners)
    return result.stating(**labels.facts) if labels.facts else result
