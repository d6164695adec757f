"""Reading and writing by index. By a known index elements only move; by any other it could be every element.

Owners (see `selection.py`) come in with an index that a sort or a `nonzero` made, and fall off where elements are put
back by the same one.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from leakcheck.flow import choices
from leakcheck.flow import labels as L
from leakcheck.flow.labels import KNOWN, ZERO, Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import rule
from leakcheck.flow.rules import routing


@rule("aten::embedding", rowwise=True)
def embedding(weight: Operand, index: Operand, *_: Any) -> Labels:
    """`weight[index]`: `[rows, features]` by `[...]` gives `[..., features]`."""
    if weight.labels.uniform is not None and index.labels.uniform is None and index.labels.owners is None:
        rows = index.labels.view(lambda t: t.unsqueeze(-1))
        return L.join(weight.labels.over(), rows).expand((*index.shape, weight.shape[-1]))
    return take_rows(weight, 0, index)


@rule("aten::index_select", rowwise=True)
def index_select(x: Operand, dim: int, index: Operand) -> Labels:
    """`[..., rows, ...]` by `[n]` gives `[..., n, ...]`."""
    if not x.dim():
        return L.join(x.labels, index.labels.over())
    return take_rows(x, dim, index)


def take_rows(x: Operand, dim: int, index: Operand) -> Labels:
    return advanced(x, [None] * (dim % x.dim()) + [index])


@rule("aten::index.Tensor", "aten::_unsafe_index.Tensor", rowwise=True)
def index(x: Operand, indices: Sequence[Operand | None]) -> Labels:
    """`x[i, :, j]`, in numpy's manner."""
    return advanced(x, list(indices))


def advanced(x: Operand, indices: list[Operand | None]) -> Labels:
    """By known indices: the element's own label. By labelled ones: theirs, joined with all along their dims."""
    given = [i for i in indices if i is not None]
    if all(i.labels.uniform == KNOWN for i in given):
        at = _at(indices)
        return x.structure.view(lambda t: t[at])
    owned = routing.take(x, indices)
    if owned is not None:
        return owned
    reach = x.labels.settled().over(_indexed(indices), keepdim=True).plane.expand(x.shape)
    plane = reach[_at(indices)].clamp(min=KNOWN)  # labelled indices may be looked at: reach is equal along their dims
    if any(_is_choice(i) for i in given):  # which elements, and how many, depends on all of the mask
        return Labels(plane.clamp(min=max(i.labels.settled().highest for i in given)))
    by_index = _index_labels(given)  # the broadcast shape of the indices
    taken = Labels(torch.maximum(plane, _placed(by_index, plane, indices)))
    whole = x.labels.uniform == KNOWN and not x.value.is_floating_point() and not x.value.is_complex()
    return taken.stating(bag=routing.new_bag()) if whole and bool((x.value >= 0).all()) else taken


def _at(indices: Sequence[Operand | None]) -> tuple[Any, ...]:
    return tuple(slice(None) if i is None else i.value for i in indices)


def _indexed(indices: Sequence[Operand | None]) -> list[int]:
    """The dims that labelled indices run over: one each, and as many as it has for a boolean mask."""
    dims: list[int] = []
    d = 0
    for i in indices:
        width = i.value.dim() if i is not None and i.value.dtype == torch.bool else 1
        dims += range(d, d + width) if i is not None and i.labels.uniform != KNOWN else []
        d += width
    return dims


def _is_choice(index: Operand) -> bool:
    """Whether it is a labelled boolean mask."""
    return index.value.dtype == torch.bool and index.labels.uniform != KNOWN


def _index_labels(given: Sequence[Operand]) -> Tensor:
    """Of the shape that the indices broadcast to; a known boolean mask counts as the coordinates it stands for."""
    one = torch.full((), KNOWN, dtype=L.DTYPE)
    planes = [
        one.expand(int(i.value.sum())) if i.value.dtype == torch.bool else i.labels.settled().plane for i in given
    ]
    shape = torch.broadcast_shapes(*(p.shape for p in planes))
    result = planes[0].expand(shape)
    for plane in planes[1:]:
        result = torch.maximum(result, plane)
    return result.clamp(min=KNOWN)


