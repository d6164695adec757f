"""Linear systems and factorisations.

Where a matrix is triangular by known zeros, substitution makes the labels exact: row i of the solution of a lower
triangular system depends on the rows of the right-hand side up to i that it is linked to, and on the matrix there. The
others join all of their matrix.
"""

from typing import Any

import torch
from torch import Tensor

from leakcheck.flow import labels as L
from leakcheck.flow.context import tensors_of
from leakcheck.flow.labels import KNOWN, ZERO, Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import Tier, rule
from leakcheck.flow.rules.matmul import _without_repeats as without_repeats


@rule("aten::linalg_solve_triangular")
def solve_triangular(a: Operand, b: Operand, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Labels:
    """X of `a X = b`, or of `X a = b`; what lies beyond the triangle is not read."""
    matrix, right = a.structure.plane, b.structure.plane
    if not left:
        matrix, right, upper = matrix.mT, right.mT, not upper
    solution = substituted(matrix, right, upper=upper, unit=unitriangular)
    return Labels(solution if left else solution.mT)


@rule("aten::triangular_solve")
def solve_triangular_first(
    b: Operand, a: Operand, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> tuple[Labels, Labels]:
    """X of `a X = b`, and a copy of a."""
    matrix = a.structure.plane
    if transpose:
        matrix, upper = matrix.mT, not upper
    solution = substituted(matrix, b.structure.plane, upper=upper, unit=unitriangular)
    return Labels(solution), a.labels.expand((*solution.shape[:-2], *a.shape[-2:]))


@rule("aten::_linalg_solve_ex")
def solve(a: Operand, b: Operand, *, left: bool = True, context: Any = None, **_: Any) -> list[Labels]:
    """X of `a X = b` or `X a = b`, by substitution if a is triangular; the factors join the whole matrix."""
    matrix, right = a.structure.plane, b.structure.plane
    vector = b.dim() == 1 or (b.dim() == a.dim() - 1 and b.shape == a.shape[:-1])
    right = right.unsqueeze(-1) if vector else right
    if not left:
        matrix, right = matrix.mT, right.mT
    solution = _solved(matrix, right)
    solution = solution if left else solution.mT
    factors = _of_matrices([L.floor(a.labels.over((-2, -1)))], list(tensors_of(context.result))[1:])
    return [Labels(solution.squeeze(-1) if vector else solution), *factors]


@rule("aten::linalg_inv_ex")
def inverse(a: Operand, context: Any = None, **_: Any) -> list[Labels]:
    """The solution for the unit matrix."""
    return [
        Labels(_solved(a.structure.plane, _unit(a))),
        *_of_matrices([L.floor(a.labels.over((-2, -1)))], [context.result[1]]),
    ]


@rule("aten::linalg_matrix_exp")
def exponential(a: Operand) -> Labels:
    """Of a triangular matrix each element depends on the entries between its row and its column, as for the inverse."""
    matrix = a.structure.plane
    return L.floor(Labels(_solved(matrix, _unit(a)))) if a.dim() and matrix.numel() else a.labels


@rule("aten::linalg_cholesky_ex", "aten::cholesky")
def cholesky(a: Operand, upper: bool = False, context: Any = None, **_: Any) -> list[Labels]:
    """`l[i, j]` depends on row i up to column j, and on the leading j + 1 rows; only one triangle is read."""
    plane = L.floor(a.labels).plane
    plane = plane.mT if upper else plane
    below = torch.ones(plane.shape[-2:], dtype=torch.bool).tril()
    plane = torch.where(below, plane, KNOWN)
    if not plane.numel():
        return [a.labels, *_of_matrices([Labels.full(a.shape[:-2], KNOWN)], list(tensors_of(context.result))[1:])]
    rows = plane.cummax(-1).values  # [..., i, j]: the row up to j
    leading = rows.amax(-1).cummax(-1).values.unsqueeze(-2)  # [..., 1, j]
    factor = torch.where(below, torch.maximum(rows, leading), ZERO)
    result = [Labels(factor.mT if upper else factor)]
    return result + _of_matrices([L.floor(a.labels.over((-2, -1)))], list(tensors_of(context.result))[1:])


@rule(
    "aten::linalg_lu", "aten::linalg_lu_factor_ex", "aten::linalg_lu_solve", "aten::linalg_qr", "aten::_linalg_svd",
    "aten::_linalg_eigh", "aten::linalg_eig", "aten::_linalg_eigvals", "aten::_linalg_det", "aten::_linalg_slogdet",
    "aten::linalg_ldl_factor_ex", "aten::linalg_lstsq", "aten::cholesky_solve", "aten::cholesky_inverse",
    "aten::linalg_pinv", tier=Tier.COARSE,
)  # fmt: skip
def whole_matrix(*args: Any, context: Any = None, **named: Any) -> list[Labels]:
    """Every output of a batch entry depends on all of its matrices."""
    given = [x for x in (*args, *named.values()) if isinstance(x, Operand)]
    matrices = [x for x in given if (x.dim() >= 2 and x.value.dtype.is_floating_point) or x.value.is_complex()]
    others = [
        x.labels.over() for x in given if x not in matrices
    ]  # pivots, tolerances: a batch entry is not told apart
    joined = [x.labels.over((-2, -1)) for x in matrices]
    return _of_matrices([L.floor(x) for x in joined + others], list(tensors_of(context.result)))


@rule("aten::linalg_householder_product", tier=Tier.COARSE)
def householder(a: Operand, tau: Operand, *, context: Any = None) -> list[Labels]:
    """Reflections `[..., n, k]` with factors `[..., k]`."""
    joined = [L.floor(a.labels.over((-2, -1))), L.floor(tau.labels.over(-1))]
    return _of_matrices(joined, list(tensors_of(context.result)))


@rule("aten::_linalg_check_errors")
def check_errors(*_: Any, **__: Any) -> tuple[()]:
    """Raises or does nothing: that a matrix is singular is no value."""
    return ()


@rule("aten::_cdist_forward")
def distances(x: Operand, y: Operand, *_: Any) -> Labels:
    """`out[..., i, j] = x[..., i, :] max y[..., j, :]`."""
    rows = x.labels.over(-1).view(lambda t: t.unsqueeze(-1))
    return L.join(rows, y.labels.over(-1).view(lambda t: t.unsqueeze(-2)))


@rule("aten::_pdist_forward")
def distances_of_pairs(x: Operand, p: float = 2) -> Labels:
    """Of each pair of rows i < j."""
    rows = L.floor(x.labels.over(-1))
    i, j = torch.triu_indices(len(x.value), len(x.value), 1)
    return L.join(rows.view(lambda t: t[i]), rows.view(lambda t: t[j]))


@rule("aten::_trilinear")
def trilinear(
    a: Operand, b: Operand, c: Operand, expand_a: list[int], expand_b: list[int], expand_c: list[int], sums: list[int],
    unroll_dim: int = 1,
) -> Labels:  # fmt: skip
    """A product of three, each with dimensions put in, summed over `sums`."""

    def put_in(x: Operand, dims: list[int]) -> Labels:
        def expanded(t: Tensor) -> Tensor:
            for d in dims:
                t = t.unsqueeze(d)
            return t

        return x.labels.view(expanded)

    return L.floor(L.join(put_in(a, expand_a), put_in(b, expand_b), put_in(c, expand_c)).over(sums))


def substituted(a: Tensor, b: Tensor, *, upper: bool, unit: bool = False) -> Tensor:
    """Labels `[..., n, columns]` of X in `a X = b` for a triangular a `[..., n, n]`.

        x[i] = max of b[i], a[i, i], and over the k before i where neither is zero: a[i, k] max x[k]

    ZERO where all of these products and b[i] are.
    """
    if upper:
        return substituted(a.flip(-1, -2), b.flip(-2), upper=False, unit=unit).flip(-2)
    shape = (*torch.broadcast_shapes(a.shape[:-2], b.shape[:-2]), *b.shape[-2:])
    a, b = without_repeats(a), without_repeats(b)
    if b.shape[-1] > 1 and bool((b == b[..., :1]).all()):
        b = b[..., :1]
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = a.expand(*batch, *a.shape[-2:]), b.expand(*batch, *b.shape[-2:])
    solution = b.clone(memory_format=torch.contiguous_format)
    for i in range(a.shape[-1]):
        before = a[..., i, :i, None]  # [..., k, 1]
        known = solution[..., :i, :]  # [..., k, columns]
        live = (before != ZERO) & (known != ZERO)
        row = solution[..., i, :]
        if i:
            row = torch.maximum(row, torch.where(live, torch.maximum(before, known), ZERO).amax(-2))
        if not unit:
            row = torch.where(row == ZERO, ZERO, torch.maximum(row, a[..., i, i, None]))
        solution[..., i, :] = torch.where(row == ZERO, ZERO, row.clamp(min=KNOWN))
    return solution.expand(shape)


def _solved(a: Tensor, b: Tensor) -> Tensor:
    """Labels of X in `a X = b`: by substitution if a is triangular by known zeros, else from everything."""
    if not a.numel() or not b.numel():
        batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        return b.new_full((*batch, *b.shape[-2:]), KNOWN)
    square = torch.ones(a.shape[-2:], dtype=torch.bool)
    if bool((a[..., square.triu(1)] == ZERO).all()):
        return substituted(a, b, upper=False)
    if bool((a[..., square.tril(-1)] == ZERO).all()):
        return substituted(a, b, upper=True)
    whole = a.amax((-2, -1), keepdim=True)
    column = b.amax(-2, keepdim=True)
    joined = torch.where(column == ZERO, ZERO, torch.maximum(whole, column).clamp(min=KNOWN))
    return joined.expand(*joined.shape[:-2], *b.shape[-2:]).contiguous()


def _unit(a: Operand) -> Tensor:
    n = a.shape[-1]
    return torch.where(torch.eye(n, dtype=torch.bool), KNOWN, ZERO).to(L.DTYPE).expand(*a.shape[:-2], n, n)


def _of_matrices(joined: list[Labels], outputs: list[Tensor]) -> list[Labels]:
    """Labels `[*batch]` for all elements of each batch entry of the outputs."""
    if not joined:
        return []
    batch = L.join(*joined)

    def spread(output: Tensor) -> Labels:
        extra = output.dim() - len(batch.shape)
        return batch.view(lambda t: t.reshape((*t.shape, *(1,) * extra))).expand(output.shape)

    return [spread(t) if t.numel() else Labels.full(t.shape, KNOWN) for t in outputs]
