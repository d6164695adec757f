"""Fused attention kernels: `softmax(q k^T / sqrt(d) + mask) v` in one op.

    out[i, :] = max(q[i, :], max over the keys j that i sees of (k[j, :], v[j, :]))

and without v for the log-sum-exp of the scores. With `is_causal` query i sees keys 0..i (aligned top left, whatever the
lengths are). A mask, boolean or additive, is read where its values are known; a query with no key in sight sees all of
them.
"""

import math
from typing import Any

import torch
from torch import Tensor

from leakcheck.flow import labels as L
from leakcheck.flow.context import Context
from leakcheck.flow.labels import GENERIC, KNOWN, ZERO, Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import rule
from leakcheck.flow.rules.matmul import _over_live as over_live
from leakcheck.flow.rules.softmax import report_margin
from leakcheck.flow.storage import blocking


@rule("aten::_scaled_dot_product_flash_attention_for_cpu", "aten::_scaled_dot_product_flash_attention", soft=True)
def flash(
    query: Operand, key: Operand, value: Operand, dropout: float = 0.0, is_causal: bool = False, *_: Any,
    attn_mask: Operand | None = None, scale: float | None = None, context: Context,
) -> list[Labels | int]:  # fmt: skip
    """`(q, k, v, dropout, causal)`: the output, its log-sum-exp, and what the backward pass needs of the kernel."""
    return attend(query, key, value, attn_mask, is_causal, scale, context)


@rule("aten::_scaled_dot_product_fused_attention_overrideable", soft=True)
def overrideable(
    query: Operand, key: Operand, value: Operand, bias: Operand | None = None, dropout: float = 0.0,
    is_causal: bool = False, *_: Any, scale: float | None = None, context: Context,
) -> list[Labels | int]:  # fmt: skip
    """`(q, k, v, bias, dropout, causal)`."""
    return attend(query, key, value, bias, is_causal, scale, context)


@rule("aten::_scaled_dot_product_efficient_attention", "aten::_scaled_dot_product_cudnn_attention", soft=True)
def efficient(
    query: Operand, key: Operand, value: Operand, bias: Operand | None, lse: bool, dropout: float = 0.0,
    is_causal: bool = False, *_: Any, scale: float | None = None, context: Context,
) -> list[Labels | int]:  # fmt: skip
    """`(q, k, v, bias, whether to compute the log-sum-exp, dropout, causal)`."""
    return attend(query, key, value, bias, is_causal, scale, context)


def attend(
    query: Operand, key: Operand, value: Operand, mask: Operand | None, causal: bool, scale: float | None,
    context: Context,
) -> list[Labels | int]:  # fmt: skip
    """Labels of attention `[batch, heads, query, value]` over `[batch, heads, length, features]`, and of its LSE."""
    q = L.unexpanded(query.labels.over(-1, keepdim=True).plane)  # [batch, heads, query, 1]
    k = key.labels.over(-1, keepdim=True)  # [batch, kv heads, key, 1]
    kv = L.unexpanded(L.highest(k, value.labels).plane, keep=-2)  # [batch, kv heads, key, value], or 1 for all of them
    if kv.shape[-1] and bool((kv == kv[..., :1]).all()):
        kv = kv[..., :1]
    groups = query.shape[-3] // key.shape[-3] if query.dim() > 2 and key.shape[-3] else 1
    queries, keys = query.shape[-2], key.shape[-2]
    seen, extra = _visible(mask, query, key, scale, context) if mask is not None else (None, None)
    if causal and seen is not None:
        seen = seen & torch.ones(queries, keys, dtype=torch.bool).tril()

    def by_head(plane: Tensor) -> Tensor:
        return plane.repeat_interleave(groups, -3) if groups > 1 and plane.shape[-3] > 1 else plane

    def over(plane: Tensor) -> Tensor:
        """`[..., key, n]` to `[..., query, n]`: the highest that each query sees."""
        plane = by_head(plane)
        if not keys or not queries:
            high = plane.new_full((*plane.shape[:-2], 1, 1), KNOWN)
        elif seen is not None:
            high = over_live(torch.where(seen | ~seen.any(-1, keepdim=True), KNOWN, ZERO).to(L.DTYPE), plane)
        elif causal:
            high = plane.cummax(-2).values.index_select(-2, torch.arange(queries).clamp(max=keys - 1))
        else:
            high = plane.amax(-2, keepdim=True)
        high = torch.maximum(high, q).clamp(min=KNOWN)
        return high if extra is None else torch.maximum(high, extra)

    out = over(kv)
    of_key = L.unexpanded(k.plane, keep=-2)
    same = kv.shape[-1] == 1 and bool((kv == of_key).all())
    lse = (out if same else over(of_key)).squeeze(-1)
    if queries and keys and extra is None and (keys == 1 or causal or seen is not None):
        out = _alone(out, by_head(L.unexpanded(L.floor(value.labels).plane, keep=-2)), seen, keys)
    shape = (*query.shape[:-1], value.shape[-1])
    results = list(context.result) if isinstance(context.result, (list, tuple)) else [context.result]
    labels: list[Labels | int] = [Labels(out.expand(shape))]
    if len(results) > 1:  # kernels pad it, or leave it out
        fits = results[1].shape == shape[:-1]
        labels.append(Labels(lse.expand(shape[:-1])) if fits else max(int(lse.max()), KNOWN) if lse.numel() else KNOWN)
    return labels + [KNOWN] * (len(results) - 2)  # cumulative lengths and random seeds


