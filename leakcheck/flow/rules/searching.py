"""Where values lie among others, and the k-th of them."""

from typing import Any

from leakcheck.flow import labels as L
from leakcheck.flow.labels import Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import rule


@rule("aten::kthvalue")
def kth_value(x: Operand, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Labels, Labels]:
    """Value and index, both `max over dim`."""
    both = L.floor(x.labels.over(dim, keepdim=keepdim)) if x.dim() else L.floor(x.labels)
    return both, both


@rule("aten::searchsorted")
def search_sorted(boundaries: Operand, x: Any, *, sorter: Operand | None = None, **_: Any) -> Labels:
    """Of each value and all boundaries of its row: `[..., boundaries]` and `[..., values]`, or one row for all."""
    row = boundaries.labels.over(-1, keepdim=True)  # [..., 1]
    if sorter is not None:
        row = L.join(row, sorter.labels.over(-1, keepdim=True))
    if not isinstance(x, Operand):
        return L.floor(row.over())
    return L.join(x.labels, row if boundaries.dim() > 1 else row.over())


@rule("aten::_is_all_true", "aten::_is_any_true")
def all_true(x: Operand) -> Labels:
    return L.floor(x.labels.over())


@rule("aten::nonzero_static")
def positions(x: Operand, *, size: int, fill_value: int = -1) -> Labels:
    """As many rows as asked for, `[size, dims]`; each depends on every element."""
    return L.floor(x.labels.over()).expand((size, x.dim()))
