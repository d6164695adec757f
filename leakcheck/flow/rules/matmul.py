"""Matrix products, with known zeros on either side: `P @ V` is causal because masked weights are zero.

    out[i, j] = max over k of (a[i, k] max b[k, j]), over those k where neither is a known zero

Where no k is left the result is a known zero.
"""

from typing import Any

import torch
from torch import Tensor

from leakcheck.flow import labels as L
from leakcheck.flow.context import Context
from leakcheck.flow.labels import ZERO, Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import rule
from leakcheck.flow.rules.pointwise import total

_LARGEST_BLOCK = 1 << 22  # elements of an intermediate [rows, inner, columns]


@rule("aten::mm", "aten::bmm", rowwise=True)
def matmul(a: Operand, b: Operand, *_: Any) -> Labels:
    """`[..., i, k] @ [..., k, j]`."""
    return contract(a.structure, b.structure)


@rule("aten::mv", rowwise=True)
def matrix_vector(a: Operand, b: Operand) -> Labels:
    return contract(a.structure, b.structure.view(lambda t: t.unsqueeze(-1))).view(lambda t: t.squeeze(-1))


@rule("aten::dot", "aten::vdot", rowwise=True)
def dot(a: Operand, b: Operand) -> Labels:
    row = a.structure.view(lambda t: t.unsqueeze(0))
    return contract(row, b.structure.view(lambda t: t.unsqueeze(-1))).view(lambda t: t.reshape(()))


@rule("aten::addmm", "aten::baddbmm", rowwise=True)
def plus_matmul(
    c: Operand, a: Operand, b: Operand, *, beta: float = 1, alpha: float = 1, context: Context, **_: Any
) -> Labels:
    """`beta c + alpha a @ b`; with beta 0 the kernel does not read c."""
    return _plus(c, contract(a.structure, b.structure), beta, alpha, context)


def _plus(c: Operand, product: Labels, beta: float, alpha: float, context: Context) -> Labels:
    """`beta c + alpha product`: blocked where c is a mask."""
    if alpha == 0:
        product = Labels.full(product.shape, ZERO)
    return product if beta == 0 else total(product, c, beta, context)


@rule("aten::addmv", rowwise=True)
def plus_matrix_vector(
    c: Operand, a: Operand, b: Operand, *, beta: float = 1, alpha: float = 1, context: Context
) -> Labels:
    return _plus(c, matrix_vector(a, b), beta, alpha, context)


@rule("aten::_addmm_activation", rowwise=True)
def activated_matmul(
    c: Operand, a: Operand, b: Operand, *, beta: float = 1, alpha: float = 1, context: Context, **_: Any
) -> Labels:
    """relu or gelu of `beta c + alpha a @ b`."""
    return L.floor(plus_matmul(c, a, b, beta=beta, alpha=alpha, context=context))


@rule("aten::addbmm")
def plus_sum_of_matmuls(
    c: Operand, a: Operand, b: Operand, *, beta: float = 1, alpha: float = 1, context: Context
) -> Labels:
    return _plus(c, contract(a.structure, b.structure).over(0), beta, alpha, context)


@rule("aten::addr")
def plus_outer(c: Operand, a: Operand, b: Operand, *, beta: float = 1, alpha: float = 1, context: Context) -> Labels:
    row, column = a.structure.view(lambda t: t.unsqueeze(-1)), b.structure.view(lambda t: t.unsqueeze(0))
    return _plus(c, contract(row, column), beta, alpha, context)


@rule("aten::linear", rowwise=True)
def linear(x: Operand, weight: Operand, bias: Operand | None = None) -> Labels:
    """`x @ weight.T + bias`."""
    flat = x.structure.view(lambda t: t.reshape(-1, t.shape[-1]))
    product = contract(flat, weight.structure.view(lambda t: t.t()))
    product = product.view(lambda t: t.reshape(*x.shape[:-1], weight.shape[0]))
    return product if bias is None else L.join(product, bias.labels)