def _alone(out: Tensor, values: Tensor, seen: Tensor | None, keys: int) -> Tensor:
    """A query that sees one key alone gives it the weight 1, whatever the score is: `out[i, :] = v[j, :]`."""
    if seen is None:
        own = values.narrow(-2, 0, 1)
        return own.expand(*own.shape[:-2], out.shape[-2], -1) if keys == 1 else _with_first(out, own)
    alone = (seen.sum(-1) == 1).unsqueeze(-1)  # [..., query, 1]
    if not bool(alone.any()):
        return out
    key = seen.int().argmax(-1, keepdim=True)
    batch = torch.broadcast_shapes(key.shape[:-2], values.shape[:-2])
    key = key.expand(*batch, key.shape[-2], values.shape[-1])
    own = values.expand(*batch, *values.shape[-2:]).gather(-2, key)
    return torch.where(alone, own, out)


def _with_first(out: Tensor, first: Tensor) -> Tensor:
    """Causal without a mask: the first query sees the first key."""
    at_first = torch.arange(out.shape[-2]).unsqueeze(-1) == 0
    return torch.where(at_first, first, out)


def _visible(
    mask: Operand, query: Operand, key: Operand, scale: float | None, context: Context
) -> tuple[Tensor | None, Tensor | None]:
    """Which keys a query sees by the mask; and the labels of the mask itself, joined along those, where it has any."""
    plane = mask.labels.hardened().plane
    low = (plane <= KNOWN) & (~mask.value if mask.value.dtype == torch.bool else mask.value <= L.SOFT_MASK)
    if mask.labels.soft:
        low = low | mask.labels.is_soft()
    extra = None
    if plane.numel() and bool((plane >= GENERIC).any()):
        extra = torch.where(low & ~low.all(-1, keepdim=True), KNOWN, plane).amax(-1, keepdim=True)
    if not bool(low.any()):
        return None, extra
    if mask.value.dtype == torch.bool:
        return ~low, extra
    soft = low & (mask.value > blocking(mask.value.dtype))
    if bool(soft.any()):
        groups = query.shape[-3] // key.shape[-3]
        keys = key.value.repeat_interleave(groups, -3) if groups > 1 else key.value
        absent = query.absent or key.absent
        scores = query.value @ keys.mT * (scale or 1 / math.sqrt(max(1, query.shape[-1]))) + mask.value
        report_margin(scores, soft.expand(scores.shape), low.expand(scores.shape), -1, context.reports, absent=absent)
    return ~low, extra
