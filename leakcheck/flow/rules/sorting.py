"""Sorting and choosing. Where all keys along the dimension have one label the result has it too.

Where they differ, what sits where depends on all of them. A sort of one row of keys makes a selection (`selection.py`).
"""

from typing import Any

import torch
from torch import Tensor

from leakcheck.flow import choices
from leakcheck.flow import labels as L
from leakcheck.flow.context import Context, Instead, tensors_of
from leakcheck.flow.labels import KNOWN, Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import Tier, rule
from leakcheck.flow.reports import CONTROL_FLOW
from leakcheck.flow.rules import routing
from leakcheck.flow.rules.matmul import contract
from leakcheck.flow.selection import COORDINATE, OWNED, SLOT, Owners
from leakcheck.flow.widening import widen


@rule("aten::sort", rowwise=True)
def sort(
    x: Operand, *args: Any, dim: int = -1, descending: bool = False, stable: bool | None = None, context: Context
) -> Any:
    """Sorted values, and the row of each. `sort(x, [stable], dim=-1, descending=False)`."""
    numbers = [a for a in args if isinstance(a, int) and not isinstance(a, bool)]
    flags = [a for a in args if isinstance(a, bool)]
    ascending = not (descending or (flags and flags[-1]))
    return ordered(x, numbers[0] if numbers else dim, context.result[1], ascending=ascending)


@rule("aten::argsort", rowwise=True)
def argsort(x: Operand, *args: Any, dim: int = -1, context: Context, **_: Any) -> Labels:
    numbers = [a for a in args if isinstance(a, int) and not isinstance(a, bool)]
    return ordered(x, numbers[0] if numbers else dim, context.result)[1]


@rule("aten::topk", rowwise=True)
def topk(x: Operand, k: int, dim: int = -1, *_: Any, context: Context) -> Any:
    """The k largest along `dim` and where they are."""
    values, indices = ordered(x, dim, context.result[1])
    return values, indices if indices.facts else indices.stating(bag=routing.new_bag())


def ordered(x: Operand, dim: int, indices: Tensor, *, ascending: bool = False) -> tuple[Labels, Labels]:
    """Labels of the values and indices of a sort along `dim` that gave `indices`.

    Of an ascending sort of whole numbers from 0 on, such as `topk` gives, the selection knows the keys' `bag`: the
    groups of equal keys end where the counts of the same bag say. Descending they would not, and numbers below 0 are
    not counted.
    """
    if not x.dim():
        return L.floor(x.labels), L.floor(x.labels)
    if x.size < 0:
        choices.begin(indices, x.shape[dim])
    undone = _undone(x, indices)
    if undone is not None:
        return undone
    keys = L.floor(x.labels.settled())
    high = keys.over(dim, keepdim=True)
    same = keys.uniform is not None or bool((keys.plane == high.plane).all())
    if same or keys.shape.numel() != keys.shape[dim] or indices.numel() == 0:
        both = high.expand(indices.shape)
        return both, both
    labels = keys.plane.reshape(-1)
    rows = indices.reshape(-1)
    arrangement = int(labels.max())
    bag = routing.bag_of(x) if ascending else None
    whole = len(rows) == len(labels)
    made = routing.selection(
        rows,
        arrangement,
        content=arrangement,
        coordinates=(torch.arange(len(labels)),),
        bag=bag if whole else None,
        keys=labels,
        taken=None if whole else torch.full_like(labels, arrangement),
        potential=None if whole else torch.full_like(labels, KNOWN),
    )
    shape = indices.shape
    values = Labels(labels[rows].reshape(shape), made.owners(OWNED).view(lambda t: t.reshape(shape)))
    where = torch.full(shape, KNOWN, dtype=L.DTYPE)
    indices_labels = Labels(where, made.owners(COORDINATE).view(lambda t: t.reshape(shape)))
    return values.stating(bag=bag) if bag else values, indices_labels


def _undone(x: Operand, indices: Tensor) -> tuple[Labels, Labels] | None:
    """`argsort(perm)` of a whole permutation: at each row the number of its slot."""
    owners = x.labels.owners
    selection = None if owners is None else owners.only()
    if owners is None or selection is None or selection.taken is not None or x.dim() != 1:
        return None
    kinds = owners.kinds()
    if not bool((kinds == COORDINATE).all()) or not torch.equal(x.value, selection.rows):
        return None
    if not torch.equal(owners.rows(), selection.rows) or len(indices) != len(selection.rows):
        return None
    by_slot = torch.full(indices.shape, selection.arrangement, dtype=L.DTYPE)
    if not torch.equal(x.value[indices], torch.arange(len(indices))):
        return None  # descending
    codes = selection.code(SLOT) + 1 + torch.arange(len(indices))
    return Labels(torch.full_like(by_slot, KNOWN)), Labels(by_slot, Owners(codes, owners.selections))


