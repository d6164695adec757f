"""Ops that fold dimensions into one value each: the label is the join along them."""

from collections.abc import Sequence

from torch import Tensor

from leakcheck.flow import choices
from leakcheck.flow import labels as L
from leakcheck.flow.context import Context, tensors_of
from leakcheck.flow.labels import KNOWN, ZERO, Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import rule
from leakcheck.flow.rules.pointwise import known_at
from leakcheck.flow.rules.softmax import live_scores

Dims = Sequence[int] | int | None


@rule("aten::sum", "aten::nansum", rowwise=True)
def sums(x: Operand, dim: Dims = None, keepdim: bool = False) -> Labels:
    """`out = max over dim`; a sum of known zeros is zero."""
    return x.labels.over(dim, keepdim=keepdim)


@rule(
    "aten::mean", "aten::count_nonzero", "aten::amin", "aten::min", "aten::argmin", "aten::median", "aten::nanmedian",
    "aten::mode", rowwise=True,
)  # fmt: skip
def folds(x: Operand, dim: Dims = None, keepdim: bool = False) -> Labels:
    """`out = max over dim`, for values and for indices."""
    return L.floor(x.labels.over(dim, keepdim=keepdim))


@rule("aten::aminmax", "aten::var.correction", "aten::std.correction", "aten::var_mean.correction",
      "aten::std_mean.correction", rowwise=True)  # fmt: skip
def moments(x: Operand, dim: Dims = None, *, correction: float | None = None, keepdim: bool = False) -> Labels:
    """`out = max over dim`, for both outputs if there are two."""
    return folds(x, dim, keepdim)


@rule("aten::norm", "aten::linalg_vector_norm", rowwise=True)
def norms(x: Operand, order: float | None = 2, dim: Dims = None, keepdim: bool = False) -> Labels:
    """`out = max over dim`."""
    return folds(x, dim, keepdim)


@rule("aten::prod", "aten::all", rowwise=True)
def products(x: Operand, dim: Dims = None, keepdim: bool = False) -> Labels:
    """`out = ZERO if one is ZERO else max over dim`."""
    result = folds(x, dim, keepdim)
    if x.labels.uniform is not None or x.labels.owners is not None or not result.shape.numel() or not x.tensor.numel():
        return result
    return L.zero_where(_any(x.labels.plane == ZERO, dim, keepdim), result)


@rule("aten::any", rowwise=True)
def any_of(x: Operand, dim: Dims = None, keepdim: bool = False, *, context: Context) -> Labels:
    """`out = KNOWN if one is known to be true else max over dim`."""
    result = folds(x, dim, keepdim)
    known = known_at(x, context) if x.labels.uniform is None else None
    if known is None:
        return result
    true = _any(known & (x.value != 0), dim, keepdim)
    return L.select(true, Labels.full((), KNOWN), result)


@rule("aten::amax", "aten::max", "aten::argmax", "aten::logsumexp", rowwise=True, soft=True)
def largest(x: Operand, dim: Dims = None, keepdim: bool = False, *, context: Context) -> list[Labels]:
    """`out = max over dim`, for values and for indices; a blocked score never wins over a live one.

    Of soft scores alone the largest is soft.
    """
    every = tuple(range(x.dim()))
    dims = every if dim is None else (dim,) if isinstance(dim, int) else tuple(dim) or every
    live, _ = live_scores(x, dims, None)
    result = L.floor(live.over(dims, keepdim=keepdim))
    values, *indices = tensors_of(context.result)
    if isinstance(dim, int) and x.dim() and x.size < 0:
        for index in indices or ([values] if "argmax" in context.name else []):
            choices.begin(index, x.shape[dim])
    value = result
    if values.is_floating_point() and x.labels.soft and x.dim():
        soft = x.labels.is_soft()
        low = soft | (x.labels.hardened().plane <= KNOWN) & (x.value <= L.SOFT_MASK)
        value = value.softened(~_any(~low, dims, keepdim) & _any(soft, dims, keepdim))
    return [value, *(result for _ in indices)]


def _any(mask: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    if dim is None:
        return mask.any()
    return mask.any(dim if isinstance(dim, int) else tuple(dim) or None, keepdim=keepdim)