def _placed(labels: Tensor, result: Tensor, indices: Sequence[Operand | None]) -> Tensor:
    """Labels of the index shape, laid along the dims of the result that come from the indices."""
    used = [d for d, i in enumerate(indices) if i is not None]
    adjacent = used == list(range(used[0], used[-1] + 1))
    first = used[0] if adjacent else 0
    after = result.dim() - first - labels.dim()
    return labels.reshape(*labels.shape, *(1,) * after)


@rule("aten::gather", rowwise=True)
def gather(x: Operand, dim: int, index: Operand, *, sparse_grad: bool = False) -> Labels:
    """`out[i, j] = x[index[i, j], j]` along dim 0, and so on."""
    if not x.dim():
        return L.join(x.labels, index.labels.over()).expand(index.shape)
    if index.labels.uniform == KNOWN:
        at = index.value
        return x.structure.view(lambda t: t.gather(dim, at))
    owned = routing.gather(x, dim, index)
    if owned is not None:
        return owned
    reach = x.labels.settled().over(dim, keepdim=True).plane
    slices = tuple(slice(0, n) if d != dim % x.dim() else slice(None) for d, n in enumerate(index.shape))
    return L.join(Labels(reach[slices].expand(index.shape)), index.labels.settled())


@rule("aten::take")
def take(x: Operand, index: Operand) -> Labels:
    """From the flattened tensor."""
    if index.labels.uniform == KNOWN:
        return x.structure.view(lambda t: t.take(index.value))
    return L.join(x.labels.over().expand(index.shape), index.labels)


@rule("aten::masked_select")
def masked_select(x: Operand, mask: Operand, context: Any = None) -> Labels:
    """By a known mask elements only move; else how many there are depends on it."""
    if mask.labels.uniform == KNOWN:
        keep = mask.value.expand(torch.broadcast_shapes(x.shape, mask.shape))
        return x.structure.expand(keep.shape).view(lambda t: t[keep] if t.device.type != "meta" else context.result)
    return L.join(x.labels.over(), mask.labels.over()).expand(context.result.shape)


@rule("aten::slice_scatter", "aten::select_scatter", "aten::diagonal_scatter", soft=True)
def view_scatter(x: Operand, source: Operand, *args: Any, context: Any = None, **kwargs: Any) -> Labels:
    """A copy with a part of it replaced."""
    function = getattr(torch.ops.aten, context.name.partition("::")[2])
    plane = function(x.structure.plane.contiguous(), source.structure.plane.contiguous(), *args, **kwargs)
    return Labels(plane, soft=x.labels.soft or source.labels.soft)


@rule("aten::scatter", "aten::scatter_add", "aten::scatter_reduce", rowwise=True)
def scatter(x: Operand, dim: int, index: Operand, source: Any, *_: Any, context: Any = None, **kwargs: Any) -> Labels:
    """`out[index[i, j], j] = source[i, j]` along dim 0; scatter_add and a reduction keep what was there."""
    brought = source.structure if isinstance(source, Operand) else Labels.full((), ZERO if source == 0 else KNOWN)
    replaces = context.name in ("aten::scatter", "aten::scatter_") and not _reduces(_, kwargs)
    if not x.dim():
        return L.join(x.labels, index.labels.over(), brought.over() if brought.shape else brought)
    base = x.structure
    if brought.shape:
        brought = brought.view(lambda t: t[tuple(slice(0, n) for n in index.shape)])
    brought = brought.expand(index.shape)
    if index.labels.uniform == KNOWN:
        if brought.owners is not None or base.owners is not None:
            brought, base = brought.settled(), base.settled()
        plane = base.plane.clone() if not base.plane.is_contiguous() else base.plane.contiguous().clone()
        source = brought.plane.contiguous()
        if replaces:
            return Labels(plane.scatter(dim, index.value, source))
        kept = kwargs.get("include_self", True)
        return Labels(plane.scatter_reduce(dim, index.value, source, "amax", include_self=kept))
    owned = routing.scatter_rows(x, dim, index, brought, replaces)
    if owned is not None:
        return owned
    slices = L.join(index.labels.settled(), brought.settled()).over(dim, keepdim=True)
    inside = tuple(slice(0, n) if d != dim % x.dim() else slice(None) for d, n in enumerate(index.shape))
    plane = L.floor(base.settled()).plane.clone()
    plane[inside] = torch.maximum(plane[inside], slices.plane)
    reached = choices.places(x.tensor, dim, index.tensor)
    return Labels(plane if reached is None else torch.where(reached, plane, base.settled().plane))


