"""Elementwise ops. What torch tags as pointwise and is not here joins its operands, element by element.

Here are those that block (a known zero, a mask), and those whose zeros and blocking constants matter further on: where
all operands are constant, the result itself says what it is.
"""

import math
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from leakcheck.flow import labels as L
from leakcheck.flow.context import Context
from leakcheck.flow.labels import BLOCKED, KNOWN, ZERO, Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import rule
from leakcheck.flow.storage import blocking, by_value

Scalar = float | int | bool | complex
ABSORBED = 1e-3  # a blocking constant that shrinks no more than by this still absorbs any score


def structure(x: Any) -> Labels:
    """Labels of an operand or a number, zeros and blocking constants visible."""
    if isinstance(x, Operand):
        return x.structure
    return Labels.full((), ZERO if x == 0 else BLOCKED if _blocks(x) else KNOWN)


def _blocks(x: Any) -> bool:
    return isinstance(x, float) and x <= L.HARD_MASK


def constants(labels: Labels, context: Context, operands: Labels | None = None) -> Labels:
    """ZERO, BLOCKED or KNOWN, as the result's values say, where all operands are constant; else `labels`.

    `operands` are the highest of the operands' labels, if `labels` are not. Values that sit in slots (with owners) are
    other ones in another arrangement.
    """
    if labels.uniform is not None and labels.uniform > KNOWN:
        return labels
    if labels.owners is not None:
        return L.floor(labels)
    operands = operands or labels
    if operands.least > KNOWN:
        return labels
    return L.select(_constant(operands), by_value(context.values), labels)


@rule(
    "aten::relu", "aten::neg", "aten::abs", "aten::sqrt", "aten::sin", "aten::tanh", "aten::erf", "aten::sgn",
    "aten::sign", "aten::round", "aten::floor", "aten::ceil", "aten::trunc", "aten::silu", "aten::gelu", "aten::mish",
    "aten::expm1", "aten::log1p", "aten::asinh", "aten::atan", "aten::sinh", "aten::tan", "aten::leaky_relu",
    "aten::elu", "aten::hardswish", "aten::hardtanh", "aten::logical_not", "aten::bitwise_not", "aten::nan_to_num",
    rowwise=True,
)  # fmt: skip
def keeps_constants(x: Operand, *_: Any, context: Context, **__: Any) -> Labels:
    """f(constant) is constant: `out = x`, but for what the value says."""
    return constants(x.labels, context)


@rule("aten::mul", "aten::bitwise_and", "aten::logical_and", rowwise=True, soft=True)
def product(a: Any, b: Any, *, context: Context) -> Labels:
    """A known zero on either side gives a known zero: `out = ZERO if a or b is ZERO else max(a, b)`.

    A blocked score times a positive known number stays blocked, if it stays low.
    """
    left, right = structure(a), structure(b)
    highest = L.highest(left, right)
    zero = _or(_is_zero(left), _is_zero(right))
    result = constants(highest if zero is None else L.zero_where(zero, highest), context, highest)
    return _scaled(result, left, b, context) if left.soft else _scaled(result, right, a, context)


@rule("aten::div", "aten::floor_divide", rowwise=True, soft=True)
def quotient(a: Any, b: Any, *, rounding_mode: str | None = None, context: Context) -> Labels:
    """A known zero over anything is zero: finite values are assumed throughout."""
    left, right = structure(a), structure(b)
    highest = L.highest(left, right)
    zero = _is_zero(left)
    result = constants(highest if zero is None else L.zero_where(zero, highest), context, highest)
    return _scaled(result, left, b, context)


def _scaled(result: Labels, scores: Labels, factor: Any, context: Context) -> Labels:
    """Soft scores times or over a known positive factor stay soft while they stay low."""
    value = factor.value if isinstance(factor, Operand) else torch.as_tensor(factor)
    if not scores.soft or (isinstance(factor, Operand) and factor.labels.uniform != KNOWN) or value.is_complex():
        return result
    low = (value > 0) & (context.values <= L.SOFT_MASK)
    return result.softened((scores.is_soft() & low).expand(result.shape))


@rule("aten::bitwise_or", "aten::logical_or", rowwise=True)
def either(a: Any, b: Any, *, context: Context) -> Labels:
    """A known true on either side decides: `out = KNOWN if a or b is known to be true else max(a, b)`."""
    result = L.highest(structure(a), structure(b))
    if context.name.startswith("aten::logical") or context.result.dtype == torch.bool:
        true = _or(*(_is_true(x, context) for x in (a, b)))
        if true is not None:
            result = L.select(true, Labels.full((), KNOWN), result)
    return constants(result, context)


