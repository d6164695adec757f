"""What is logged of an op; a mask in words."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from leakcheck.lineage.masks import OpLog, describe


def logged(function, *args, **kwargs):
    with OpLog() as log:
        function(*args, **kwargs)
    return log.ops


def test_an_op_knows_its_tensors_and_its_line():
    scores, mask = torch.ones(2, 4, 4), torch.zeros(4, 4)
    with OpLog() as log:
        applied = scores + mask
    (op,) = log.ops
    assert op.inputs[0] is scores
    assert op.inputs[1] is mask
    assert op.outputs[0] is applied
    assert op.location.operation == "applied = scores + mask"


def test_the_producer_is_the_op_that_returned_the_very_tensor():
    mask = torch.zeros(3, 3)
    with OpLog() as log:
        cast = mask.to(torch.float64)
    assert log.producer(cast).location.operation == "cast = mask.to(torch.float64)"
    assert log.producer(torch.zeros(1)) is None


def test_of_a_cast_only_the_first_tensor_counts_and_of_a_filled_copy_none():
    mask, scores = torch.zeros(3, 3), torch.ones(3, 3)
    (cast,) = logged(mask.type_as, scores.double())
    assert [t is mask for t in cast.values] == [True]
    (filled,) = logged(torch.zeros_like, scores)
    assert filled.values == ()


def test_what_is_written_in_place_is_written_and_what_is_only_returned_is_not():
    mask = torch.zeros(3, 3)
    (op,) = logged(mask.__setitem__, (0, 0), 1.0)
    assert op.written[0] is mask
    (op,) = logged(mask.triu_, 1)
    assert op.written[0] is mask
    (op,) = logged(mask.to, torch.float32)
    assert op.outputs[0] is mask
    assert op.written == ()


@pytest.mark.parametrize("options", [{"is_causal": True}, {}], ids=["causal", "full"])
def test_a_fused_kernel_may_mask_by_itself(options):
    query = torch.ones(1, 1, 3, 2)
    (op,) = logged(F.scaled_dot_product_attention, query, query, query, **options)
    assert op.is_causal == bool(options)
    (op,) = logged(F.scaled_dot_product_attention, query, query, query, None, 0.0, bool(options))
    assert op.is_causal == bool(options)


@pytest.mark.parametrize(("need_weights", "acts"), [(False, "is_causal"), (True, "the mask")])
def test_torchs_multi_head_attention_drops_its_mask_for_is_causal_unless_it_needs_weights(need_weights, acts):
    attention = nn.MultiheadAttention(4, 2)
    x, mask = torch.randn(3, 1, 4), torch.zeros(3, 3)  # a mask that masks nothing, so that the output tells
    options = {"attn_mask": mask, "is_causal": True, "need_weights": need_weights}
    op = logged(attention, x, x, x, **options)[-1]
    assert op.is_causal == (acts == "is_causal")
    assert any(t is mask for t in op.inputs) == (acts == "the mask")
    other = torch.cat([x[:2], -x[2:]])
    moves = not torch.equal(attention(x, x, x, **options)[0][0], attention(other, other, other, **options)[0][0])
    assert moves == (acts == "the mask")


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (None, "None"),
        (torch.ones(2, 1, 3, 3).triu(1) * -1e9, "float32 [batch x 1x3x3], blocks 3 of 9 entries with -1e+09"),
        (torch.ones(2, 1, 3, 3).tril().bool(), "bool [batch x 1x3x3], blocks 3 of 9 entries with False"),
        (torch.zeros(2, 4), "float32 [batch x 4], blocks 0 of 4 entries with nothing"),
        (torch.full((1, 2, 2), -torch.inf).triu(1), "float32 [batch x 2x2], blocks 1 of 4 entries with -inf"),
        (torch.ones(3, 3).tril(), "float32 [3x3], blocks 3 of 9 entries with 0"),
        (torch.ones(2, 4, dtype=torch.long), "int64 [batch x 4], blocks 0 of 4 entries with 0"),
        (
            torch.full((2, 2), -torch.inf).triu(1) - torch.arange(2.0),
            "float32 [2x2], blocks 1 of 4 entries with -inf",
        ),
    ],
)
def test_a_mask_in_words(mask, words):
    assert describe(mask) == words
