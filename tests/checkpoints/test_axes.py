"""Which axis is what, for every layout that models use: held against plain indexing."""

import pytest
import torch

from leakcheck.checkpoints.axes import Axes, tensors_in

B, T, H, HEADS, D = 7, 5, 6, 3, 4
AXES = Axes(B, T)
SOURCE = torch.randint(B, (B, T), generator=torch.Generator().manual_seed(0))

# name -> shape, and the index at which the features of batch row b and position t lie
LAYOUTS = {
    "[B,T,H]": ((B, T, H), lambda b, t: (b, t)),
    "[T,B,H]": ((T, B, H), lambda b, t: (t, b)),
    "[B,H,T]": ((B, H, T), lambda b, t: (b, slice(None), t)),
    "[B,T]": ((B, T), lambda b, t: (b, t)),
    "[B,heads,T,d]": ((B, HEADS, T, D), lambda b, t: (b, slice(None), t)),
    "[B,T,heads,d]": ((B, T, HEADS, D), lambda b, t: (b, t)),
    "[B,heads,T,T]": ((B, HEADS, T, T), lambda b, t: (b, slice(None), t)),
    "[B,1,T,T]": ((B, 1, T, T), lambda b, t: (b, slice(None), t)),
    "[B*T,H]": ((B * T, H), lambda b, t: (b * T + t,)),
    "[B*T]": ((B * T,), lambda b, t: (b * T + t,)),
}


def numbered(*shape: int) -> torch.Tensor:
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_are_the_features_of_each_position(layout):
    shape, index = LAYOUTS[layout]
    tensor = numbered(*shape)
    rows = AXES.rows(tensor)
    assert rows.shape == (B, T, tensor.numel() // (B * T))
    for b in range(B):
        for t in range(T):
            assert torch.equal(rows[b, t], tensor[index(b, t)].flatten())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_patch_takes_each_position_from_its_source_row(layout):
    shape, index = LAYOUTS[layout]
    tensor = numbered(*shape)
    patched = AXES.patch(tensor, SOURCE)
    assert patched.shape == tensor.shape
    for b in range(B):
        for t in range(T):
            assert torch.equal(patched[index(b, t)], tensor[index(int(SOURCE[b, t]), t)])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_patching_with_every_row_from_itself_changes_nothing(layout):
    tensor = numbered(*LAYOUTS[layout][0])
    identity = torch.arange(B)[:, None].expand(B, T)
    assert torch.equal(AXES.patch(tensor, identity), tensor)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_patch_leaves_the_original_alone(layout):
    tensor = numbered(*LAYOUTS[layout][0])
    before = tensor.clone()
    AXES.patch(tensor, SOURCE).zero_()
    assert torch.equal(tensor, before)


@pytest.mark.parametrize("shape", [(1, 1, T, T), (1, T, H), (1, T)])
def test_what_is_the_same_for_every_row_is_expanded_and_never_patched(shape):
    tensor = numbered(*shape)
    rows = AXES.rows(tensor)
    assert rows.shape[:2] == (B, T)
    assert all(torch.equal(rows[b], rows[0]) for b in range(B))
    assert torch.equal(AXES.patch(tensor, SOURCE), tensor)


@pytest.mark.parametrize("shape", [(), (H,), (T,), (H, D), (B, H), (T, H), (T, T), (B * T + 1, H)])
def test_what_has_not_both_axes_is_no_row(shape):
    tensor = numbered(*shape)
    assert AXES.rows(tensor) is None
    assert torch.equal(AXES.patch(tensor, SOURCE), tensor)


def test_pairwise_is_query_by_key():
    assert AXES.pairwise(numbered(B, HEADS, T, T))
    assert AXES.pairwise(numbered(1, 1, T, T))
    assert not AXES.pairwise(numbered(B, HEADS, T, D))
    assert not AXES.pairwise(numbered(B, T, T))


def test_the_query_is_the_position_of_attention_weights():
    weights = torch.zeros(B, HEADS, T, T)
    weights[2, :, 1, 3] = 1.0  # query 1 reads key 3
    rows = AXES.rows(weights)
    assert rows[2, 1].any()
    assert not rows[2, 3].any()


def test_non_contiguous_tensors_are_read_by_their_own_strides():
    tensor = numbered(B, H, T).transpose(1, 2)  # [B, T, H]
    assert torch.equal(AXES.rows(tensor), tensor)
    assert torch.equal(AXES.patch(tensor, SOURCE), AXES.patch(tensor.contiguous(), SOURCE))


def test_tensors_in_a_nested_result_without_parameters():
    a, b = torch.ones(2), torch.zeros(3)
    nested = {"x": [a, None, torch.nn.Parameter(torch.ones(4))], "y": (b, "text", 3)}
    assert [id(t) for t in tensors_in(nested)] == [id(a), id(b)]
