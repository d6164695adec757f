"""Ops that fold dimensions into one value each: the label is the join along them."""

from collections.abc import Sequence
from typing import Any

import torch

from leakcheck.flow import labels as L
from leakcheck.flow.labels import BLOCKED, KNOWN, Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import rule

Dims = Sequence[int] | int | None


@rule("aten::sum", "aten::nansum", rowwise=True)
def sums(x: Operand, dim: Dims = None, keepdim: bool = False) -> Labels:
    """`out = max over dim`; a sum of known zeros is zero."""
    return x.structure.over(dim, keepdim=keepdim) if x.labels.uniform is None else x.labels.over(dim, keepdim=keepdim)


@rule(
    "aten::mean", "aten::prod", "aten::any", "aten::all", "aten::norm", "aten::std", "aten::var", "aten::count_nonzero",
    "aten::linalg_vector_norm", rowwise=True,
)  # fmt: skip
def folds(x: Operand, *args: Any, dim: Dims = None, keepdim: bool = False, **_: Any) -> Labels:
    """`out = max over dim`."""
    dim, keepdim = _dims(args, dim, keepdim)
    return L.floor(x.labels.over(dim, keepdim=keepdim))


def _dims(args: Sequence[Any], dim: Dims, keepdim: bool) -> tuple[Dims, bool]:
    """Dimensions and keepdim among positional arguments that differ from op to op (norm has its order first)."""
    for value in args:
        if isinstance(value, bool):
            keepdim = value
        elif isinstance(value, (list, tuple)) or (isinstance(value, int) and dim is None):
            dim = value
    return dim, keepdim


@rule("aten::amax", "aten::max", "aten::logsumexp", rowwise=True, soft=True)
def largest(x: Operand, dim: Dims = None, keepdim: bool = False) -> Labels:
    """`out = max over dim`; a blocked element never wins over one that is not."""
    plane = _unblocked(x)
    return L.floor(Labels(plane, x.labels.owners).over(dim, keepdim=keepdim))


@rule("aten::max.dim", rowwise=True, soft=True)
def largest_along(x: Operand, dim: int, keepdim: bool = False) -> tuple[Labels, Labels]:
    """Values and indices, both `max over dim`."""
    both = largest(x, dim, keepdim)
    return both, both


@rule("aten::argmax", rowwise=True, soft=True)
def index_of_largest(x: Operand, dim: int | None = None, keepdim: bool = False) -> Labels:
    return largest(x, dim, keepdim)


@rule("aten::min.dim", "aten::median.dim", "aten::mode", "aten::nanmedian.dim", rowwise=True)
def along(x: Operand, dim: int = -1, keepdim: bool = False) -> tuple[Labels, Labels]:
    both = L.floor(x.labels.over(dim, keepdim=keepdim))
    return both, both


@rule("aten::amin", "aten::min", "aten::argmin", "aten::median", rowwise=True)
def smallest(x: Operand, dim: Dims = None, keepdim: bool = False) -> Labels:
    return L.floor(x.labels.over(dim, keepdim=keepdim))


@rule("aten::aminmax", rowwise=True)
def extremes(x: Operand, *, dim: int | None = None, keepdim: bool = False) -> tuple[Labels, Labels]:
    both = smallest(x, dim, keepdim)
    return both, both


@rule("aten::var_mean", "aten::std_mean", rowwise=True)
def moments(x: Operand, dim: Dims = None, *, correction: Any = None, keepdim: bool = False) -> tuple[Labels, Labels]:
    both = L.floor(x.labels.over(dim, keepdim=keepdim))
    return both, both


def _unblocked(x: Operand) -> torch.Tensor:
    """Blocked elements as KNOWN: what is live in the same row outweighs them."""
    structure = x.structure
    plane = structure.plane
    if structure.soft:
        plane = torch.where(structure.is_soft(), KNOWN, plane)
    return torch.where(plane == BLOCKED, KNOWN, plane)
