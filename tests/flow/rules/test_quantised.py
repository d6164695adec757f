"""Quantised ops, with fixed scales and with the range of the whole tensor."""

import pytest
import torch
from torch import nn

from leakcheck.flow.labels import KNOWN
from tests.flow.rules.bruteforce import check, labelled, tokens, traced, weight

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


PLANES = torch.tensor([[[KNOWN, 0, 4], [2, KNOWN, 3]], [[KNOWN, 5, 1], [0, 6, KNOWN]]])
ONE = {
    "aten::quantize_per_tensor": (),
    "quantized::add_scalar": (0.5,),
    "quantized::mul_scalar": (0.5,),
    "quantized::relu6": (),
    "quantized::hardswish": (0.1, 0),
    "quantized::leaky_relu": (0.1, False, 0.1, 0),
    "quantized::sigmoid": (0.1, 0),
    "quantized::elu": (0.1, 0),
}


def labels_of(call, *planes):
    return traced(call, *(labelled(single(*plane.shape), plane) for plane in planes)).labels[0]


@pytest.mark.parametrize("name", ONE)
def test_an_element_depends_on_what_is_in_its_place(name):
    op = getattr(torch.ops.quantized, name.partition("::")[2], lambda x: x)
    assert torch.equal(labels_of(lambda x: op(per_tensor(x), *ONE[name]), PLANES[0]), PLANES[0])
    assert torch.equal(labels_of(lambda x: op(per_tensor(x), *ONE[name]).dequantize(), PLANES[0]), PLANES[0])


@pytest.mark.parametrize("name", ["quantized::add", "quantized::add_relu", "quantized::mul", "quantized::mul_relu"])
def test_an_element_depends_on_both_in_its_place(name):
    op = getattr(torch.ops.quantized, name.partition("::")[2])
    seen = labels_of(lambda x, y: op(per_tensor(x), per_tensor(y), 0.1, 0), *PLANES)
    assert torch.equal(seen, PLANES.amax(0))


@pytest.mark.parametrize("name", ["aten::quantize_per_tensor.tensor_qparams", "aten::quantize_per_channel"])
def test_scales_and_zero_points_count(name):
    zero, scale = torch.zeros(2), torch.ones(2)
    if "channel" in name:
        expected = torch.tensor([[8, 8, 8], [9, 9, 9]])

        def call(x, more, number):
            chosen = [scale, zero]
            chosen[number] = chosen[number] + (more - 1)
            return torch.quantize_per_channel(x, *chosen, 0, torch.qint8)

    else:
        expected = torch.full((2, 3), 9)

        def call(x, more, number):
            chosen = [scale[0], zero[0].int()]
            chosen[number] = (chosen[number] + (more[1] - 1)).to(chosen[number].dtype)
            return torch.quantize_per_tensor(x, *chosen, torch.qint8)

    for number in (0, 1):
        more = labelled(torch.ones(2), torch.tensor([8, 9]))
        seen = traced(lambda x, m, n=number: call(x, m, n), labelled(single(2, 3), PLANES[0]), more)
        assert torch.equal(seen.labels[0], expected)


@pytest.mark.parametrize("name", ["quantized::linear", "quantized::linear_relu"])
def test_a_row_depends_on_its_own_numbers(name):
    packed = torch.ops.quantized.linear_prepack(per_tensor(torch.randn(4, 3)), torch.zeros(4))
    op = getattr(torch.ops.quantized, name.partition("::")[2])
    quantised = lambda x: torch.quantize_per_tensor(x, 0.01, 64, torch.quint8)  # noqa: E731
    seen = labels_of(lambda x: op(quantised(x), packed, 0.1, 64), PLANES[0])
    assert torch.equal(seen, torch.tensor([[4], [3]]).expand(2, 4))


@pytest.mark.parametrize("name", ["quantized::linear_dynamic", "quantized::linear_relu_dynamic"])
def test_a_range_is_of_all_rows(name):
    packed = torch.ops.quantized.linear_prepack(per_tensor(torch.randn(4, 3)), torch.zeros(4))
    op = getattr(torch.ops.quantized, name.partition("::")[2])
    assert torch.equal(labels_of(lambda x: op(x, packed), PLANES[0]), torch.full((2, 4), 4))


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
            return self.layer(x)

    torch.manual_seed(0)
    module = torch.ao.quantization.quantize_dynamic(Wrapped(), {kind}, dtype=torch.qint8)
    seen = check(module, tokens(5, 2, 4, along=0, draw=single), exact=False, draws=8)
    assert len(seen.labels) == (3 if kind is nn.LSTM else 2)
    assert all(bool((labels == 4).all()) for labels in seen.labels)


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
