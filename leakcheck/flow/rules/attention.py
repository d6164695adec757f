"""Fused attention kernels: `softmax(q k^T / sqrt(d) + mask) v` in one op.

    out[i, :] = max(q[i, :], max over the keys j that i sees of (k[j, :], v[j, :]))

With `is_causal` query i sees keys 0..i (aligned top left, whatever the lengths are). A mask, boolean or additive, is
read where its values are known; a query with no key in sight sees all of them.
"""

from typing import Any

import torch
from torch import Tensor

from leakcheck.flow import labels as L
from leakcheck.flow.labels import GENERIC, KNOWN, ZERO, Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import rule
from leakcheck.flow.rules.matmul import _over_live as over_live
from leakcheck.flow.storage import blocking


@rule(
    "aten::_scaled_dot_product_flash_attention_for_cpu", "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_fused_attention_overrideable",
)  # fmt: skip
def flash(
    query: Operand, key: Operand, value: Operand, *args: Any, attn_mask: Operand | None = None, is_causal: bool = False,
    context: Any = None, **_: Any,
) -> tuple[Labels, int]:  # fmt: skip
    """`(q, k, v, [bias], dropout, is_causal, ...)`: the output, and its log-sum-exp."""
    mask = attn_mask if attn_mask is not None else next((a for a in args if isinstance(a, Operand)), None)
    causal = is_causal or any(a is True for a in args)
    return attend(query, key, value, mask, causal, context.reports), L.HOLE


@rule("aten::_scaled_dot_product_efficient_attention", "aten::_scaled_dot_product_cudnn_attention")
def efficient(
    query: Operand, key: Operand, value: Operand, bias: Operand | None, lse: bool, dropout: float = 0.0,
    is_causal: bool = False, *_: Any, context: Any = None, **__: Any,
) -> tuple[Labels, int]:  # fmt: skip
    return attend(query, key, value, bias, is_causal, context.reports), L.HOLE


def attend(
    query: Operand, key: Operand, value: Operand, mask: Operand | None, causal: bool, reports: Any
) -> Labels:
    """The labels `[batch, heads, query, value]` of attention over `[batch, heads, length, features]`."""
    q = query.labels.over(-1, keepdim=True).plane  # [batch, heads, query, 1]
    k = key.labels.over(-1, keepdim=True)  # [batch, kv heads, key, 1]
    kv = L.unexpanded(L.highest(k, value.labels).plane, keep=-2)  # [batch, kv heads, key, value], or 1 for all of them
    groups = query.shape[-3] // key.shape[-3] if query.dim() > 2 and key.shape[-3] else 1
    if kv.shape[-1] and bool((kv == kv[..., :1]).all()):
        kv = kv[..., :1]
    if groups > 1 and kv.shape[-3] > 1:
        kv = kv.repeat_interleave(groups, -3)
    queries, keys = query.shape[-2], key.shape[-2]
    seen = None  # what keys a query sees, [..., query, key]; None: all
    extra = None
    if mask is not None:
        seen, extra = _visible(mask, reports)
    if seen is None and causal and queries and keys:
        latest = torch.arange(queries).clamp(max=keys - 1)
        plane = kv.cummax(-2).values.index_select(-2, latest)
    else:
        if causal:
            below = torch.ones(queries, keys, dtype=torch.bool).tril()
            seen = below if seen is None else seen & below
        if seen is None or not keys:
            plane = kv.amax(-2, keepdim=True) if keys else kv.new_full((*kv.shape[:-2], 1, 1), KNOWN)
        else:
            seen = seen | ~seen.any(-1, keepdim=True)
            gate = torch.where(seen, KNOWN, torch.full((), ZERO, dtype=L.DTYPE))
            plane = over_live(gate, kv)
    plane = torch.maximum(plane, L.unexpanded(q)).clamp(min=KNOWN)
    if extra is not None:
        plane = torch.maximum(plane, extra)
    return Labels(plane.expand(*query.shape[:-1], value.shape[-1]))


def _visible(mask: Operand, reports: Any) -> tuple[Tensor | None, Tensor | None]:
    """Which keys a query sees by the mask; and the labels of the mask itself, joined along keys, where it has any."""
    labels = mask.structure
    extra = None
    if labels.uniform is None and bool((labels.plane >= GENERIC).any()):
        extra = labels.plane.amax(-1, keepdim=True)
    if mask.labels.uniform == KNOWN:
        if mask.value.dtype == torch.bool:
            return mask.value, None
        hard = mask.value <= blocking(mask.value.dtype)
        soft = (mask.value <= L.SOFT_MASK) & ~hard
        if bool(soft.any()):
            reports.soft_mask(mask.value[soft].max().item(), float("nan"))
        return ~(hard | soft), None
    if mask.labels.uniform is not None:
        return None, torch.full((), mask.labels.uniform, dtype=L.DTYPE)
    if mask.value.dtype == torch.bool:
        return labels.plane != ZERO, extra
    return labels.plane != L.BLOCKED, extra
