"""Batches of matrices, many of which have the same labels, against brute force, and what their labels cost."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from leakcheck.flow.engine import Flow
from leakcheck.flow.labels import DTYPE, KNOWN, ZERO, Labels
from leakcheck.flow.reports import Reports
from leakcheck.flow.rules.matmul import _distinct, contract
from leakcheck.flow.storage import Mirror
from tests.flow.rules.bruteforce import check, labelled, tokens

CHUNKS, HEADS, LENGTH, WIDTH = 2, 3, 4, 2


def below(n: int) -> Tensor:
    return torch.ones(n, n, dtype=torch.float64).tril()


def by_chunk(*shape: int, start: int = 0) -> Tensor:
    """Labels by position in each of the chunks, the same for all heads: `[chunks * heads, *shape]`."""
    positions = start + torch.arange(CHUNKS * LENGTH).reshape(CHUNKS, 1, LENGTH, 1)
    return positions.expand(CHUNKS, HEADS, *shape).reshape(CHUNKS * HEADS, *shape)


def given(*shape: int, start: int = 0):
    return labelled(torch.randn(CHUNKS * HEADS, *shape, dtype=torch.float64), by_chunk(*shape, start=start))


@pytest.mark.parametrize("last", [1, LENGTH - 1])
def test_heads_flattened_with_chunks(last):
    """Weights that are zero above the diagonal; the second chunk ends in padding."""
    padding = torch.ones(CHUNKS, HEADS, LENGTH, 1, dtype=torch.float64)
    padding[-1, :, last:] = 0
    padding = padding.reshape(-1, LENGTH, 1)
    check(lambda w, x: torch.bmm(w * below(LENGTH), x * padding), given(LENGTH, LENGTH), given(LENGTH, WIDTH, start=8))
    check(lambda x, w: torch.bmm((x * padding).mT, w * below(LENGTH)), given(LENGTH, WIDTH), given(LENGTH, LENGTH))


def test_one_head_unlike_the_others():
    """Its mask is another; of its labels alone one is higher."""
    mask = below(LENGTH).repeat(CHUNKS * HEADS, 1, 1)
    mask[1] = mask[1].flip(0)
    check(lambda w, x: torch.bmm(w * mask, x), given(LENGTH, LENGTH), given(LENGTH, WIDTH, start=8))
    x = given(LENGTH, WIDTH)
    x.labels[4, 0, 1] = 20
    check(lambda w, x: torch.bmm(w * below(LENGTH), x), given(LENGTH, LENGTH), x)
    check(lambda x, w: torch.bmm(x.mT, w * below(LENGTH).mT), x, given(LENGTH, LENGTH))


def test_rows_columns_and_sums_that_repeat():
    stripes = torch.tensor([1.0, 0, 1, 0], dtype=torch.float64)
    check(lambda w, x: torch.bmm(w * stripes, x), tokens(2, 3, 4), tokens(2, 4, 2, start=24))
    check(lambda w, x: torch.bmm(w * stripes[:, None], x), tokens(2, 4, 3), tokens(2, 3, 2, start=24))
    check(lambda w, x: torch.bmm(w * stripes, x * stripes[:, None]), tokens(2, 3, 4), tokens(2, 4, 2, along=0))
    check(lambda w, x: torch.bmm(w * stripes[:, None], x * stripes), tokens(2, 4, 3, along=1), tokens(2, 3, 4, along=2))


def test_equal_products_of_a_batch_are_contracted_once():
    values = by_chunk(LENGTH, WIDTH).to(DTYPE)
    gate = torch.where(below(LENGTH) == 0, ZERO, KNOWN).to(DTYPE).expand(CHUNKS * HEADS, -1, -1)
    left, right, which = _distinct(gate[:1], values)
    assert (len(left), len(right), which.tolist()) == (1, CHUNKS, [0, 0, 0, 1, 1, 1])
    assert torch.equal(right[which], values)
    unlike = gate.clone()
    unlike[2, 3, 0] = ZERO
    left, right, which = _distinct(unlike, values)
    assert which.tolist() == [0, 0, 1, 2, 2, 2]
    assert torch.equal(left[which], unlike)
    each = contract(Labels(unlike), Labels(values)).plane
    for n in range(CHUNKS * HEADS):
        assert torch.equal(each[n], contract(Labels(unlike[n]), Labels(values[n])).plane)
    assert _distinct(torch.arange(2, dtype=DTYPE).reshape(2, 1, 1), values[:1])[2] is None


def test_heads_and_features_stay_expanded_through_padding_and_sums():
    mirror = Mirror()
    x = torch.randn(2, 5, 3, 4)  # [batch, position, head, feature]
    mirror.seed(x, Labels(torch.arange(5, dtype=DTYPE).reshape(1, 5, 1, 1).expand(x.shape)))
    with torch.no_grad(), Flow(mirror, Reports()):
        padded = F.pad(x, (0, 0, 0, 0, 1, 2))
        summed = padded.cumsum(1)
        flat = x.reshape(10, 12) @ torch.ones(12, 6)
    assert mirror.read(padded).core.flatten().tolist() == [ZERO, 0, 1, 2, 3, 4, ZERO, ZERO]
    assert mirror.read(summed).core.flatten().tolist() == [ZERO, 0, 1, 2, 3, 4, 4, 4]
    assert mirror.read(flat).core.shape == (10, 1)
    assert mirror.record(flat).plane.tolist() == [0, 1, 2, 3, 4]  # one row of the batch