def _is_true(x: Any, context: Context) -> Tensor | None:
    if not isinstance(x, Operand):
        return torch.ones((), dtype=torch.bool) if x else None
    known = known_at(x, context)
    return None if known is None else known & (L.unexpanded(x.value) != 0)


def known_at(x: Operand, context: Context) -> Tensor | None:
    """Where the values may be looked at; `None` for nowhere."""
    if x.labels.uniform is not None:
        return torch.ones((), dtype=torch.bool) if x.labels.uniform <= KNOWN else None
    if x.labels.owners is not None or _overwritten(x, context):
        return None
    known = None if x.labels.least > KNOWN else _constant(x.labels)
    return known if known is not None and L.some(known) else None


def _overwritten(x: Operand, context: Context) -> bool:
    """Whether an in-place op wrote its result over the values."""
    return x.tensor.untyped_storage()._cdata == context.result.untyped_storage()._cdata


@rule("aten::add", rowwise=True, soft=True)
def add(a: Any, b: Any, *, alpha: Scalar = 1, context: Context) -> Labels:
    """A score plus a blocking constant is blocked: the constant absorbs it.

    A finite constant from -1e3 down (but not absorbing) makes the label soft: softmax takes it for blocked, any other
    op for what it is. Zero plus x is x.
    """
    return _sum(a, b, alpha, context)


@rule("aten::sub", rowwise=True, soft=True)
def subtract(a: Any, b: Any, *, alpha: Scalar = 1, context: Context) -> Labels:
    """As `add`: `a - alpha b` is blocked by a low a or a high b."""
    return _sum(a, b, -alpha, context)


@rule("aten::rsub", rowwise=True, soft=True)
def reversed_subtract(a: Operand, b: Any, alpha: Scalar = 1, *, context: Context) -> Labels:
    """`b - alpha a`."""
    return _sum(b, a, -alpha, context)


def _sum(a: Any, b: Any, scale: Scalar, context: Context) -> Labels:
    labels = total(a, b, scale, context)
    if labels.least > KNOWN:
        return labels
    return constants(labels, context, L.highest(structure(a), structure(b)))


def total(a: Any, b: Any, scale: Scalar, context: Context) -> Labels:
    """`a + scale b`, of operands, numbers or labels. Where both are constant it may show one of the two as it is."""
    left = a if isinstance(a, Labels) else structure(a)
    right = (b if isinstance(b, Labels) else structure(b)) if scale != 0 else Labels.full(b.shape, ZERO)
    highest = result = L.highest(left, right)
    hard, soft = _masks(a, left, 1, context)
    by_b = _masks(b, right, scale, context)
    hard, soft = _or(hard, by_b[0]), _or(soft, by_b[1])
    if soft is not None:
        lifted = _or(_lifts(a, left, 1, context), _lifts(b, right, scale, context))
        soft = soft if lifted is None else soft & ~lifted
        result = result.softened(soft.expand(result.shape))
    return result if hard is None else L.select(hard & ~_constant(highest), Labels.full((), BLOCKED), result)


def _masks(x: Any, labels: Labels, scale: Scalar, context: Context) -> tuple[Tensor | None, Tensor | None]:
    """Where `scale x` absorbs any score, and where it is so low that it blocks moderate ones."""
    if isinstance(scale, complex) or scale == 0:
        return None, None
    already = labels.is_soft() if labels.soft and scale >= ABSORBED else None
    known = known_at(x, context) if isinstance(x, Operand) and x.tensor.is_floating_point() else None
    if known is not None:
        value = L.unexpanded(x.value)
        value = value if scale == 1 else value * scale
        low = known & (value <= L.SOFT_MASK)
        if not L.some(low):
            return None, already
        hard = value <= blocking(value.dtype)
        soft = low & ~hard
        hard = low & hard
        return hard if L.some(hard) else None, _or(soft if L.some(soft) else None, already)
    if isinstance(x, (float, int)):
        number = x * scale
        every = torch.ones((), dtype=torch.bool)
        return (every if number <= L.HARD_MASK else None), (every if L.HARD_MASK < number <= L.SOFT_MASK else None)
    blocked = _is_blocked(labels) if scale >= ABSORBED else None
    return blocked, already


def _lifts(x: Any, labels: Labels, scale: Scalar, context: Context) -> Tensor | None:
    """Where `scale x` may be as high as finite masks are low: a large constant, or a low score that is subtracted."""
    if isinstance(scale, complex) or scale == 0 or isinstance(x, Labels):
        return None
    if not isinstance(x, Operand):
        return torch.ones((), dtype=torch.bool) if x * scale >= -L.SOFT_MASK else None
    known = known_at(x, context)
    high = None if known is None else known & (L.unexpanded(x.value) * scale >= -L.SOFT_MASK)
    return _or(high, _low(labels) if scale < 0 else None)