@rule("aten::nonzero", rowwise=True)
def nonzero(x: Operand, context: Context) -> Any:
    """Where the mask is true, `[n, dims]`: n depends on it.

    The trace goes on as if all elements were true that are not known to be false: fewer rows would show less of what
    could be done to them (one row mixes with no other, and `rows[:2]` is all of two). With one label for all of them
    there are no positions to tell apart, and it counts as known (`widening.py`). Else it is a selection.
    """
    labels = L.floor(x.labels.settled())
    if labels.shape.numel() == 0 or not x.dim():
        return L.Labels.full(context.result.shape, max(labels.highest, KNOWN))
    plane = labels.plane.reshape(-1)
    possible = (labels.plane > KNOWN) | (x.value != 0)
    highest, lowest = int(plane.max()), int(labels.plane[possible].min()) if bool(possible.any()) else KNOWN
    if highest <= KNOWN:
        return KNOWN
    if context.reports.natural:
        context.reports.hole(context.name, CONTROL_FLOW, "what is found decides what the program does")
        return L.HOLE
    if highest == lowest:
        widest = widen(possible, context.reports) if highest < L.HOLE else None
        return highest if widest is None else Instead(widest, KNOWN)
    coordinates = torch.unravel_index(torch.arange(len(plane)), x.shape)
    rows = possible.reshape(-1).nonzero().squeeze(1)
    made = routing.selection(
        rows,
        int(plane.max()),
        content=int(plane.max()),
        coordinates=coordinates,
        taken=plane,
        potential=torch.full_like(plane, KNOWN),
        in_order=True,
    )
    codes = torch.stack([made.owners(COORDINATE + d).codes for d in range(x.dim())], 1)  # [n, dims]
    labels = Labels(torch.full(codes.shape, KNOWN, dtype=L.DTYPE), Owners(codes, {made.number: made}))
    return Instead(possible.nonzero(), labels, sized=True)


@rule("aten::histc")
def histogram(x: Operand, bins: int = 100, min: float = 0, max: float = 0) -> Labels:
    """Counts: each depends on every element. One bin for each whole number counts the values themselves."""
    labels = L.floor(x.labels.over()).expand((bins,))
    bag = x.facts.get("bag")
    return labels.stating(counts=bag) if bag and bins == max - min + 1 and min == 0 else labels


@rule("aten::bincount", tier=Tier.COARSE)
def bincount(x: Operand, weights: Operand | None = None, minlength: int = 0, context: Any = None) -> Labels:
    """Counts, as many as the largest value needs: also their number depends on the values."""
    labels = L.floor(x.labels.over())
    if weights is not None:
        return L.join(labels, weights.labels.over()).expand(context.result.shape)
    labels = labels.expand(context.result.shape)
    bag = x.facts.get("bag")
    return labels.stating(counts=bag) if bag else labels


@rule("aten::cumsum", rowwise=True)
def cumulative_sum(x: Operand, dim: int, **_: Any) -> Labels:
    """`out[i] = max over 0..i`. Of counts it gives the ends of the groups in sorted order."""
    labels = running(x.structure.settled(), dim)
    counts = x.facts.get("counts")
    return labels.stating(offsets=counts) if counts and x.dim() == 1 else labels


@rule("aten::cumprod")
def cumulative_product(x: Operand, dim: int, **_: Any) -> Labels:
    return L.floor(running(x.structure, dim))


@rule("aten::cummax", "aten::cummin", tier=Tier.COARSE)
def cumulative_extreme(x: Operand, dim: int) -> tuple[Labels, Labels]:
    both = L.floor(running(x.labels, dim))
    return both, both


def running(labels: Labels, dim: int) -> Labels:
    """The highest label so far along `dim`; zeros stay zero until something else comes."""
    if labels.uniform is not None or not labels.shape:
        return labels if labels.uniform != L.BLOCKED else L.floor(labels)
    core = torch.where(labels.core == L.BLOCKED, KNOWN, labels.core)
    return Labels.spread(core.cummax(dim).values if core.numel() else core, labels.shape)


@rule("aten::_grouped_mm", "transformers::grouped_mm_fallback", rowwise=True)
def grouped_matmul(
    x: Operand, weight: Operand, offs: Operand | None = None, bias: Operand | None = None, *_: Any, context: Context
) -> Labels:
    """Rows in groups, each times its group's matrix: `out[s] = x[s] @ weight[group of s]`, groups end at `offs`.

    Slot s of a sort by key belongs to the group of its row's key, if the groups end where the counts of the same keys
    say. Then a row's result depends on the row, its key and the weights, whatever the arrangement is.
    """
    shape = context.result.shape
    owners = x.labels.owners
    selection = None if owners is None else owners.only()
    matrices = L.join(*(o.labels.settled().over() for o in (weight, bias) if o is not None))
    if (
        selection is not None
        and owners is not None
        and offs is not None
        and x.dim() == 2
        and selection.taken is None
        and selection.bag is not None
        and offs.facts.get("offsets") == selection.bag
        and selection.keys is not None
        and torch.equal(owners.rows()[:, 0], selection.rows)
    ):
        row = x.labels.over(1, keepdim=True)  # [slots, 1]
        if row.owners is not None:
            keys = selection.keys[selection.rows].unsqueeze(1)
            plane = torch.maximum(row.plane, keys).clamp(min=max(matrices.highest, KNOWN))
            return Labels(plane.expand(shape), row.owners.view(lambda t: t.expand(shape)))
    everything = [o.labels.settled().over() for o in (x, offs) if o is not None]
    if offs is None:
        return contract(x.structure.settled(), weight.structure.settled())
    return L.join(matrices, *everything).expand(shape)


@rule("aten::unique_consecutive", "aten::_unique2", "aten::unique_dim", "aten::_unique", tier=Tier.COARSE)
def unique(x: Operand, *_: Any, context: Context, **__: Any) -> list[Labels]:
    """How many there are, and which, depends on all."""
    highest = max(x.labels.highest, KNOWN)
    if highest >= 0:
        context.reports.hole(context.name, CONTROL_FLOW, "the size of the result depends on the tokens")
    return [Labels.full(t.shape, highest) for t in tensors_of(context.result)]
