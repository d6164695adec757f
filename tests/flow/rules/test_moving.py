"""Copies of views, reshaping in place, bags, masked writes and searches against brute force."""

import pytest
import torch
import torch.nn.functional as F

from tests.flow.rules.bruteforce import check, labelled, tokens, traced, weight


def whole(high: int):
    return lambda *size: torch.randint(high, size)


def complex_(*size: int) -> torch.Tensor:
    return torch.randn(*size, dtype=torch.complex128)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("permute_copy", ((1, 0),)), ("transpose_copy", (0, 1)), ("t_copy", ()), ("squeeze_copy", ()),
        ("unsqueeze_copy", (1,)), ("select_copy", (1, 2)), ("slice_copy", (1, 1, 3)), ("split_copy", (2, 1)),
        ("split_with_sizes_copy", ((1, 3), 1)), ("unbind_copy", (1,)), ("narrow_copy", (1, 1, 2)),
        ("diagonal_copy", (1,)), ("detach_copy", ()), ("view_copy", ((2, 6),)), ("expand_copy", ((2, 3, 4),)),
        ("unfold_copy", (1, 3, 1)), ("as_strided_copy", ((2, 3), (1, 2), 1)), ("alias_copy", ()),
    ],
)  # fmt: skip
def test_copies_of_views(name, options):
    check(lambda x: getattr(torch, name)(x, *options), tokens(3, 4))


def test_complex_views_and_copies():
    check(torch.view_as_complex_copy, tokens(3, 2))
    check(lambda x: torch.view_as_complex(x) * 2, tokens(3, 2))
    check(lambda x: torch.view_as_real(x * 2), tokens(2, 3, draw=complex_), exact=False)
    check(lambda x: (x.real + 1, x.conj().imag + 1, x.conj() * 2, x.angle(), x.abs()), tokens(2, 3, draw=complex_))
    check(torch.complex, tokens(2, 3), tokens(2, 3, start=6))
    check(torch.polar, tokens(2, 3), tokens(2, 3, start=6))
    check(lambda x, y: x @ y, tokens(2, 3, draw=complex_), tokens(3, 2, draw=complex_, start=6))


def test_view_as_real_copy():
    check(torch.view_as_real_copy, tokens(2, 2, draw=complex_))


def test_reshaping_in_place():
    check(lambda x: x.transpose_(0, 2) * 1, tokens(2, 3, 4))
    check(lambda x: x.as_strided_((3, 2), (1, 4), 5) * 1, tokens(2, 3, 4))
    check(lambda x: x.clone().swapaxes_(0, 1), tokens(2, 3))
    check(lambda x: x.clone().t_(), tokens(2, 3))
    check(lambda x: x.clone().unsqueeze_(1).squeeze_(1), tokens(2, 3))
    check(lambda x, y: x.clone().set_(y[1:]) * 2, weight(2, 3), tokens(3, 4))


def test_masked_scatter_by_a_known_mask():
    mask = torch.tensor([[True, False, True], [False, True, True]])
    check(lambda x, s: x.masked_scatter(mask, s), tokens(2, 3), tokens(5, start=10))
    check(lambda x, s: x.clone().masked_scatter_(mask[:, :1], s), tokens(2, 3), tokens(2, 3, start=10))


def test_masked_scatter_by_tokens():
    def flags(*size):
        return torch.rand(size) < 0.5

    check(torch.masked_scatter, tokens(2, 3), tokens(2, 3, draw=flags, start=10), tokens(7, start=20), draws=60)
    for order in (torch.arange(6), torch.arange(6).flip(0)):
        mask = labelled(torch.rand(1, 6) < 0.5, order, lambda: torch.rand(1, 6) < 0.5)
        seen = check(lambda m, s: torch.zeros(1, 6).double().masked_scatter(m, s), mask, weight(6), draws=60)
        assert torch.equal(seen.labels[0][0], order.cummax(0).values)


def test_put():
    index = torch.tensor([4, -6, 1])
    check(lambda x, s: x.put(index, s), tokens(2, 3), tokens(3, start=10))
    check(lambda x, s: x.clone().put_(index, s, accumulate=True), tokens(2, 3), tokens(3, start=10))
    check(
        lambda x, i, s: x.put(i, s), tokens(2, 3), tokens(2, draw=whole(6), start=10), tokens(2, start=20), exact=False
    )


