"""Ops that move values and change none: copies, casts, fills, joining and repeating tensors."""

from collections.abc import Sequence
from typing import Any

import torch

from leakcheck.flow import labels as L
from leakcheck.flow.context import Context
from leakcheck.flow.labels import GENERIC, KNOWN, UNWRITTEN, ZERO, Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import rule
from leakcheck.flow.rules import routing
from leakcheck.flow.rules.pointwise import constants
from leakcheck.flow.selection import Owners


@rule(
    "aten::clone", "aten::_to_copy", "aten::lift_fresh_copy", "aten::alias_copy", "aten::detach_copy",
    rowwise=True, soft=True,
)  # fmt: skip
def same(x: Operand, *_: Any, context: Context, **__: Any) -> Labels:
    """The same values in a new place: `out = x`. Facts about the values as a whole move along."""
    labels = x.labels if context.result.is_floating_point() else L.highest(x.labels)
    if not context.result.is_floating_point() and x.tensor.is_floating_point():
        labels = constants(labels, context)
    return labels.stating(**x.facts) if x.facts else labels


@rule("aten::_reshape_copy", rowwise=True, soft=True)
def reshaped(x: Operand, size: Sequence[int]) -> Labels:
    return x.labels.view(lambda t: t.reshape(size))


@rule("aten::view_as_real_copy", rowwise=True)
def real_and_imaginary(x: Operand) -> Labels:
    """`[...]` to `[..., 2]`: both parts have the label of the number."""
    return x.labels.view(lambda t: t.unsqueeze(-1)).expand((*x.shape, 2))


@rule("aten::copy", rowwise=True, soft=True)
def copy(target: Operand, source: Operand, non_blocking: bool = False) -> Labels:
    """What is copied in, broadcast to the target."""
    return source.structure.expand(target.shape)


@rule(
    "aten::zeros_like", "aten::ones_like", "aten::full_like", "aten::new_zeros", "aten::new_ones", "aten::new_full",
    "aten::zero", "aten::fill.Scalar",
)  # fmt: skip
def shaped_like(*_: Any, **__: Any) -> int:
    """Only the shape is used."""
    return KNOWN


@rule(
    "aten::empty", "aten::empty_strided", "aten::empty_like", "aten::empty_permuted", "aten::new_empty",
    "aten::new_empty_strided", "aten::resize",
)  # fmt: skip
def unwritten(*_: Any, **__: Any) -> int:
    """Memory with no values yet. A kernel that torch does not dispatch may write it behind our back."""
    return UNWRITTEN


@rule("aten::fill.Tensor")
def fill(x: Operand, value: Operand) -> Labels:
    return value.labels.expand(x.shape)


@rule("aten::cat", rowwise=True, soft=True)
def cat(several: Sequence[Operand], dim: int = 0) -> Labels:
    """Side by side."""
    parts = [x for x in several if not (x.dim() == 1 and x.shape[0] == 0)] or several
    joined = side_by_side([x.structure for x in parts], dim)
    return joined.stating(bag=routing.new_bag()) if all(routing.bag_of(x) for x in parts) else joined


@rule("aten::stack", rowwise=True, soft=True)
def stack(several: Sequence[Operand], dim: int = 0) -> Labels:
    return side_by_side([x.structure.view(lambda t: t.unsqueeze(dim)) for x in several], dim)


def side_by_side(several: Sequence[Labels], dim: int) -> Labels:
    soft = any(labels.soft for labels in several)
    plane = L.cat([labels.plane for labels in several], dim)
    if all(labels.owners is None for labels in several):
        return Labels(plane, soft=soft)
    codes, selections = [], {}
    for labels in several:
        if labels.owners is None:
            codes.append(torch.zeros(labels.shape, dtype=torch.int64))
        else:
            codes.append(labels.owners.plain().codes)
            selections.update(labels.owners.selections)
    return Labels(plane, Owners(torch.cat(codes, dim), selections), soft)


@rule("aten::repeat", rowwise=True, soft=True)
def repeat(x: Operand, repeats: Sequence[int]) -> Labels:
    return x.labels.view(lambda t: t.repeat(repeats))


@rule("aten::flip", rowwise=True, soft=True)
def flip(x: Operand, dims: Sequence[int]) -> Labels:
    return x.labels.view(lambda t: t.flip(tuple(dims)))


@rule("aten::roll", rowwise=True, soft=True)
def roll(x: Operand, shifts: Sequence[int], dims: Sequence[int] = ()) -> Labels:
    return x.labels.view(lambda t: t.roll(tuple(shifts), tuple(dims)))


@rule("aten::constant_pad_nd")
def constant_pad(x: Operand, pad: Sequence[int], value: float = 0) -> Labels:
    """Known values around: ZERO if they are zero."""
    label = ZERO if value == 0 else L.BLOCKED if value <= L.HARD_MASK else KNOWN
    core, shape = x.structure.core, list(x.shape)
    spelt = list(core.shape)
    for d, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True), start=1):
        if before or after:
            spelt[-d] = x.shape[-d]
            shape[-d] += before + after
    return Labels.spread(torch.constant_pad_nd(core.expand(spelt), list(pad), label), shape)


@rule("aten::tril", rowwise=True)
def tril(x: Operand, diagonal: int = 0) -> Labels:
    keep = torch.ones(x.shape, dtype=torch.bool).tril(diagonal)
    return L.zero_where(~keep, x.structure)


@rule("aten::triu", rowwise=True)
def triu(x: Operand, diagonal: int = 0) -> Labels:
    keep = torch.ones(x.shape, dtype=torch.bool).triu(diagonal)
    return L.zero_where(~keep, x.structure)


@rule("aten::diag_embed")
def diag_embed(x: Operand, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Labels:
    """Zeros off the diagonal."""
    return Labels(torch.diag_embed(x.structure.plane - ZERO, offset, dim1, dim2) + ZERO)


@rule("aten::native_dropout")
def dropout(x: Operand, p: float, train: bool | None = None) -> tuple[Labels, int]:
    """Elementwise times a random mask."""
    return L.join(x.labels, Labels.full((), GENERIC)), GENERIC


@rule("aten::rand_like", "aten::randn_like", "aten::randint_like")
def random_like(*_: Any, **__: Any) -> int:
    """Only the shape is used."""
    return GENERIC
