"""Linear systems and factorisations against brute force."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from tests.flow.rules.bruteforce import Given, check, labelled, tokens, traced, weight

linalg = torch.linalg
N = 4


def strong(given: Given) -> Given:
    """With a diagonal that keeps a matrix far from singular."""

    def draw() -> torch.Tensor:
        return torch.randn(given.value.shape, dtype=torch.float64) + 5 * torch.eye(N, dtype=torch.float64)

    return labelled(draw(), given.labels, draw)


def lower(x: torch.Tensor) -> torch.Tensor:
    return x.tril()


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("unit", [False, True])
def test_triangular(upper, left, unit):
    b = tokens(2, N, 3, start=50) if left else tokens(2, 3, N, start=50)
    call = partial(linalg.solve_triangular, upper=upper, left=left, unitriangular=unit)
    check(call, strong(tokens(2, N, N)), b)
    check(call, strong(weight(2, N, N)), b)
    check(call, strong(tokens(N, N)), weight(*b.value.shape))  # one matrix for the batch


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("unit", [False, True])
def test_triangular_with_the_older_name(upper, transpose, unit):
    call = partial(torch.triangular_solve, upper=upper, transpose=transpose, unitriangular=unit)
    check(call, tokens(2, N, 3), strong(tokens(2, N, N, start=50)))


def test_a_band_reaches_as_far_as_it_is_linked():
    band = torch.eye(5, dtype=torch.float64) * 3
    band[2, 1] = band[4, 2] = 1
    seen = check(lambda b: linalg.solve_triangular(band, b, upper=False), tokens(5, 2, along=0))
    assert seen.labels[0][:, 0].tolist() == [0, 1, 2, 3, 4]
    seen = check(lambda b: linalg.solve_triangular(band.mT, b, upper=True), tokens(5, 2, along=0))
    assert seen.labels[0][:, 0].tolist() == [0, 4, 4, 3, 4]


def test_zero_rows_of_the_right_hand_side_stay_zero():
    def call(a, b):
        return linalg.solve_triangular(a, F.pad(b, (0, 0, 2, 0)), upper=False)

    check(call, strong(weight(N, N)), tokens(2, 3))


@pytest.mark.parametrize("shape", [lower, torch.triu, lambda x: x])
def test_solution_and_inverse_keep_a_triangle(shape):
    check(lambda a, b: linalg.solve(shape(a), b), strong(tokens(2, N, N)), tokens(2, N, 3, start=50))
    check(lambda a, b: linalg.solve(shape(a), b, left=False), strong(tokens(2, N, N)), tokens(2, 3, N, start=50))
    check(lambda a: linalg.inv(shape(a)), strong(tokens(2, N, N)))
    check(lambda a: linalg.matrix_exp(shape(a)), tokens(2, N, N))


def test_solution_of_a_vector():
    check(linalg.solve, strong(tokens(N, N)), tokens(N, start=50))
    check(linalg.solve, strong(tokens(2, N, N)), tokens(2, N, start=50))


@pytest.mark.parametrize("upper", [False, True])
def test_cholesky(upper):
    def positive(x):
        return x + 50 * torch.eye(N, dtype=torch.float64)

    check(lambda x: linalg.cholesky(positive(x), upper=upper), strong(tokens(2, N, N)))
    check(lambda x: torch.cholesky(positive(x), upper=upper), strong(tokens(2, N, N)))


@pytest.mark.parametrize(
    "call",
    [
        linalg.det, linalg.slogdet, linalg.qr, linalg.svdvals, linalg.eigvalsh, linalg.lu_factor, linalg.pinv,
        lambda a: linalg.eigh(a + a.mT)[0], lambda a: linalg.svd(a)[1], lambda a: linalg.lu(a)[1:], linalg.eigvals,
        torch.cholesky_inverse, linalg.ldl_factor, linalg.matrix_rank, lambda a: linalg.matrix_norm(a, "nuc"),
    ],
)  # fmt: skip
def test_others_join_the_matrix_and_keep_the_batch_apart(call):
    given = strong(tokens(2, N, N))
    check(call, given, exact=False)
    own = given.labels.amax((1, 2))
    for label in traced(call, given).labels:
        assert (label.reshape(2, -1) <= own[:, None]).all()


def test_others_of_two_matrices():
    check(linalg.lstsq, strong(tokens(2, N, N)), tokens(2, N, 3, start=50), exact=False)
    check(torch.cholesky_solve, tokens(2, N, 3), strong(tokens(2, N, N, start=50)), exact=False)
    check(lambda a, b: linalg.lu_solve(*linalg.lu_factor(a), b), strong(tokens(2, N, N)), tokens(2, N, 3), exact=False)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_distances(p):
    check(partial(torch.cdist, p=p), tokens(2, 3, 4), tokens(2, 5, 4, start=30))
    check(partial(F.pdist, p=p), tokens(4, 3))


def test_distances_of_many_rows_by_a_product():
    check(torch.cdist, tokens(26, 2, along=0), tokens(27, 2, along=0, start=30), draws=1)


def test_products():
    check(linalg.cross, tokens(2, 3), tokens(2, 3, start=6), draws=8)
    check(torch.kron, tokens(2, 3), tokens(3, 2, start=6))
    check(torch.trace, tokens(3, 4))
    check(lambda a, b: torch.einsum("btd,de->bte", a, b), tokens(2, 3, 4), weight(4, 2))
    check(lambda a, b: torch.tensordot(a, b, 1), tokens(2, 3), tokens(3, 4, start=6))
    check(F.bilinear, tokens(2, 3), tokens(2, 4, start=10), weight(5, 3, 4), weight(5))


def test_differences_and_areas():
    check(partial(torch.diff, dim=1), tokens(2, 5))
    check(partial(torch.trapezoid, dim=1), tokens(2, 5))
    check(partial(torch.cumulative_trapezoid, dim=1), tokens(2, 5))


@pytest.mark.parametrize("size", [0, 1])
def test_size_zero_and_one(size):
    given = labelled(torch.ones(2, size, size).double() * 3, torch.arange(2 * size).reshape(2, size, size))
    check(partial(linalg.solve_triangular, upper=False), given, tokens(2, size, 3, start=5))
    check(linalg.inv, given)
    check(linalg.solve, given, tokens(2, size, 3, start=5))
    check(linalg.matrix_exp, given)
    check(lambda a: linalg.cholesky(a.abs() + 1), given)
    check(linalg.qr, given, exact=False)


def test_into_a_given_tensor():
    def call(a, b):
        out = torch.empty_like(b)
        linalg.solve_triangular(a, b, upper=False, out=out)
        return out

    check(call, strong(weight(N, N)), tokens(N, 3))
