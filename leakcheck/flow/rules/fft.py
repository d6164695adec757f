"""Fourier transforms. Each output is a sum over the whole transformed dimensions.

Such a sum can cancel: a causal convolution by way of two transforms has no future in it, though every element of the
spectrum has. So where positions meet along a transformed dimension the result is a hole; where there is one position
(or none), its label.
"""

from collections.abc import Sequence
from typing import Any

import torch

from leakcheck.flow import labels as L
from leakcheck.flow.context import Context
from leakcheck.flow.labels import HOLE, Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import rule


@rule("aten::_fft_r2c", "aten::_fft_c2c", "aten::_fft_c2r")
def transform(x: Operand, dim: Sequence[int], *_: Any, context: Context) -> Labels:
    """`out = max over dim` where at most one position stands there, else HOLE."""
    joined = x.structure.over(dim, keepdim=True) if dim else x.structure
    if joined.uniform is None and dim:
        plane = x.labels.plane
        earliest = torch.where(plane < 0, HOLE, plane).amin(tuple(dim), keepdim=True)
        mixed = (joined.plane >= 0) & (earliest < joined.plane)
        if bool(mixed.any()):
            context.reports.hole(
                context.name, "opaque op", "every output mixes all positions, in a way that can cancel"
            )
            joined = Labels(torch.where(mixed, HOLE, joined.plane).to(L.DTYPE))
    elif joined.uniform is not None and not x.labels.shape.numel():
        return Labels.full(context.result.shape, L.KNOWN)
    shape = context.result.shape
    return joined.view(lambda t: t.expand([shape[d] if n == 1 else n for d, n in enumerate(t.shape)]))
