"""Convolutions against brute force: every option, masked kernels, size 0 and 1."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from leakcheck.flow.labels import ZERO
from tests.flow.rules.bruteforce import NOTHING, check, labelled, tokens, traced, weight

aten = torch.ops.aten

OPTIONS = [
    {"stride": 1, "padding": 0, "dilation": 1, "groups": 1},
    {"stride": 2, "padding": 1, "dilation": 1, "groups": 2},
    {"stride": 1, "padding": 2, "dilation": 2, "groups": 4},
    {"stride": 3, "padding": 0, "dilation": 2, "groups": 1},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_one_dimension(options):
    kernel = weight(8, 4 // options["groups"], 3)
    check(partial(F.conv1d, **options), tokens(2, 4, 9), kernel, weight(8))
    check(partial(F.conv1d, **options), tokens(1, 4, 9, along=2), kernel)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("output_padding", [0, 1])
def test_one_dimension_transposed(options, output_padding):
    if output_padding >= max(options["stride"], options["dilation"]):
        pytest.skip("torch refuses it")
    call = partial(F.conv_transpose1d, output_padding=output_padding, **options)
    check(call, tokens(2, 4, 5), weight(4, 8 // options["groups"], 3), weight(8))


def test_two_and_three_dimensions_with_unlike_options():
    check(partial(F.conv2d, stride=(2, 1), padding=(1, 2), dilation=(1, 2)), tokens(1, 2, 5, 6), weight(3, 2, 2, 3))
    check(partial(F.conv3d, stride=(1, 2, 1), padding=(1, 0, 0)), tokens(1, 2, 3, 4, 2), weight(2, 2, 2, 3, 1), draws=2)
    check(partial(F.conv_transpose2d, stride=(2, 1), padding=(0, 1)), tokens(1, 2, 2, 3), weight(2, 3, 2, 3), weight(3))
    check(partial(F.conv_transpose3d, stride=(1, 2, 1)), tokens(1, 2, 2, 2, 1), weight(2, 1, 1, 3, 2), draws=2)


def test_padding_of_every_kind():
    check(partial(F.conv1d, padding="same"), tokens(1, 2, 6), weight(2, 2, 4))
    check(lambda x, w: F.conv1d(F.pad(x, (3, 0)), w, groups=2), tokens(1, 2, 6, along=2), weight(2, 1, 4))
    check(lambda x, w: F.conv1d(F.pad(x, (1, 1), "circular"), w), tokens(1, 2, 6, along=2), weight(2, 2, 3))


def test_unbatched():
    check(F.conv1d, tokens(2, 5), weight(3, 2, 2))
    check(F.conv_transpose1d, tokens(2, 5), weight(2, 3, 2))


def test_zeros_of_a_masked_kernel_block():
    kernel = torch.randn(3, 2, 5, dtype=torch.float64)
    kernel[:, :, 3:] = 0  # no tap to the right
    kernel[1, 0] = 0
    seen = check(partial(F.conv1d, padding=2), tokens(1, 2, 7), kernel)
    assert int(seen.labels[0][0, 0, 0]) >= 0
    check(lambda x, w: F.conv1d(x, w * (torch.arange(5) < 3), padding=2), tokens(1, 2, 7, along=2), weight(3, 2, 5))
    check(partial(F.conv_transpose1d, padding=1), tokens(1, 2, 4), torch.randn(2, 2, 3).double().tril())


def test_tokens_in_the_kernel_and_in_the_bias():
    check(F.conv1d, tokens(2, 2, 5), tokens(3, 2, 2, start=20), tokens(3, start=40))
    check(partial(F.conv1d, groups=2), weight(1, 2, 5), tokens(4, 1, 2), tokens(4, start=8))


def test_time_first():
    check(partial(torch.conv_tbc, pad=1), tokens(5, 2, 3), weight(2, 3, 4), weight(4))


def test_other_names_of_the_kernel():
    x, w, b = tokens(1, 2, 4, 5), weight(3, 2, 2, 3), weight(3)
    check(lambda x, w, b: aten._slow_conv2d_forward(x, w, [2, 3], b, [2, 1], [1, 0]), x, w, b)
    check(lambda x, w, b: aten.slow_conv_dilated2d(x, w, [2, 3], b, [1, 1], [1, 0], [2, 1]), x, w, b)
    check(
        lambda x, w, b: aten.slow_conv3d_forward(x, w, [2, 3, 1], b, [1, 1, 1], [1, 0, 0]),
        tokens(1, 2, 2, 3, 2), weight(3, 2, 2, 3, 1), b,
    )  # fmt: skip


def test_single_precision_by_mkldnn():
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch was built without it")

    def single(*size):
        return torch.randn(*size)

    x = tokens(1, 2, 4, 5, draw=single)
    check(lambda x: aten.mkldnn_convolution(x, torch.ones(4, 1, 2, 3), None, [1, 0], [2, 1], [1, 1], 2), x, exact=False)


def test_into_a_given_tensor():
    def call(x, w):
        out = x.new_empty(1, 3, 4)
        aten.convolution.out(x, w, None, [1], [0], [1], False, [0], 1, out=out)
        return out

    check(call, tokens(1, 2, 5), weight(3, 2, 2))


@pytest.mark.parametrize("shape", [(0, 2, 5), (1, 2, 1)])
def test_size_zero_and_one(shape):
    check(F.conv1d, tokens(*shape), weight(3, 2, 1), weight(3))
    check(partial(F.conv1d, padding=1), tokens(*shape), weight(3, 2, 3))


def test_what_lies_in_the_padding_alone_is_zero():
    x = tokens(1, 1, 2)
    seen = traced(partial(F.conv1d, padding=3), x, weight(1, 1, 2)).labels[0][0, 0]
    assert seen.tolist() == [ZERO, ZERO, 0, max(x.labels.flatten().tolist()), 1, ZERO, ZERO]


def test_one_channel_alone():
    labels = torch.full((1, 3, 5), 0)
    labels[0, 2, 4] = 7
    check(partial(F.conv1d, groups=3), labelled(torch.randn(1, 3, 5, dtype=torch.float64), labels), weight(3, 1, 2))
    assert NOTHING < 0


def test_patches():
    check(partial(F.unfold, kernel_size=(2, 3), dilation=(1, 2), padding=1, stride=(2, 1)), tokens(2, 3, 5, 6))
    check(partial(F.fold, output_size=(5, 6), kernel_size=(2, 2), stride=(1, 2)), tokens(1, 8, 12))
