"""What rules claim of every output, written down: of indices, counts, pivots and ranks too, which tell of what is read.

Brute force cannot refute a claim that is too high there, and hardly ever moves what is counted.
"""

import pytest
import torch

from leakcheck.flow.labels import KNOWN, ZERO
from tests.flow.conformance.claims import labelled_call
from tests.flow.conformance.oracle import Input

aten = torch.ops.aten

MATRICES = 2 * torch.eye(2, dtype=torch.float64).repeat(2, 1, 1), torch.arange(8).reshape(2, 2, 2)
TABLE = torch.ones(5, 2, dtype=torch.float64), torch.arange(10).reshape(5, 2)
INTEGERS = torch.tensor([0, 2, 1]), torch.tensor([1, 3, 2])
ROWS = INTEGERS[0][:, None], INTEGERS[1][:, None]
OFFSETS = torch.tensor([0, 2]), torch.tensor([1, 3])
FLAGS = torch.tensor([[True, True], [True, False]]), torch.tensor([[0, 1], [3, 2]])
HALF_KNOWN = torch.tensor([[1.0, 2.0], [1.0, 2.0]]), torch.tensor([[0, 1], [KNOWN, KNOWN]])

# A call, its values and labels, and the labels of each output; `None` where another test says them.
CLAIMS = {
    "cholesky": (torch.linalg.cholesky_ex, [MATRICES], [[[[0, ZERO], [2, 3]], [[4, ZERO], [6, 7]]], [3, 7]]),
    "determinant": (aten._linalg_det, [MATRICES], [[3, 7], [[[3, 3]] * 2, [[7, 7]] * 2], [[3, 3], [7, 7]]]),
    "least squares": (
        aten.linalg_lstsq,
        [MATRICES, (torch.ones(2, 2, 1, dtype=torch.float64), torch.zeros(2, 2, 1, dtype=torch.long))],
        [[[[7]] * 2] * 2, None, [7, 7], None],
    ),
    "embedding bag": (
        lambda table, at: aten._embedding_bag(table, at, OFFSETS[0]),
        [TABLE, INTEGERS],
        [[[8, 9]] * 2, [3] * 3, [3] * 2, [9] * 2],
    ),
    "embedding bag, forward only": (
        lambda table, at: aten._embedding_bag_forward_only(table, at, OFFSETS[0], False, 2),
        [TABLE, INTEGERS],
        [[[8, 9]] * 2, [3] * 3, [3] * 2, [[9, 9]] * 2],
    ),
    "embedding bag by offsets": (
        lambda table, offsets: aten._embedding_bag(table, INTEGERS[0], offsets),
        [TABLE, OFFSETS],
        [[[4, 5]] * 2, [3] * 3, [3] * 2, [5] * 2],
    ),
    "bincount": (torch.bincount, [INTEGERS], [[3] * 3]),
    "unique": (lambda x: aten._unique(x, True, True), [INTEGERS], [[3] * 3] * 2),
    "unique and counts": (lambda x: aten._unique2(x, True, True, True), [INTEGERS], [[3] * 3] * 3),
    "unique runs": (lambda x: aten.unique_consecutive(x, True, True), [INTEGERS], [[3] * 3] * 3),
    "unique rows": (lambda x: aten.unique_dim(x, 0, True, True, True), [ROWS], [[[3]] * 3, [3] * 3, [3] * 3]),
    "positions": (lambda x: aten.nonzero_static(x, size=3), [INTEGERS], [[[3]] * 3]),
    "all of each row": (lambda x: aten.all.dim(x, 1), [FLAGS], [[1, 3]]),
    "argmax": (lambda x: x.argmax(1), [HALF_KNOWN], [[1, KNOWN]]),
    "topk": (lambda x: x.topk(1), [HALF_KNOWN], [[[1], [KNOWN]], [[1], [KNOWN]]]),
    "products of eight bits": (
        lambda x, scales: aten._weight_int8pack_mm(
            x.bfloat16().repeat(1, 16), torch.ones(16, 32, dtype=torch.int8), scales.bfloat16().repeat(8)
        ),
        [(torch.ones(2, 2), torch.tensor([[0, 1], [3, 2]])), (torch.ones(2), torch.tensor([2, 4]))],
        [[[2, 4] * 8, [3, 4] * 8]],
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CLAIMS)
def test_claims_of_all_outputs(name):
    call, given, expected = CLAIMS[name]

    def outputs(values):
        result = call(*values)
        return [result] if isinstance(result, torch.Tensor) else list(result)

    claimed = labelled_call(outputs, [Input(value, labels, None) for value, labels in given])
    assert len(claimed) == len(expected)
    for number, (plane, labels) in enumerate(zip(claimed, expected, strict=True)):
        assert labels is None or plane.tolist() == labels, f"output {number}"