def _constant(labels: Labels) -> Tensor:
    return labels.hardened().core <= KNOWN


@rule("aten::where", rowwise=True, soft=True)
def where(condition: Operand, yes: Any, no: Any, *, context: Context) -> Labels:
    """Where the condition is known the chosen side alone counts; else all three do.

    A choice between two blocked scores is soft: softmax gives none of them weight.
    """
    a, b = structure(yes), structure(no)
    known = known_at(condition, context)
    if condition.labels.uniform is not None and known is not None:
        return L.select(condition.value, a, b)
    joined = L.join(condition.labels, a, b)
    low = _and(_low(a), _low(b))
    if low is not None:
        joined = joined.softened(low.expand(joined.shape))
    zero = _and(_is_zero(a), _is_zero(b))
    if zero is not None:
        joined = L.zero_where(zero, joined)
    return joined if known is None else L.select(known, L.select(condition.value, a, b), joined)


@rule("aten::masked_fill", rowwise=True, soft=True)
def masked_fill(x: Operand, mask: Operand, value: Any, *, context: Context) -> Labels:
    """`where(mask, value, x)`."""
    return where(mask, value, x, context=context)


@rule("aten::maximum", "aten::fmax", "aten::max.other", "aten::max.out", rowwise=True, soft=True)
def maximum(a: Any, b: Any, *, context: Context) -> Labels:
    """A blocking constant is below every score: it keeps low what is low, and else does nothing."""
    left, right = structure(a), structure(b)
    result = constants(L.highest(left, right), context)
    low = _and(_low(left), _low(right)) if left.soft or right.soft else None
    return result if low is None else result.softened(low.expand(result.shape))


@rule("aten::minimum", "aten::fmin", "aten::min.other", "aten::min.out", rowwise=True)
def minimum(a: Any, b: Any, *, context: Context) -> Labels:
    """A blocking constant wins over every score."""
    left, right = structure(a), structure(b)
    highest = L.highest(left, right)
    either = _or(_is_blocked(left), _is_blocked(right))
    if either is not None:
        highest = L.select(either & ~_constant(highest), Labels.full((), BLOCKED), highest)
    return constants(highest, context)


@rule("aten::clamp", "aten::clamp_min", "aten::clamp_max", rowwise=True, soft=True)
def clamp(x: Operand, *bounds: Any, context: Context, **named: Any) -> Labels:
    """By numbers: elementwise. By tensors: those count too. A soft score stays one above a blocking lower bound."""
    limits = [b for b in (*bounds, *named.values()) if isinstance(b, Operand)]
    result = constants(L.highest(x.labels, *(b.labels for b in limits)), context)
    lower = None if "clamp_max" in context.name else named.get("min", bounds[0] if bounds else None)
    if x.labels.soft and not limits and (lower is None or _blocks(lower)):
        return result.softened(x.labels.is_soft())
    return result


@rule("aten::exp", "aten::exp2", "aten::sigmoid", "aten::softplus", rowwise=True, soft=True)
def vanishes_when_low(x: Operand, *_: Any, context: Context) -> Labels:
    """Of a blocked score they are zero, so is what they make of a soft one: that is reported."""
    result = constants(L.highest(x.structure), context)
    if not x.labels.soft or _overwritten(x, context):
        return result
    soft = x.labels.is_soft()
    if not bool(soft.any()):  # what is soft of the storage is elsewhere
        return result
    highest = math.nan if x.absent else x.value[soft].max().item()
    context.reports.soft_mask(highest, -highest)
    return L.zero_where(soft, result)


def _low(labels: Labels) -> Tensor | None:
    """Where it is blocked or soft; `None` for nowhere."""
    return _or(_is_blocked(labels), labels.is_soft() if labels.soft else None)


def _is_zero(labels: Labels) -> Tensor | None:
    return _where_label(labels, ZERO)


def _is_blocked(labels: Labels) -> Tensor | None:
    return _where_label(labels, BLOCKED)


def _where_label(labels: Labels, label: int) -> Tensor | None:
    """Where it stands, a mask that broadcasts to the shape; `None` for nowhere."""
    if labels.uniform is not None and labels.uniform != label:
        return None
    if labels.least > label:
        return None
    found = labels.core == label
    if labels.owners is not None:
        found = found & (labels.owners.codes == 0)  # another arrangement puts another row there
    return found if L.some(found) else None


def _or(*masks: Tensor | None) -> Tensor | None:
    present = [mask for mask in masks if mask is not None]
    return reduce(Tensor.logical_or, present) if present else None


def _and(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return None if a is None or b is None else a & b
