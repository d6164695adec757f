"""Softmax and its family: blocked scores of a row with a live one get no weight.

    out[k] = ZERO if score k is blocked and another is live, else max over the live scores of the row

A row without a live score is uniform, and lets everything through. Blocked means: a label BLOCKED, a known value that
blocks, or a soft label; the last two are reported with value and margin if the value is finite.
"""

import math
from typing import Any

import torch
from torch import Tensor

from leakcheck.flow import labels as L
from leakcheck.flow.labels import BLOCKED, KNOWN, Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import rule
from leakcheck.flow.reports import Reports
from leakcheck.flow.storage import blocking

Dims = tuple[int, ...] | int


@rule("aten::_softmax", "aten::_safe_softmax", rowwise=True, soft=True)
def softmax(x: Operand, dim: int, *_: Any, context: Any) -> Labels:
    """`out = max over the live of dim`, ZERO where blocked; a row of one is 1 whatever it holds."""
    if not x.dim() or x.shape[dim] == 1:
        return Labels.full(x.shape, KNOWN)
    live, blocked = live_scores(x, dim, context.reports)
    row = L.floor(live.over(dim, keepdim=True)).expand(x.shape)
    return row if blocked is None else L.zero_where(blocked, row)


@rule("aten::_log_softmax", rowwise=True, soft=True)
def log_softmax(x: Operand, dim: int, *_: Any, context: Any) -> Labels:
    """As softmax; a blocked score stays blocked, and soft if it was."""
    if not x.dim() or x.shape[dim] == 1:
        return Labels.full(x.shape, KNOWN)
    live, blocked = live_scores(x, dim, context.reports)
    row = L.floor(live.over(dim, keepdim=True)).expand(x.shape)
    if blocked is None:
        return row
    hard = blocked & (x.structure.settled().plane == BLOCKED)
    result = L.join(row, x.labels).softened(blocked & ~hard)
    return L.select(hard, Labels.full((), BLOCKED), result)


@rule("aten::logcumsumexp")
def log_cumulative(x: Operand, dim: int) -> Labels:
    return Labels(x.labels.plane.cummax(dim).values.clamp(min=KNOWN)) if x.dim() else L.floor(x.labels)


def live_scores(x: Operand, dim: Dims, reports: Reports | None) -> tuple[Labels, Tensor | None]:
    """The labels with KNOWN for what is blocked in a row with a live score, and where that is (`None` for nowhere)."""
    labels = x.labels.hardened()
    blocked = blocked_scores(x, dim, reports)
    if blocked is None:
        return labels, None
    labels = labels.settled()
    live = torch.where(L.unexpanded(blocked), KNOWN, labels.core)
    return Labels(live.expand(x.shape)), blocked


def blocked_scores(x: Operand, dim: Dims, reports: Reports | None) -> Tensor | None:
    """Boolean, of the scores' shape: blocked, in a row with a live score. `None` for nowhere."""
    if not x.dim() or (x.labels.uniform is not None and x.labels.uniform > KNOWN):
        return None
    structure = x.structure
    if structure.owners is not None:
        structure = structure.settled()  # another arrangement blocks other slots
    blocked = structure.core == BLOCKED
    soft = torch.zeros((), dtype=torch.bool)
    if structure.soft:
        soft = L.unexpanded(structure.is_soft())
    known = structure.core == KNOWN
    if L.some(known):
        soft = soft | known & (L.unexpanded(x.value) <= L.SOFT_MASK)
    blocked = blocked | soft
    if not L.some(blocked):
        return None
    live = ~blocked.all(dim, keepdim=True)
    blocked = blocked & live
    if reports is not None and L.some(soft):
        report_margin(x.value, blocked & soft, blocked, dim, reports, absent=x.absent)
    return blocked.expand(x.shape) if L.some(blocked) else None


def report_margin(
    scores: Tensor, soft: Tensor, blocked: Tensor, dim: Dims, reports: Reports, *, absent: bool = False
) -> None:
    """The value of a finite mask, and by how far its highest score lies below the lowest row maximum.

    Neither is known of scores that are `absent`.
    """
    if absent:
        reports.soft_mask(math.nan, math.nan)
        return
    finite = soft & (scores > blocking(scores.dtype))
    if not bool(finite.any()):
        return
    row_top = scores.masked_fill(blocked, -torch.inf).amax(dim, keepdim=True)
    highest = scores.masked_fill(~finite, -torch.inf)
    margin = (row_top - highest)[finite].min().item()
    reports.soft_mask(scores[finite].max().item(), margin)
