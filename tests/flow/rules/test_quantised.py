"""Quantised ops, with fixed scales and with the range of the whole tensor."""

import pytest
import torch
from torch import nn

from tests.flow.rules.bruteforce import check, tokens, traced, weight

pytestmark = pytest.mark.filterwarnings("ignore")


def single(*size: int) -> torch.Tensor:
    return torch.randn(*size)


def linear(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 3)), {nn.Linear}, dtype=dtype)


def per_tensor(x):
    return torch.quantize_per_tensor(x, 0.01, 0, torch.qint8)


def test_by_element():
    check(per_tensor, tokens(2, 3, draw=single))
    check(lambda x: per_tensor(x).dequantize(), tokens(2, 3, draw=single))
    check(lambda x: per_tensor(x).int_repr(), tokens(2, 3, draw=single), draws=8)
    check(lambda x: per_tensor(x)[:, 1:].reshape(-1).dequantize(), tokens(2, 3, draw=single))
    check(lambda x: torch.ops.quantized.add(per_tensor(x), per_tensor(x), 0.1, 0), tokens(2, 3, draw=single))
    check(lambda x: torch.fake_quantize_per_tensor_affine(x, 0.01, 0, -128, 127), tokens(2, 3, draw=single))
    check(
        lambda x, s: torch.fake_quantize_per_tensor_affine(x, s.abs()[0] + 0.01, torch.tensor(0), -128, 127),
        tokens(2, 3, draw=single), tokens(1, draw=single, start=6),
    )  # fmt: skip


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_by_channel(axis):
    shape = (2, 3, 4)

    def call(x, s):
        return torch.quantize_per_channel(x, s.abs() * 0.01 + 0.01, torch.zeros(shape[axis]), axis, torch.qint8)

    def fake(x, s):
        zero = torch.zeros(shape[axis], dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(x, s.abs() * 0.01 + 0.01, zero, axis, -128, 127)

    scales = tokens(shape[axis], draw=single, start=24)
    check(call, tokens(*shape, draw=single), scales, exact=False)
    check(fake, tokens(*shape, draw=single), scales, exact=False)
    assert torch.equal(
        traced(fake, tokens(*shape, draw=single), torch.ones(shape[axis])).labels[0], tokens(*shape).labels
    )


def test_dynamic_range_mixes_everything():
    given = tokens(2, 3, 4, along=1, draw=single)
    seen = check(linear(torch.qint8), given, exact=False, draws=8)
    assert bool((seen.labels[0] == 2).all())
    seen = check(lambda x: torch.quantize_per_tensor_dynamic(x, torch.qint8, False), given, exact=False, draws=8)
    assert bool((seen.labels[0] == 2).all())


def test_half_precision_weights_keep_rows_apart():
    check(linear(torch.float16), tokens(2, 3, 4, draw=single))


def test_fixed_scales_keep_rows_apart():
    module = torch.ao.nn.quantized.Linear(4, 3)
    module.set_weight_bias(torch.quantize_per_tensor(torch.randn(3, 4), 0.1, 0, torch.qint8), torch.zeros(3))
    module.scale = 0.01

    def call(x):
        return module(torch.quantize_per_tensor(x, 0.1, 0, torch.quint8)).dequantize()

    check(call, tokens(2, 3, 4, draw=single), exact=False)
    seen = traced(call, tokens(2, 3, 4, along=1, draw=single))
    assert torch.equal(seen.labels[0], torch.arange(3)[:, None].expand(2, 3, 3))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers_take_one_range_for_all_steps(kind):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = kind(4, 3)

        def forward(self, x):
            return self.layer(x)[0]

    torch.manual_seed(0)
    module = torch.ao.quantization.quantize_dynamic(Wrapped(), {kind}, dtype=torch.qint8)
    seen = check(module, tokens(5, 2, 4, along=0, draw=single), exact=False, draws=8)
    assert bool((seen.labels[0] == 4).all())


def test_integer_products():
    def integers(*size):
        return torch.randint(-100, 100, size, dtype=torch.int8)

    check(torch._int_mm, tokens(17, 8, draw=integers), torch.ones(8, 8, dtype=torch.int8))
    scaled = torch.ops.aten._weight_int8pack_mm
    check(
        lambda x, w: scaled(x, w, torch.ones(16, dtype=torch.bfloat16)),
        tokens(2, 32, draw=lambda *s: torch.randn(*s).bfloat16()), torch.ones(16, 32, dtype=torch.int8), exact=False,
    )  # fmt: skip
    assert weight(1).value.numel() == 1
