"""Fourier transforms: exact where no positions meet, a hole where they do."""

from functools import partial

import pytest
import torch

from leakcheck.flow.labels import HOLE
from tests.flow.rules.bruteforce import check, tokens, traced, weight

fft = torch.fft
ONE_DIMENSION = [fft.fft, fft.ifft, fft.rfft, fft.ihfft, fft.irfft, fft.hfft]


@pytest.mark.parametrize("call", ONE_DIMENSION)
def test_of_features_alone(call):
    check(lambda x: torch.view_as_real(call(x) + 0j), tokens(2, 3, 5, along=1), exact=False)
    seen = traced(call, tokens(2, 3, 5, along=1)).labels[0]
    assert torch.equal(seen, torch.arange(3)[:, None].expand(2, 3, seen.shape[-1]))


@pytest.mark.parametrize("call", ONE_DIMENSION)
def test_over_positions_is_a_hole(call):
    seen = traced(partial(call, dim=1), tokens(2, 4, 3, along=1))
    assert bool((seen.labels[0] == HOLE).all())
    assert {hole.kind for hole in seen.reports.holes} == {"opaque op"}
    assert seen.reports.holes.total() == 1


def test_over_several_dimensions():
    seen = traced(fft.fft2, tokens(2, 3, 4, along=0))
    assert not seen.reports.holes
    assert torch.equal(seen.labels[0], torch.arange(2)[:, None, None].expand(2, 3, 4))
    assert bool((traced(fft.fft2, tokens(2, 3, 4, along=1)).labels[0] == HOLE).all())
    assert bool((traced(fft.rfftn, tokens(2, 3, 4, along=2)).labels[0] == HOLE).all())


def test_only_the_rows_where_positions_meet():
    def call(x, w):
        return fft.rfft(torch.cat([x, w], 0), dim=1)

    seen = traced(call, tokens(2, 4, along=1), weight(3, 4)).labels[0]
    assert bool((seen[:2] == HOLE).all())
    assert bool((seen[2:] < 0).all())


def test_one_position_among_zeros():
    seen = traced(partial(fft.rfft, n=8, dim=1), tokens(3, 1, along=0))
    assert not seen.reports.holes
    assert torch.equal(seen.labels[0], torch.arange(3)[:, None].expand(3, 5))


def test_causal_convolution_is_a_hole_and_no_violation():
    def convolved(x, w):
        n = 2 * x.shape[-1]
        return fft.irfft(fft.rfft(x, n=n) * fft.rfft(w, n=n), n=n)[..., : x.shape[-1]]

    seen = traced(convolved, tokens(2, 6, along=1), weight(6))
    assert bool((seen.labels[0] == HOLE).all())


def test_size_one():
    check(lambda x: torch.view_as_real(fft.fft(x)), tokens(2, 1), exact=False)


def test_short_time():
    def call(x):
        return torch.stft(x, 4, hop_length=4, center=False, window=torch.ones(4).double(), return_complex=True)

    seen = traced(call, tokens(1, 8, along=1))
    assert bool((seen.labels[0] == HOLE).all())
    assert seen.labels[0].shape == (1, 3, 2)
