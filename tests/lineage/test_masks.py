"""Which tensors are a mask, by derivation; where a mask meets what is none; a mask in words."""

import pytest
import torch

from leakcheck.lineage.masks import OpLog, describe


def logged():
    mask = torch.zeros(3, 1, 4, 4)
    scores = torch.ones(3, 2, 4, 4)
    with OpLog() as log:
        part = mask[:, :, :2]
        cast = part.to(torch.float64)
        scaled = cast * 2
        other = scores.softmax(-1)
        applied = scores + mask
        late = applied * 3
    return log, {"mask": mask, "part": part, "cast": cast, "scaled": scaled}, {
        "other": other, "applied": applied, "late": late
    }  # fmt: skip


def test_a_family_is_what_is_computed_from_masks_alone():
    log, inside, outside = logged()
    family = log.family([inside["mask"]])
    assert all(id(tensor) in family for tensor in inside.values())
    assert not any(id(tensor) in family for tensor in outside.values())


def test_a_mask_acts_where_it_meets_something_else():
    log, inside, outside = logged()
    ((op, mask),) = log.applications(log.family([inside["mask"]]))
    assert mask is inside["mask"]
    assert op.outputs[0] is outside["applied"]
    assert op.location.operation == "applied = scores + mask"


def test_no_mask_no_family():
    log, _, _ = logged()
    assert log.family([]) == set()
    assert log.applications(set()) == []


def test_the_producer_is_the_op_that_returned_the_very_tensor():
    log, inside, outside = logged()
    assert log.producer(inside["cast"]).location.operation == "cast = part.to(torch.float64)"
    assert log.producer(outside["late"]).inputs[0] is outside["applied"]
    assert log.producer(torch.zeros(1)) is None


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (None, "None"),
        (torch.ones(2, 1, 3, 3).triu(1) * -1e9, "float32 [batch x 1x3x3], blocks 3 of 9 entries with -1e+09"),
        (torch.ones(2, 1, 3, 3).tril().bool(), "bool [batch x 1x3x3], blocks 3 of 9 entries with False"),
        (torch.zeros(2, 4), "float32 [batch x 4], blocks 0 of 4 entries with nothing"),
        (torch.full((1, 2, 2), -torch.inf).triu(1), "float32 [batch x 2x2], blocks 1 of 4 entries with -inf"),
    ],
)
def test_a_mask_in_words(mask, words):
    assert describe(mask) == words
