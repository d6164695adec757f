"""Writing a stream of values where a mask is true, or at places in the flattened tensor."""

import torch

from leakcheck.flow import labels as L
from leakcheck.flow.labels import KNOWN, Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import rule


@rule("aten::masked_scatter")
def masked_scatter(x: Operand, mask: Operand, source: Operand) -> Labels:
    """The i-th true element gets the i-th of the source.

    By a known mask values only move. Else an element depends on the mask up to itself, in row-major order, and on as
    much of the source as could have been used by then.
    """
    shape = torch.broadcast_shapes(x.shape, mask.shape)
    base, values = x.structure.expand(shape), source.structure.plane.reshape(-1)
    if mask.labels.uniform == KNOWN:
        return Labels(base.plane.masked_scatter(mask.value, values))
    size = shape.numel()
    if not size or not len(values):
        return L.join(base, mask.labels)
    seen = mask.labels.plane.expand(shape).reshape(-1).cummax(0).values
    used = values.cummax(0).values[torch.arange(size).clamp(max=len(values) - 1)]
    return L.join(base, Labels(torch.maximum(seen, used).reshape(shape)))


@rule("aten::put")
def put(x: Operand, index: Operand, source: Operand, accumulate: bool = False) -> Labels:
    """`x.view(-1)[index] (+)= source`."""
    base = x.structure.plane.reshape(-1)
    values = source.structure.plane.reshape(-1)
    if index.labels.uniform == KNOWN:
        at = index.value.reshape(-1) % max(len(base), 1)
        if not accumulate:
            return Labels(base.scatter(0, at, values).reshape(x.shape))
        return Labels(base.scatter_reduce(0, at, values.clamp(min=KNOWN), "amax").reshape(x.shape))
    return L.join(x.labels, index.labels.over(), source.labels.over())