def _reduces(args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    return kwargs.get("reduce") is not None or any(isinstance(a, str) for a in args)


@rule("aten::index_add", "aten::index_copy", "aten::index_reduce", rowwise=True)
def index_rows(
    x: Operand, dim: int, index: Operand, source: Operand, *_: Any, include_self: bool = True, context: Any = None,
    **__: Any,
) -> Labels:  # fmt: skip
    """`out[index[i]] (+)= source[i]` along `dim`."""
    keeps = "index_copy" not in context.name
    return put(x, [None] * (dim % max(1, x.dim())) + [index], source, keeps=keeps, include_self=include_self)


@rule("aten::index_fill", rowwise=True)
def index_fill(x: Operand, dim: int, index: Operand, value: Any) -> Labels:
    brought = value if isinstance(value, Operand) else None
    label = ZERO if brought is None and value == 0 else KNOWN
    return put(x, [None] * (dim % max(1, x.dim())) + [index], brought, keeps=False, otherwise=label)


@rule("aten::index_put", "aten::_unsafe_index_put", "aten::_index_put_impl", rowwise=True)
def index_put(
    x: Operand, indices: Sequence[Operand | None], values: Operand, accumulate: bool = False, *_: Any
) -> Labels:
    """`x[i, :, j] (+)= values`."""
    return put(x, list(indices), values, keeps=accumulate)


def _same_for_all(brought: Labels, rest: int) -> bool:
    """Whether every element that a mask chooses is given the same values, of `rest` dims."""
    return len(brought.shape) <= rest or brought.shape[: len(brought.shape) - rest].numel() == 1


def put(
    x: Operand, indices: list[Operand | None], values: Operand | None, *, keeps: bool, otherwise: int = KNOWN,
    include_self: bool = True,
) -> Labels:  # fmt: skip
    """By known indices: there and nowhere else. By labelled ones: anywhere along the indexed dims."""
    given = [i for i in indices if i is not None]
    brought = Labels.full((), otherwise) if values is None else values.structure
    if not x.dim():  # only a dim of one could be meant
        kept = [x.structure] if keeps and include_self else []
        return L.highest(*kept, brought.over(), *(L.join(i.labels.over()) for i in given))
    at = _at(indices)
    base = x.structure
    if all(i.labels.uniform == KNOWN for i in given):
        brought, base = brought.settled(), base.settled()
        plane = base.plane.clone(memory_format=torch.contiguous_format)
        if not keeps:
            plane[at] = brought.plane
            return Labels(plane)
        if not include_self:
            plane[at] = ZERO
        flat = torch.arange(plane.numel()).reshape(plane.shape)[at]  # where each element goes
        highest = brought.plane.expand(flat.shape).clamp(min=KNOWN).reshape(-1)
        return Labels(plane.view(-1).scatter_reduce(0, flat.reshape(-1), highest, "amax").view(plane.shape))
    owned = routing.put(x, indices, values, brought, keeps)
    if owned is not None:
        return owned
    base = base.settled()
    if any(_is_choice(i) for i in given):
        if indices[0] is given[0] and len(given) == 1 and _same_for_all(brought, x.dim() - given[0].value.dim()):
            chosen = given[0].labels.settled().view(lambda t: t.reshape(*t.shape, *(1,) * (x.dim() - t.dim())))
            return L.join(base, chosen, brought.settled()).expand(x.shape)
        every = max(brought.settled().highest, *(i.labels.settled().highest for i in given))
        return L.join(base, Labels.full(x.shape, every))
    dims = _indexed(indices)
    narrow = [1 if d in dims else n for d, n in enumerate(x.shape)]  # x with one element along the labelled dims
    at = tuple(
        slice(None) if i is None else i.value if i.labels.uniform == KNOWN else torch.zeros_like(i.value)
        for i in indices
    )
    flat = torch.arange(math.prod(narrow)).reshape(narrow)[at]
    put = brought.settled().plane.expand(flat.shape).clamp(min=KNOWN)
    put = torch.maximum(put, _placed(_index_labels(given), put, indices))
    touched = put.new_full((math.prod(narrow),), ZERO).scatter_reduce(0, flat.reshape(-1), put.reshape(-1), "amax")
    return L.highest(base, Labels(touched.view(narrow).expand(x.shape)))
