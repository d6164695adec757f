"""The fused layers that `nn.MultiheadAttention` and `nn.TransformerEncoderLayer` use in eval mode.

    out[i, :] = max(x[i, :], max over the keys j that the mask lets i see of x[j, :]), max the weights

A mask hides a key where it is not zero, whatever its type: the kernel takes it for boolean.
"""

from typing import Any

import torch
from torch import Tensor

from leakcheck.flow import labels as L
from leakcheck.flow.context import Context
from leakcheck.flow.labels import KNOWN, ZERO, Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import rule
from leakcheck.flow.rules.matmul import contract

_OF_QUERIES, _OF_KEYS, _OF_HEADS = 0, 1, 2  # mask types: [query, key], [batch, key], [batch, heads, query, key]


@rule("aten::_native_multi_head_attention")
def attention(
    query: Operand, key: Operand, value: Operand, embed_dim: int, heads: int, *args: Any, context: Context, **named: Any
) -> tuple[Labels, Labels]:
    """`(q, k, v, embed_dim, heads, 4 weights, mask, need_weights, average, mask_type)`: the output, and the weights."""
    mask = named.get("mask", args[4] if len(args) > 4 else None)
    mask_type = named.get("mask_type", args[7] if len(args) > 7 else None)
    rows = _attended(query.labels, L.join(key.labels, value.labels), mask, mask_type)  # [batch, query, 1]
    rows = L.join(rows, *(w.labels.over() for w in args[:4]))
    result, weights = context.result
    if weights is None or not weights.numel():
        return rows.expand(result.shape), Labels.full((0,), KNOWN)
    return rows.expand(result.shape), rows.view(lambda t: t if weights.dim() == 3 else t.unsqueeze(1)).expand(
        weights.shape
    )


@rule("aten::_transformer_encoder_layer_fwd")
def encoder_layer(x: Operand, embed_dim: int, heads: int, *args: Any, context: Context, **named: Any) -> Labels:
    """`(x, embed_dim, heads, 4 weights, gelu, norm_first, eps, 8 weights, mask, mask_type)`."""
    mask = named.get("mask", args[15] if len(args) > 15 else None)
    mask_type = named.get("mask_type", args[16] if len(args) > 16 else None)
    weights = [w.labels.over() for w in args[:15] if isinstance(w, Operand)]
    return L.join(_attended(x.labels, x.labels, mask, mask_type), *weights).expand(context.result.shape)


def _attended(query: Labels, key: Labels, mask: Operand | None, mask_type: int | None) -> Labels:
    """The rows `[batch, query, 1]` of attention by rows `[batch, query, features]` over `[batch, key, features]`."""
    queries, keys = L.floor(query.over(-1, keepdim=True)), L.floor(key.over(-1, keepdim=True))
    if mask is None:
        return L.join(queries, keys.over(1, keepdim=True))
    seen = _seen(mask, mask_type) if mask.labels.uniform == KNOWN else None
    if seen is None:
        return L.join(queries, keys.over(1, keepdim=True), mask.labels.everywhere(()))
    seen = seen | ~seen.any(-1, keepdim=True)  # a query that sees no key: nobody says what it gets
    gate = Labels(torch.where(seen, KNOWN, ZERO).to(L.DTYPE))
    return L.join(queries, contract(gate, keys))


def _seen(mask: Operand, mask_type: int | None) -> Tensor | None:
    """Boolean `[batch or 1, query or 1, key]`: seen by some head."""
    shown = mask.value == 0
    if mask_type == _OF_QUERIES and mask.dim() == 2:
        return shown.unsqueeze(0)
    if mask_type == _OF_KEYS and mask.dim() == 2:
        return shown.unsqueeze(1)
    return shown.any(1) if mask_type == _OF_HEADS and mask.dim() == 4 else None
