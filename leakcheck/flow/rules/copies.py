"""Reshaping in place, and copies of views: elements move, none changes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from leakcheck.flow import labels as L
from leakcheck.flow.context import Context, tensors_of
from leakcheck.flow.labels import HOLE, Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import rule


@rule("aten::transpose_", "aten::as_strided_", "aten::select_copy", "aten::slice_copy", "aten::split_copy", rowwise=True, soft=True)
def like_the_view(x: Operand, *args: Any, context: Context, **named: Any) -> Labels | list[Labels]:
    """What the view of the same name shows."""
    view = getattr(torch.ops.aten, context.name.removeprefix("aten::").removesuffix("_copy").removesuffix("_"))
    if isinstance(context.result, Tensor):
        return x.labels.view(lambda t: view(t, *args, **named))
    return [x.labels.view(lambda t, i=i: view(t, *args, **named)[i]) for i in range(len(context.result))]  # type: ignore[misc]


@rule("aten::view_as_complex_copy")
def as_complex(x: Operand) -> Labels:
    """Real and imaginary part, side by side in the last dimension, make one element."""
    return L.floor(x.labels.over(-1))
