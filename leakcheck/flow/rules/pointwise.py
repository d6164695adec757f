"""Elementwise ops. What torch tags as pointwise and is not here joins its operands, element by element.

Here are those that block (a known zero, a mask), and those that give zero for zero.
"""

from typing import Any

import torch

from leakcheck.flow import labels as L
from leakcheck.flow.labels import BLOCKED, KNOWN, ZERO, Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import rule

Scalar = float | int | bool | complex


def structure(x: Any) -> Labels:
    """Labels of an operand or a number, zeros and blocking constants visible."""
    if isinstance(x, Operand):
        return x.structure
    return Labels.full((), ZERO if x == 0 else BLOCKED if _blocks(x) else KNOWN)


def _blocks(x: Any) -> bool:
    return isinstance(x, float) and x <= L.HARD_MASK


@rule(
    "aten::relu", "aten::neg", "aten::abs", "aten::sqrt", "aten::sin", "aten::tanh", "aten::erf", "aten::sgn",
    "aten::sign", "aten::round", "aten::floor", "aten::ceil", "aten::trunc", "aten::silu", "aten::gelu", "aten::mish",
    "aten::expm1", "aten::log1p", "aten::asinh", "aten::atan", "aten::sinh", "aten::tan", "aten::leaky_relu",
    "aten::elu", "aten::hardswish", "aten::hardtanh", "aten::conj_physical", "aten::relu6",
    rowwise=True,
)  # fmt: skip
def keeps_zero(x: Operand, *_: Any, **__: Any) -> Labels:
    """f(0) = 0, so a known zero stays one: `out = x`."""
    return L.select(_is(x.labels, BLOCKED), Labels.full((), KNOWN), x.labels) if _any(x.labels, BLOCKED) else x.labels


@rule("aten::mul", "aten::bitwise_and", "aten::logical_and", rowwise=True)
def product(a: Any, b: Any) -> Labels:
    """A known zero on either side gives a known zero: `out = ZERO if a or b is ZERO else max(a, b)`.

    A blocked score times a positive known number stays blocked.
    """
    left, right = structure(a), structure(b)
    result = L.join(left, right)
    zero = _or(_is_zero(left), _is_zero(right))
    return result if zero is None else L.zero_where(zero, result)


@rule("aten::div", "aten::floor_divide", rowwise=True)
def quotient(a: Any, b: Any, *, rounding_mode: str | None = None) -> Labels:
    """A known zero over anything is zero: finite values are assumed throughout."""
    left, right = structure(a), structure(b)
    result = L.join(left, right)
    zero = _is_zero(left)
    return result if zero is None else L.zero_where(zero, result)


@rule("aten::add", rowwise=True, soft=True)
def add(a: Any, b: Any, *, alpha: Scalar = 1) -> Labels:
    """A score plus a blocking constant is blocked: the constant absorbs it.

    A finite constant from -1e3 down (but not absorbing) makes the label soft: softmax takes it for blocked, any other op
    for what it is. Zero plus x is x.
    """
    return _sum(a, b, negate=False, alpha=alpha)


@rule("aten::sub", rowwise=True, soft=True)
def subtract(a: Any, b: Any, *, alpha: Scalar = 1) -> Labels:
    """As `add`; only the minuend can block."""
    return _sum(a, b, negate=True, alpha=alpha)


@rule("aten::rsub", rowwise=True)
def reversed_subtract(a: Operand, b: Any, alpha: Scalar = 1) -> Labels:
    return L.join(a.labels, structure(b))


def _sum(a: Any, b: Any, *, negate: bool, alpha: Scalar) -> Labels:
    left, right = structure(a), structure(b)
    result = L.highest(left, right)
    soft = _or(_soft_where(a, b, 1), None if negate or alpha != 1 else _soft_where(b, a, 1))
    # a score that is soft already stays soft
    soft = _or(soft, left.is_soft() if left.soft else None, right.is_soft() if right.soft else None)
    if soft is not None:
        result = result.expand(torch.broadcast_shapes(result.shape, soft.shape)).softened(soft.expand(result.shape))
    blocked = _is_blocked(left)
    if not negate and alpha == 1:
        blocked = _or(blocked, _is_blocked(right))
    if blocked is not None:
        result = L.select(blocked, Labels.full((), BLOCKED), result)
    return result


