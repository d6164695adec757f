"""Indices that sort and nonzero made: what they take gets owners, what they put back loses them.

The argument why that is sound stands in `selection.py`. Every function here returns `None` where it does not apply; the
caller then settles, which is always sound.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from leakcheck.flow import choices
from leakcheck.flow import labels as L
from leakcheck.flow.labels import KNOWN, Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.selection import COORDINATE, SLOT, Owners, Selection

_numbers = itertools.count(1)


@dataclass(frozen=True)
class _Column:
    """The first column of an index that was expanded along the others."""

    value: Tensor
    labels: Labels


Index = Operand | _Column


def selection(rows: Tensor, arrangement: int, **more: object) -> Selection:
    return Selection(next(_numbers) % (1 << 23), rows, arrangement, **more)  # type: ignore[arg-type]


def new_bag() -> int:
    """A name for the values of a tensor, whatever their order."""
    return next(_numbers)


def bag_of(x: Operand) -> int | None:
    """The bag of whole numbers from 0 on, whatever the tokens are; `None` for values that could be others."""
    found = x.facts.get("bag")
    if found is None and (table := choices.of(x.tensor)) is not None:
        if x.tensor.is_floating_point() or int(table[1].min()) < 0:
            return None
        x.state(bag=new_bag())
    return x.facts.get("bag")


def take(x: Operand, indices: Sequence[Index | None]) -> Labels | None:
    """`x[..., indices, ...]` where all indices that depend on tokens belong to one selection."""
    given = [i for i in indices if i is not None]
    if len(given) == 1 and x.labels.owners is not None:
        return _from_slots(x, indices, given[0])
    index = _one_owner(given)
    if index is None:
        return None
    selection = index.only()
    assert selection is not None
    content = x.labels.settled()
    at = tuple(slice(None) if i is None else i.value for i in indices)
    if all(int(i.labels.plane.max()) <= KNOWN for i in given if i.labels.plane.numel()):
        plane = content.plane[at]  # each slot gets the labels of the row it takes
        _bring(selection, content, indices)
    else:
        dims = [d for d, i in enumerate(indices) if i is not None]
        plane = content.over(dims, keepdim=True).expand(x.shape).plane[at]
        by_index = given[0].labels.plane
        for other in given[1:]:
            by_index = torch.maximum(by_index, other.labels.plane)
        plane = torch.maximum(plane, _along(by_index, plane, indices)).clamp(min=KNOWN)
        if plane.numel():
            selection.brings(int(plane.max()))
    codes = _along(index.plain().codes, plane, indices).expand(plane.shape)
    return Labels(plane, Owners(codes, index.selections))


def _from_slots(x: Operand, indices: Sequence[Index | None], index: Index) -> Labels | None:
    """`x[inverse]`: the element in the slot of a given row is the row's own, wherever the slot is."""
    owners, held = index.labels.owners, x.labels.owners
    if owners is None or held is None or not owners.codes.numel() or not bool((owners.kinds() == SLOT).all()):
        return None
    at = tuple(slice(None) if i is None else i.value for i in indices)
    codes, plane = held.codes[at], x.labels.plane[at]
    wanted = _along(owners.codes & ((1 << 56) - 1), plane, indices).expand(plane.shape)
    if not bool(((codes & ((1 << 56) - 1)) == wanted).all()):
        return None
    return Labels(plane)


def gather(x: Operand, dim: int, index: Operand) -> Labels | None:
    if x.dim() == 1:
        return take(x, [index])
    if dim % x.dim() == 0 and (column := _same_along_the_rest(index)) is not None and index.shape[1:] == x.shape[1:]:
        return take(x, [column])
    return None


def put(
    x: Operand, indices: Sequence[Index | None], values: Operand | None, brought: Labels, keeps: bool
) -> Labels | None:
    """`x[..., indices, ...] (+)= values` where all indices belong to one selection and say where their row is."""
    given = [i for i in indices if i is not None]
    mask = given[0] if len(given) == 1 and given[0].value.dtype == torch.bool else None
    if mask is not None and brought.shape.numel() == 1 and not keeps:
        wide = mask.labels.view(lambda t: t.reshape(*t.shape, *(1,) * (x.dim() - t.dim())))
        return L.join(x.labels, wide, brought.view(lambda t: t.reshape(()))).expand(x.shape)
    index = _one_owner(given)
    if index is None or any(int(i.labels.plane.max()) > KNOWN for i in given if i.labels.plane.numel()):
        return None
    selection = index.only()
    assert selection is not None
    if index.codes.numel() != len(selection.rows):
        return None  # some slots would be put back more than once
    at = tuple(slice(None) if i is None else i.value for i in indices)
    flat = torch.arange(x.value.numel()).reshape(x.shape)[at]  # where each element goes
    if not (keeps or selection.in_order) and flat.unique().numel() != flat.numel():
        return None  # which of several wins depends on the arrangement; in order it is the last that was taken
    spread = brought.expand(flat.shape)
    base = x.structure.settled()
    codes = _along(index.plain().codes, spread.plane, indices).expand(flat.shape)
    if (spread.owners is not None and bool((spread.owners.plain().codes == codes).all())) or (
        brought.shape.numel() == 1 and spread.owners is None
    ):
        plane = spread.plane
    elif _is_slot_number(values, index, selection, x):
        result = torch.full(x.shape, KNOWN, dtype=L.DTYPE)
        result[at[0]] = selection.arrangement
        slots = torch.zeros(x.shape, dtype=torch.int64)
        slots[at[0]] = selection.code(SLOT) + 1 + selection.rows
        return Labels(result, Owners(slots, index.selections))
    else:
        return None
    if selection.taken is None:
        kept = base.plane.clone(memory_format=torch.contiguous_format)
        if not keeps:
            kept.view(-1)[flat.reshape(-1)] = KNOWN
        return Labels(_scatter_highest(kept.clamp(min=KNOWN), flat, plane))
    everywhere = _where_all_rows_go(selection, indices, given, x)
    if everywhere is None:
        return None
    rows = torch.maximum(selection.taken, selection.potential).to(L.DTYPE)  # type: ignore[arg-type]
    result = _scatter_highest(base.plane.clamp(min=KNOWN).contiguous().clone(), flat, plane)
    return Labels(_scatter_highest(result, everywhere, _along(rows, everywhere, indices).expand(everywhere.shape)))


