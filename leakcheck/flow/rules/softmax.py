"""Softmax and its family: blocked scores of a row with a live one get no weight.

    out[k] = ZERO if score k is blocked and another is live, else max over the live scores of the row

A row without a live score is uniform, and lets everything through. Blocked means: a label BLOCKED, a known value that
blocks, or a soft label; the last two are reported with value and margin if the value is finite.
"""

from typing import Any

import torch
from torch import Tensor

from leakcheck.flow import labels as L
from leakcheck.flow.labels import BLOCKED, KNOWN, ZERO, Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import rule
from leakcheck.flow.reports import Reports


@rule("aten::_softmax", "aten::softmax", "aten::_safe_softmax", rowwise=True, soft=True)
def softmax(x: Operand, dim: int, *_: Any, context: Any) -> Labels:
    """`out = max over the live of dim`, ZERO where blocked."""
    blocked = blocked_scores(x, dim, context.reports)
    if x.labels.uniform is not None or blocked is None:
        return L.floor(x.labels.over(dim, keepdim=True)).expand(x.shape) if x.dim() else L.floor(x.labels)
    live = torch.where(L.unexpanded(blocked), KNOWN, x.labels.hardened().core)
    row = Labels(live.expand(x.shape), x.labels.owners)
    row = L.floor(row.over(dim, keepdim=True)).expand(x.shape)
    return L.zero_where(blocked, row)


@rule("aten::_log_softmax", "aten::log_softmax", rowwise=True, soft=True)
def log_softmax(x: Operand, dim: int, *_: Any, context: Any) -> Labels:
    """As softmax; a blocked score stays blocked."""
    result = softmax(x, dim, context=context)
    return L.select(result.plane == ZERO, Labels.full((), BLOCKED), result)


@rule("aten::logcumsumexp")
def log_cumulative(x: Operand, dim: int) -> Labels:
    return Labels(x.labels.plane.cummax(dim).values.clamp(min=KNOWN)) if x.dim() else L.floor(x.labels)


def blocked_scores(x: Operand, dim: int, reports: Reports | None) -> Tensor | None:
    """Boolean, of the scores' shape: blocked, in a row with a live score. `None` for nowhere."""
    if not x.dim():
        return None
    structure = x.structure
    blocked = structure.core == BLOCKED
    soft = torch.zeros((), dtype=torch.bool)
    if structure.soft:
        soft = L.unexpanded(structure.is_soft())
    known = structure.core == KNOWN
    if x.value.device.type != "meta" and bool(known.any()):
        soft = soft | known & (x.value <= L.SOFT_MASK)
    blocked = blocked | soft
    if not bool(blocked.any()):
        return None
    live = ~blocked.all(dim, keepdim=True)
    blocked = blocked & live
    if reports is not None and bool(soft.any()) and x.value.device.type != "meta":
        _report(x.value, blocked & soft, blocked, dim, reports)
    return blocked.expand(x.shape) if bool(blocked.any()) else None


def _report(scores: Tensor, soft: Tensor, blocked: Tensor, dim: int, reports: Reports) -> None:
    """The value of a finite mask, and by how far its highest score lies below the lowest row maximum."""
    finite = soft & (scores > -torch.inf)
    if not bool(finite.any()):
        return
    row_top = scores.masked_fill(blocked, -torch.inf).amax(dim, keepdim=True)
    highest = scores.masked_fill(~finite, -torch.inf)
    margin = (row_top - highest)[finite].min().item()
    reports.soft_mask(scores[finite].max().item(), margin)