def _soft_where(mask: Any, score: Any, _: int) -> torch.Tensor | None:
    """Where `mask` is a known finite constant that blocks as long as scores are moderate."""
    if isinstance(mask, Operand):
        if mask.labels.uniform != KNOWN or not mask.value.is_floating_point() or not isinstance(score, Operand):
            return None
        if score.known:
            return None
        soft = (mask.value <= L.SOFT_MASK) & (mask.structure.plane != BLOCKED)
        return soft if bool(soft.any()) else None
    if isinstance(mask, float) and L.HARD_MASK < mask <= L.SOFT_MASK:
        return torch.ones((), dtype=torch.bool)
    return None


@rule("aten::where", rowwise=True, soft=True)
def where(condition: Operand, yes: Any, no: Any) -> Labels:
    """Where the condition is known the chosen side alone counts; else all three do."""
    a, b = structure(yes), structure(no)
    if condition.labels.uniform == KNOWN:
        return L.select(condition.value, a, b)
    joined = L.join(condition.labels, a, b)
    both = _and(_is_blocked(a), _is_blocked(b))
    zero = _and(_is_zero(a), _is_zero(b))
    if both is not None:
        joined = L.select(both, Labels.full((), BLOCKED), joined)
    if zero is not None:
        joined = L.zero_where(zero, joined)
    if condition.labels.uniform is None and condition.labels.owners is None:
        known = condition.labels.plane <= KNOWN
        if bool(known.any()):
            return L.select(known, L.select(condition.value, a, b), joined)
    return joined


@rule("aten::masked_fill", rowwise=True, soft=True)
def masked_fill(x: Operand, mask: Operand, value: Any) -> Labels:
    """`where(mask, value, x)`."""
    return where(mask, value, x)


@rule("aten::maximum", "aten::fmax", "aten::max.other", rowwise=True, soft=True)
def maximum(a: Any, b: Any) -> Labels:
    """A blocking constant is below every score: it blocks the score that is blocked too, and else does nothing."""
    left, right = structure(a), structure(b)
    result = L.join(left, right)
    both = _and(_is_blocked(left), _is_blocked(right))
    return result if both is None else L.select(both, Labels.full((), BLOCKED), result)


@rule("aten::minimum", "aten::fmin", "aten::min.other", rowwise=True)
def minimum(a: Any, b: Any) -> Labels:
    """A blocking constant wins over every score."""
    left, right = structure(a), structure(b)
    result = L.join(left, right)
    either = _or(_is_blocked(left), _is_blocked(right))
    return result if either is None else L.select(either, Labels.full((), BLOCKED), result)


@rule("aten::clamp", "aten::clamp_min", "aten::clamp_max", "aten::clip", rowwise=True, soft=True)
def clamp(x: Operand, *bounds: Any, **named: Any) -> Labels:
    """By numbers: elementwise. By tensors: those count too."""
    limits = [b for b in (*bounds, *named.values()) if isinstance(b, Operand)]
    return L.join(x.labels, *(b.labels for b in limits))


@rule("aten::exp", "aten::exp2", "aten::sigmoid", "aten::softplus", rowwise=True, soft=True)
def vanishes_when_blocked(x: Operand, *_: Any) -> Labels:
    """exp, sigmoid and softplus of a blocking constant are zero."""
    blocked = _or(_is_blocked(x.structure), x.labels.is_soft() if x.labels.soft else None)
    result = L.floor(x.labels)
    return result if blocked is None else L.zero_where(blocked, result)


def _any(labels: Labels, label: int) -> bool:
    return labels.uniform == label if labels.uniform is not None else bool((labels.core == label).any())


def _is(labels: Labels, label: int) -> torch.Tensor:
    return (labels.core == label).expand(labels.shape)


def _is_zero(labels: Labels) -> torch.Tensor | None:
    return _where_label(labels, ZERO)


def _is_blocked(labels: Labels) -> torch.Tensor | None:
    return _where_label(labels, BLOCKED)


def _where_label(labels: Labels, label: int) -> torch.Tensor | None:
    """Where it stands; `None` for nowhere."""
    if labels.uniform is not None and labels.uniform != label:
        return None
    found = labels.core == label
    return found.expand(labels.shape) if bool(found.any()) else None


def _or(*masks: torch.Tensor | None) -> torch.Tensor | None:
    present = [mask for mask in masks if mask is not None]
    result = present[0] if present else None
    for mask in present[1:]:
        result = result | mask
    return result


def _and(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
    return None if a is None or b is None else a & b