def scatter_rows(x: Operand, dim: int, index: Operand, brought: Labels, replaces: bool) -> Labels | None:
    """`x.scatter(0, index, ...)` with an index that is one for each row."""
    if dim % x.dim() or index.shape[1:] != x.shape[1:]:
        return None
    column = index if x.dim() == 1 else _same_along_the_rest(index)
    return None if column is None else put(x, [column], None, brought, not replaces)


def _same_along_the_rest(index: Operand) -> _Column | None:
    rest = zip(index.value.stride()[1:], index.shape[1:], strict=True)
    if not index.value.numel() or any(stride != 0 and n > 1 for stride, n in rest):
        return None
    first: Any = (slice(None), *(0,) * (index.dim() - 1))
    return _Column(index.value[first], index.labels.view(lambda t: t[first]))


def _one_owner(given: Sequence[Index]) -> Owners | None:
    """The owners of all indices, if every element has one, and the same in each index."""
    found: Owners | None = None
    for index in given:
        owners = index.labels.owners
        if owners is None or owners.only() is None or bool((owners.kinds() == SLOT).any()):
            return None
        if found is not None and (
            found.codes.shape != owners.codes.shape or not bool((found.plain().codes == owners.plain().codes).all())
        ):
            return None
        found = owners
    return found


def _bring(selection: Selection, content: Labels, indices: Sequence[Index | None]) -> None:
    """Remember what rows bring along, also those that were not taken in this run."""
    if selection.potential is None or not selection.coordinates:
        selection.brings(content.highest)
        return
    given = [i for i in indices if i is not None]
    at = _coordinates(selection, given)
    dims = [d for d, i in enumerate(indices) if i is not None]
    if at is None or dims != list(range(len(dims))):
        selection.brings(content.highest)
        return
    rows = content.plane[tuple(at)]  # [rows, ...]
    rows = rows.reshape(len(rows), -1).amax(1) if rows.numel() else rows.new_full((len(rows),), KNOWN)
    selection.potential = torch.maximum(selection.potential, rows)


def _coordinates(selection: Selection, given: Sequence[Index]) -> list[Tensor] | None:
    """The coordinates of all rows, for indices that are coordinates; `None` if one is not."""
    at = []
    for index in given:
        owners = index.labels.owners
        kinds = torch.zeros(0) if owners is None else owners.kinds().unique()
        if len(kinds) != 1 or int(kinds[0]) < COORDINATE:
            return None
        at.append(selection.coordinates[int(kinds[0]) - COORDINATE])
    return at


def _where_all_rows_go(
    selection: Selection, indices: Sequence[Index | None], given: Sequence[Index], x: Operand
) -> Tensor | None:
    at = _coordinates(selection, given)
    if at is None:
        return None
    places = iter(at)
    full = tuple(slice(None) if i is None else next(places) for i in indices)
    return torch.arange(x.value.numel()).reshape(x.shape)[full]


def _is_slot_number(values: Operand | None, index: Owners, selection: Selection, x: Operand) -> bool:
    """Whether `x[index] = values` writes into each row's place the number of its slot."""
    if values is None or selection.taken is not None or x.dim() != 1 or values.labels.uniform != KNOWN:
        return False
    if index.codes.dim() != 1 or not torch.equal(index.rows(), selection.rows):
        return False
    return torch.equal(values.value.expand(index.codes.shape), torch.arange(len(index.codes)))


def _along(rows: Tensor, result: Tensor, indices: Sequence[Index | None]) -> Tensor:
    """One value for each element of the indices, laid along the dims of the result that come from them."""
    used = [d for d, i in enumerate(indices) if i is not None]
    adjacent = used == list(range(used[0], used[-1] + 1))
    first = used[0] if adjacent else 0
    return rows.reshape(*rows.shape, *(1,) * (result.dim() - first - rows.dim()))


def _scatter_highest(base: Tensor, flat: Tensor, plane: Tensor) -> Tensor:
    values = plane.expand(flat.shape).reshape(-1).to(base.dtype)
    return base.reshape(-1).scatter_reduce(0, flat.reshape(-1), values, "amax").reshape(base.shape)
