"""Which position of the sequence an element belongs to, told from the axes of the tensor that holds it.

An axis as long as the sequence is taken for it; where there is none, adjacent axes whose sizes multiply to that length
(chunks), or to batch times length (flattened tokens). This can only be told where the length equals no other size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Shape = Sequence[int]
Group = tuple[int, ...]  # adjacent axes


@dataclass(frozen=True)
class Layout:
    """How a tensor lies in its storage. `storage` is the number of the storage's record; bytes count from its start."""

    storage: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    itemsize: int

    @classmethod
    def of(cls, tensor: Tensor, storage: int) -> "Layout":
        return cls(
            storage, tuple(tensor.shape), tuple(tensor.stride()), int(tensor.storage_offset()), tensor.element_size()
        )

    def byte(self, at: Sequence[int]) -> int:
        return (self.offset + sum(c * s for c, s in zip(at, self.stride, strict=True))) * self.itemsize

    def at(self, byte: int) -> tuple[int, ...] | None:
        """The coordinates of the element at this byte; `None` if the tensor does not show it."""
        rest = byte // self.itemsize - self.offset
        coordinates = [0] * len(self.shape)
        for d in sorted(range(len(self.shape)), key=lambda d: -self.stride[d]):
            if self.stride[d] > 0:
                coordinates[d] = min(rest // self.stride[d], self.shape[d] - 1)
                rest -= coordinates[d] * self.stride[d]
            if coordinates[d] < 0:
                return None
        return tuple(coordinates) if rest == 0 and 0 not in self.shape else None

    def seen_as(self, other: "Layout", group: Group) -> Tensor:
        """The index along `group`, axes of this layout, of every element that `other` shows of the same storage."""
        flat = torch.zeros((), dtype=torch.int64)
        for d, (size, stride) in enumerate(zip(other.shape, other.stride, strict=True)):
            flat = flat + (torch.arange(size) * stride).reshape([-1] + [1] * (len(other.shape) - d - 1))
        elements = (flat + other.offset) * other.itemsize // self.itemsize - self.offset
        return elements // self.stride[group[-1]] % product(self.shape, group)


@dataclass(frozen=True)
class Axis:
    """The sequence, or the batch if that is where labels differ.

    `size` is its length; the other one's is `other`. `name` is "sequence" or "batch".
    """

    name: str
    size: int
    other: int

    def rows(self, shape: Shape, at: Sequence[Any]) -> list[Any]:
        """The indices along this axis that an element (or a tensor of coordinates for each dim) may stand for."""
        found = groups(shape, self.size)
        if found:
            return [index(shape, at, group) for group in found]
        flattened = [index(shape, at, group) for group in groups(shape, self.size * self.other)]
        return [i % self.size if self.name == "sequence" else i // self.other for i in flattened]

    def row(self, shape: Shape, at: Sequence[int]) -> int | None:
        """The index, if it is the only one that can be told."""
        found = self.rows(shape, at)
        return found[0] if len(found) == 1 else None


def groups(shape: Shape, size: int) -> list[Group]:
    """Axes of this size; if there are none, adjacent ones whose sizes multiply to it."""
    single: list[Group] = [(d,) for d, n in enumerate(shape) if n == size]
    if single or size < 2:
        return single
    several = []
    for first in range(len(shape)):
        for last in range(first + 1, len(shape)):
            group = tuple(range(first, last + 1))
            if 1 not in (shape[first], shape[last]) and product(shape, group) == size:
                several.append(group)
    return several


def index(shape: Shape, at: Sequence[Any], group: Group) -> Any:
    """The index along a group of axes, as if they were one."""
    result = at[group[0]]
    for d in group[1:]:
        result = result * shape[d] + at[d]
    return result


def product(shape: Shape, group: Group) -> int:
    """How long a group of axes is, as if they were one."""
    result = 1
    for d in group:
        result *= shape[d]
    return result
