"""Elements that fall into bags by known lengths or offsets: embedding bags, segments, packed sequences."""

from typing import Any

import torch
from torch import Tensor

from leakcheck.flow import labels as L
from leakcheck.flow.context import Context
from leakcheck.flow.labels import HOLE, KNOWN, ZERO, Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import Tier, rule
from leakcheck.flow.rules.matmul import contract


@rule("aten::_embedding_bag", "aten::_embedding_bag_forward_only", tier=Tier.COARSE)
def embedding_bag(
    weight: Operand, indices: Operand, offsets: Operand, scale_grad_by_freq: bool = False, mode: int = 0,
    sparse: bool = False, per_sample_weights: Operand | None = None, include_last_offset: bool = False, *_: Any,
    context: Context,
) -> list[Labels]:  # fmt: skip
    """`[rows, features]`, indices `[n]` and the start of each bag give `[bags, features]`, and bookkeeping."""
    if indices.labels.uniform == KNOWN:
        rows = weight.labels.view(lambda t: t[indices.value])  # [n, features]
    else:
        rows = L.join(weight.labels.over(0, keepdim=True), indices.labels.view(lambda t: t.unsqueeze(1)))
    if per_sample_weights is not None:
        rows = L.join(rows, per_sample_weights.labels.view(lambda t: t.unsqueeze(1)))
    result, *bookkeeping = context.result
    everything = L.join(indices.labels.over(), offsets.labels.over())
    notes = [everything.expand(t.shape) for t in bookkeeping[:2]]
    notes.append(L.join(everything, rows.over()).expand(bookkeeping[2].shape))
    if offsets.labels.uniform != KNOWN:
        return [L.join(rows.over(0, keepdim=True), offsets.labels.over()).expand(result.shape), *notes]
    ends = (
        offsets.value
        if include_last_offset
        else torch.cat([offsets.value, offsets.value.new_tensor([len(indices.value)])])
    )
    return [L.floor(_in_bags(rows, ends)), *notes]


@rule("aten::embedding_renorm")
def renormalised(weight: Operand, indices: Operand, *_: Any, context: Context) -> Labels | int:
    """Shortens the rows that are looked up: which ones depends on all indices, what a lookup then reads does not."""
    if indices.labels.highest < 0:
        return L.join(weight.labels.over(1, keepdim=True), indices.labels.over())
    context.reports.hole(context.name, "opaque op", "which rows of the table change depends on every token")
    return HOLE


@rule("aten::segment_reduce", tier=Tier.COARSE)
def segment_reduce(
    x: Operand, reduce: str, *, lengths: Operand | None = None, axis: int = 0, context: Context, **others: Any
) -> Labels:
    """Each segment along `axis` to one value."""
    if lengths is not None and lengths.labels.uniform == KNOWN and lengths.dim() == 1:
        ends = torch.cat([lengths.value.new_zeros(1), lengths.value.cumsum(0)])
        rows = x.labels.view(lambda t: t.reshape(len(t), x.shape[1:].numel()))
        return L.floor(_in_bags(rows, ends)).view(lambda t: t.reshape(context.result.shape))
    given = [o.labels.over() for o in (lengths, *others.values()) if isinstance(o, Operand)]
    return L.join(x.labels.over(axis, keepdim=True), *given).expand(context.result.shape)


@rule("aten::_pack_padded_sequence")
def pack(x: Operand, lengths: Operand, batch_first: bool, context: Context) -> tuple[Labels | int, int]:
    """Sequences of known lengths, laid step by step without their padding; and how many each step has."""
    if lengths.labels.uniform != KNOWN:
        context.reports.hole(context.name, "token-dependent control flow", "the number of steps depends on the tokens")
        return HOLE, HOLE
    if x.labels.uniform is not None:
        return x.labels.uniform, KNOWN
    packed, _ = torch._VF._pack_padded_sequence(x.labels.plane, lengths.value, batch_first)
    return Labels(packed), KNOWN


def _in_bags(rows: Labels, ends: Tensor) -> Labels:
    """The join over rows `ends[b]` to `ends[b + 1]` for each b: `[n, features]` to `[bags, features]`."""
    at = torch.arange(rows.shape[0])
    inside = (at >= ends[:-1, None]) & (at < ends[1:, None])
    return contract(Labels(torch.where(inside, KNOWN, ZERO).to(L.DTYPE)), rows)