def test_searching():
    check(lambda x: x.kthvalue(2, dim=1), tokens(2, 5), exact=False)
    check(lambda x: x.kthvalue(3, dim=0, keepdim=True)[0], tokens(4, 3), draws=12)
    rows = labelled(torch.randn(2, 4).double().sort()[0], torch.arange(20, 28).reshape(2, 4), None)
    rows = labelled(rows.value, rows.labels, lambda: torch.randn(2, 4).double().sort()[0])
    check(torch.searchsorted, rows, tokens(2, 3), exact=False, draws=10)
    check(lambda b, x: torch.searchsorted(b[0].contiguous(), x), rows, tokens(2, 3), exact=False, draws=10)
    check(lambda x: torch.bucketize(x, torch.arange(-1.0, 2.0).double()), tokens(2, 3), draws=10)
    seen = traced(torch.searchsorted, torch.arange(4.0).expand(2, 4).contiguous().double(), tokens(2, 3))
    assert torch.equal(seen.labels[0], tokens(2, 3).labels)


def test_positions_of_a_given_number():
    check(lambda x: torch.nonzero_static(x > 0, size=4), tokens(2, 3), exact=False, draws=10)


def test_counting_truths():
    check(lambda x: torch.ops.aten._is_all_true(x > -1), tokens(4), draws=20)
    check(lambda x: torch.ops.aten._is_any_true(x > 1), tokens(4), draws=20)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_embedding_bags(mode):
    offsets = torch.tensor([0, 2, 2])

    def call(i, w):
        return F.embedding_bag(i, w, offsets, mode=mode)

    check(call, tokens(5, draw=whole(6)), weight(6, 3), exact=False, draws=10)
    known = torch.tensor([0, 3, 3, 1, 5])
    check(lambda w: call(known, w), tokens(6, 3), draws=12)
    check(lambda i, w: F.embedding_bag(i, w, mode=mode), tokens(2, 3, along=0, draw=whole(6)), weight(6, 3), draws=10)


def test_embedding_bags_with_weights_and_the_last_end():
    ends, rows = torch.tensor([0, 2, 5]), torch.tensor([0, 3, 3, 1, 5])
    check(
        lambda w, s: F.embedding_bag(rows, w, ends, mode="sum", per_sample_weights=s, include_last_offset=True),
        tokens(6, 3), tokens(5, start=18),
    )  # fmt: skip


def test_a_table_that_is_renormalised():
    seen = traced(lambda i, w: F.embedding(i, w.clone(), max_norm=1.0), tokens(2, 3, draw=whole(6)), weight(6, 4))
    assert [hole.kind for hole in seen.reports.holes] == ["opaque op"]
    check(lambda w: F.embedding(torch.tensor([1, 4]), w.clone(), max_norm=1.0), tokens(6, 4), exact=False)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min"])
def test_segments(reduce):
    check(lambda x: torch.segment_reduce(x, reduce, lengths=torch.tensor([2, 3])), tokens(5, 2), draws=12)
    offsets = torch.tensor([0, 2, 5])
    check(lambda x: torch.segment_reduce(x, reduce, offsets=offsets), tokens(5, 2), exact=False)


def test_an_empty_segment():
    check(lambda x: torch.segment_reduce(x, "sum", lengths=torch.tensor([2, 0, 3])), tokens(5, 2))
    check(lambda x: torch.segment_reduce(x, "sum", lengths=torch.tensor([2, 0, 3])), tokens(5, 2, 3))


def test_repeats():
    check(lambda x: x.repeat_interleave(2, dim=1), tokens(2, 3))
    check(lambda x: x.repeat_interleave(torch.tensor([1, 0, 2]), dim=1), tokens(2, 3))
    check(lambda x: x.repeat_interleave(torch.tensor([1, 0, 2]), dim=1, output_size=3), tokens(2, 3))


@pytest.mark.parametrize("size", [0, 1])
def test_size_zero_and_one(size):
    check(lambda x: torch.masked_scatter(x, torch.ones(size, 2, dtype=torch.bool), x + 1), tokens(size, 2))
    check(lambda x: torch.searchsorted(torch.zeros(size).double(), x), tokens(2, 3), exact=False)
    check(lambda x: x.transpose_(0, 1) * 1, tokens(size, 2))
    check(lambda x: torch.segment_reduce(x, "sum", lengths=torch.tensor([size])), tokens(size, 2))


def test_reshape_that_copies_inside_an_op_of_parts():
    """Below autograd `reshape` comes to the mode whole, says that it is a view, and copies all the same."""
    shuffled = traced(lambda x: torch.nn.functional.pixel_shuffle(x, 2), tokens(1, 4, 2, 2))
    assert sorted(shuffled.labels[0].flatten().tolist()) == list(range(16))
