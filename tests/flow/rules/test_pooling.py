"""Pooling, padding and resizing against brute force; most come as other ops, some have rules."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from tests.flow.rules.bruteforce import check, tokens, traced, weight

SHAPES = {1: (2, 3, 7), 2: (1, 2, 5, 4), 3: (1, 1, 4, 3, 5)}
MODES = {
    1: ("nearest", "nearest-exact", "linear", "area"),
    2: ("nearest", "nearest-exact", "bilinear", "bicubic", "area"),
    3: ("nearest", "nearest-exact", "trilinear", "area"),
}


@pytest.mark.parametrize("space", SHAPES)
@pytest.mark.parametrize("options", [{}, {"stride": 1, "padding": 1}, {"stride": 2, "ceil_mode": True}])
def test_average(space, options):
    check(partial(getattr(F, f"avg_pool{space}d"), kernel_size=3, **options), tokens(*SHAPES[space]))


def test_average_with_unlike_options():
    call = partial(F.avg_pool2d, kernel_size=(2, 3), stride=(1, 2), padding=(1, 0), count_include_pad=False)
    check(call, tokens(2, 2, 4, 7))
    check(partial(F.avg_pool2d, kernel_size=2, divisor_override=3), tokens(2, 4, 5))


@pytest.mark.parametrize("space", SHAPES)
@pytest.mark.parametrize("options", [{}, {"stride": 1, "padding": 1}, {"stride": 2, "ceil_mode": True}])
def test_maximum(space, options):
    call = partial(getattr(F, f"max_pool{space}d"), kernel_size=2, **options)
    check(call, tokens(*SHAPES[space]), draws=8)
    check(partial(call, return_indices=True), tokens(*SHAPES[space]), exact=False)


def test_maximum_dilated():
    check(partial(F.max_pool1d, kernel_size=2, dilation=3, stride=1), tokens(1, 2, 7), draws=16)


@pytest.mark.parametrize("space", SHAPES)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_adaptive(space, size):
    check(partial(getattr(F, f"adaptive_avg_pool{space}d"), output_size=size), tokens(*SHAPES[space]), draws=2)
    call = partial(getattr(F, f"adaptive_max_pool{space}d"), output_size=size)
    check(call, tokens(*SHAPES[space]), draws=8)
    check(partial(call, return_indices=True), tokens(*SHAPES[space]), exact=False)


def test_undone():
    index = torch.tensor([[[0, 2], [1, 3], [0, 3]]])
    check(lambda x: F.max_unpool1d(x, index, 2), tokens(1, 3, 2))


@pytest.mark.parametrize("space", SHAPES)
@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding(space, mode):
    check(partial(F.pad, pad=(2, 1) * space, mode=mode), tokens(*SHAPES[space]), draws=2)


@pytest.mark.parametrize(("space", "mode"), [(space, mode) for space, modes in MODES.items() for mode in modes])
def test_resizing(space, mode):
    corners = [None] if mode in ("nearest", "nearest-exact", "area") else [True, False]
    for align in corners:
        for scale in ({"scale_factor": 1.7}, {"size": (2,) * space}):
            call = partial(F.interpolate, mode=mode, align_corners=align, **scale)
            check(call, tokens(*SHAPES[space]), draws=2, exact=align is None)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("scale", [{"scale_factor": 1.5}, {"size": (2, 5)}, {"size": (3, 2), "align_corners": True}])
def test_smooth_resizing(mode, scale):
    check(partial(F.interpolate, mode=mode, antialias=True, **scale), tokens(1, 2, 5, 4))


def test_rearranging():
    check(partial(F.pixel_shuffle, upscale_factor=2), tokens(2, 4, 2, 3))
    check(partial(F.pixel_unshuffle, downscale_factor=2), tokens(2, 1, 4, 6))
    check(partial(F.channel_shuffle, groups=2), tokens(2, 4, 2, 3))


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_sampling_a_plane(mode):
    grid = torch.rand(1, 2, 2, 2, dtype=torch.float64) - 0.5
    check(partial(F.grid_sample, mode=mode, align_corners=True), tokens(1, 2, 3, 4), grid, exact=mode != "bicubic")


def test_sampling_a_volume_at_unknown_places():
    where = tokens(1, 2, 1, 2, 3, draw=lambda *s: torch.rand(*s, dtype=torch.float64) * 2 - 1)
    check(partial(F.grid_sample, align_corners=True), weight(1, 2, 3, 4, 2), where)
    check(partial(F.grid_sample, align_corners=True), tokens(1, 2, 2, 2, 2, start=20), where, exact=False)


@pytest.mark.parametrize("shape", [(0, 2, 5), (1, 2, 1)])
def test_size_zero_and_one(shape):
    check(partial(F.avg_pool1d, kernel_size=1), tokens(*shape))
    check(partial(F.adaptive_avg_pool3d, output_size=2), tokens(shape[0], 1, *shape[1:]))


def test_one_position_later_is_not_in_the_window():
    seen = traced(lambda x: F.avg_pool1d(F.pad(x, (2, 0)), 3, 1), tokens(1, 1, 5, along=2))
    assert seen.labels[0].flatten().tolist() == [0, 1, 2, 3, 4]
