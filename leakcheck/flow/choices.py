"""Integers that can only take a few values: what `topk` and `sort` say of where their results were.

An index into n elements is one of 0..n-1, whatever the tokens are. What is computed from it element by element, with
known values beside it, is a function of that one choice: a table of n values for each element. So a scatter by such an
index reaches the places in its table and no others: `one_hot(index, n + 1)` leaves its last class zero, and a mask that
is opened at `where(index < limit, index, dump)` stays closed above the limit.

A table hangs on the storage of its tensor, laid out like it, and holds as long as nothing is written there.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from leakcheck.flow.labels import KNOWN
from leakcheck.flow.operand import Operand

_ATTRIBUTE = "_leakcheck_choices"
_LARGEST = 1 << 20  # elements of a table
COPIES = frozenset({"aten::clone", "aten::_to_copy"})
_names = itertools.count(1)


class Choices:
    """`flat[e, v]` is the value of the storage's element e if its choice is v; `chosen[e]` names the choice."""

    __slots__ = ("chosen", "flat", "version")

    def __init__(self, version: int, chosen: Tensor, flat: Tensor):
        self.version, self.chosen, self.flat = version, chosen, flat


def begin(index: Tensor, n: int) -> None:
    """Every element of `index` is a choice of its own among 0..n-1."""
    if index.numel() and index.numel() * n <= _LARGEST and index.device.type == "cpu":
        chosen = torch.arange(index.numel()).reshape(index.shape) + (next(_names) << 32)
        _state(index, chosen, torch.arange(n).expand(*index.shape, n))


def of(tensor: Tensor) -> tuple[Tensor, Tensor] | None:
    """The names of the choices, of the tensor's shape, and the tables `[*shape, n]`."""
    found = getattr(tensor.untyped_storage(), _ATTRIBUTE, None)
    if found is None or tensor.is_inference() or found.version != tensor._version or found.flat.dtype != tensor.dtype:
        return None
    n = found.flat.shape[1]
    chosen = found.chosen.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
    strides = (*(s * n for s in tensor.stride()), 1)
    return chosen, found.flat.as_strided((*tensor.shape, n), strides, tensor.storage_offset() * n)


def follow(func: Any, args: tuple, kwargs: dict, operands: Sequence[Operand], output: Tensor) -> None:
    """State the table of what an elementwise op or a copy made of choices and known values."""
    tables = {id(x.tensor): table for x in operands if (table := of(x.tensor)) is not None}
    if not tables:
        return
    names: Tensor | None = None
    for x in operands:
        if id(x.tensor) in tables:
            chosen = tables[id(x.tensor)][0].expand(output.shape)
            if names is not None and not torch.equal(names, chosen):
                return  # two choices meet: a table for each pair
            names = chosen
        elif x.labels.uniform != KNOWN:
            return
    assert names is not None

    def by_choice(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return tables[id(value)][1] if id(value) in tables else value.unsqueeze(-1)

    result = func(*(by_choice(value) for value in args), **{k: by_choice(v) for k, v in kwargs.items()})
    if isinstance(result, Tensor):
        _state(output, names, result.expand(*output.shape, result.shape[-1]))


def places(x: Tensor, dim: int, index: Tensor) -> Tensor | None:
    """Boolean, of `x`'s shape: where a scatter by `index` along `dim` can write at all; `None` if nothing is known."""
    found = of(index)
    if found is None:
        return None
    reached = torch.zeros(x.shape, dtype=torch.bool)
    size = x.shape[dim]
    for place in found[1].unbind(-1):
        inside = (place >= 0) & (place < size)  # a choice outside would have raised
        reached.scatter_reduce_(dim, place.clamp(0, size - 1), inside, "amax")
    return reached


def _state(tensor: Tensor, chosen: Tensor, table: Tensor) -> None:
    """Only of a tensor that fills its storage: a part would not tell what the rest holds."""
    count, n = tensor.numel(), table.shape[-1]
    if tensor.is_inference():
        return  # no version would tell that it was written
    if count * tensor.element_size() != tensor.untyped_storage().nbytes() or table.numel() > _LARGEST:
        return
    made = Choices(tensor._version, torch.zeros(count, dtype=torch.int64), torch.zeros(count, n, dtype=tensor.dtype))
    made.chosen.as_strided(tensor.shape, tensor.stride()).copy_(chosen)
    made.flat.as_strided((*tensor.shape, n), (*(s * n for s in tensor.stride()), 1)).copy_(table)
    setattr(tensor.untyped_storage(), _ATTRIBUTE, made)