def contract(a: Labels, b: Labels) -> Labels:
    """The labels of `a @ b`; batch dimensions broadcast."""
    shape = (*L.broadcast(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    if a.shape[-1] == 0:
        return Labels.full(shape, ZERO)
    zeros_a, zeros_b = _has_zeros(a), _has_zeros(b)
    if a.uniform == ZERO or b.uniform == ZERO:
        return Labels.full(shape, ZERO)
    if not zeros_a and not zeros_b:
        return L.join(a.over(-1, keepdim=True), b.over(-2, keepdim=True)).expand(shape)
    left, right, which = _distinct(_without_repeats(a.settled().plane), _without_repeats(b.settled().plane))
    if zeros_b:
        # left[i, j]: a[i, k] over those k where b[k, j] is not zero
        from_a = _over_live(right.mT, left.mT).mT  # [..., j, i] -> [..., i, j]
    else:
        from_a = left.amax(-1, keepdim=True)  # [..., i, 1]
    if zeros_a:
        from_b = _over_live(left, right)  # [..., i, j]
    else:
        from_b = right.amax(-2, keepdim=True)  # [..., 1, j]
    live = from_b > ZERO if zeros_a else from_a > ZERO  # some k with both not zero
    if zeros_a and zeros_b:
        live = live & (from_a > ZERO)
    plane = torch.where(live, torch.maximum(from_a, from_b).clamp(min=L.KNOWN), ZERO)
    return Labels(plane if which is None else plane[which]).expand(shape)


def _has_zeros(labels: Labels) -> bool:
    if labels.uniform is not None:
        return labels.uniform == ZERO
    return labels.least <= ZERO and bool(labels.core.min() <= ZERO)


def _over_live(gate: Tensor, values: Tensor) -> Tensor:
    """For each i, j: the highest `values[k, j]` over those k where `gate[i, k]` is not zero; ZERO if there is none.

    `[..., i, j]`, where i or j is 1 if it makes no difference.
    """
    gate, values = _without_repeats(gate, -2, -1), _without_repeats(values, -2, -1)
    open_ = gate != ZERO  # [..., i, k]
    if gate.shape[-1] == 1:
        values = values.amax(-2, keepdim=True)
    elif values.shape[-2] == 1:
        open_ = open_.any(-1, keepdim=True)
    rows, inner, columns = open_.shape[-2], open_.shape[-1], values.shape[-1]
    batch = torch.broadcast_shapes(gate.shape[:-2], values.shape[:-2])
    if columns == 1:
        return torch.where(open_, values.mT, ZERO).amax(-1, keepdim=True)
    step = max(1, _LARGEST_BLOCK // max(1, inner * columns * batch.numel()))
    parts = [
        torch.where(open_[..., i : i + step, :, None], values[..., None, :, :], ZERO).amax(-2)  # [..., i, j]
        for i in range(0, rows, step)
    ]
    return torch.cat(parts, -2) if parts else values.new_full((*batch, rows, columns), ZERO)


def _distinct(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """The products of a batch but for those that repeat the one before, and which of these each of the batch is.

    Heads that share labels stand side by side in a batch that has been flattened. `None` where nothing repeats.
    """
    size = max(left.shape[0], right.shape[0])
    if left.dim() != 3 or right.dim() != 3 or size < 2:
        return left, right, None
    new = torch.zeros(size - 1, dtype=torch.bool)
    for plane in (left, right):
        if plane.shape[0] > 1:
            new |= (plane[1:] != plane[:-1]).flatten(1).view(torch.uint8).amax(1).bool()
    which = torch.cat([torch.zeros(1, dtype=torch.int64), new.cumsum(0)])
    if int(which[-1]) == size - 1:
        return left, right, None
    first = torch.cat([torch.ones(1, dtype=torch.bool), new])
    left, right = (plane[first] if plane.shape[0] > 1 else plane for plane in (left, right))
    return left, right, which


def _without_repeats(plane: Tensor, *dims: int) -> Tensor:
    """One entry along each of the dimensions along which all are equal; by default those of the batch."""
    for d in dims or range(plane.dim() - 2):
        if plane.shape[d] > 1:
            first = plane.narrow(d, 0, 1)
            if plane.stride(d) == 0 or torch.equal(plane, first.expand_as(plane)):
                plane = first
    return plane
