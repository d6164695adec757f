"""Reshaping in place, and copies of views: elements move, none changes."""

from typing import Any

import torch
from torch import Tensor

from leakcheck.flow import labels as L
from leakcheck.flow.context import Context
from leakcheck.flow.labels import Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import rule


@rule("aten::transpose_", "aten::select_copy", "aten::slice_copy", "aten::split_copy", rowwise=True, soft=True)
def like_the_view(x: Operand, *args: Any, context: Context, **named: Any) -> Labels | list[Labels]:
    """What the view of the same name shows."""
    view = getattr(torch.ops.aten, context.name.removeprefix("aten::").removesuffix("_copy").removesuffix("_"))
    if isinstance(context.result, Tensor):
        return x.labels.view(lambda t: view(t, *args, **named))
    return [x.labels.view(lambda t, i=i: view(t, *args, **named)[i]) for i in range(len(context.result))]  # type: ignore[misc]


@rule("aten::as_strided_", rowwise=True, soft=True)
def strided(x: Operand, *_: Any, context: Context, **__: Any) -> Labels:
    """x becomes another view of its own storage."""
    return x.shown(context.result)


@rule("aten::view_as_complex_copy")
def as_complex(x: Operand) -> Labels:
    """Real and imaginary part, side by side in the last dimension, make one element."""
    return L.floor(x.labels.over(-1))


@rule("aten::set_.source_Tensor", rowwise=True, soft=True)
def now_shows(x: Operand, source: Operand) -> Labels:
    """x becomes another view of the source's storage."""
    return source.labels
