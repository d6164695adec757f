"""How the ops of the larger kernels are called: convolutions, norms, pooling, factorisations, random and quantised ops.

As `samples.py`. A program is a sample whose op is called in passing: its arguments are quantised, packed or in single
precision.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from tests.flow.conformance.spec import (
    Sample,
    cx,
    divisor,
    finite,
    flags,
    ints,
    positive,
    program,
    random,
    sample,
    sound,
    unit,
    x,
)  # fmt: skip

quantized = torch.ops.quantized


def _conv(shape: tuple[int, ...], weight: tuple[int, ...], *, stride: int = 1, pad: int = 0, dilation: int = 1,
          transposed: bool = False, groups: int = 1) -> Sample:  # fmt: skip
    """`[batch, channels, *length]` with a bias of one for each output channel."""
    n = len(shape) - 2
    bias = x(weight[1] * groups if transposed else weight[0])
    return sample(
        "aten::convolution", finite(*shape), finite(*weight), bias,
        [stride] * n, [pad] * n, [dilation] * n, transposed, [0] * n, groups,
    )  # fmt: skip


CONVOLUTION = [
    _conv((1, 2, 5), (3, 2, 2)),
    _conv((1, 2, 5), (3, 2, 2), pad=1),
    _conv((2, 1, 6), (1, 1, 2), stride=2, dilation=2),
    _conv((1, 4, 4), (4, 1, 2), pad=1, groups=4),
    _conv((1, 2, 3), (2, 3, 2), stride=2, transposed=True),
    _conv((1, 2, 3), (2, 1, 2), pad=1, transposed=True, groups=2),
    _conv((1, 1, 3, 4), (2, 1, 2, 2), pad=1),
    sample("aten::convolution", finite(1, 2, 4), finite(2, 2, 3).generic, None, [1], [2], [1], False, [0], 1),
    sample(
        "aten::_convolution", finite(1, 2, 4), finite(3, 2, 2), x(3), [1], [1], [1], False, [0], 1, False, False, True, True
    ),
    sample("aten::conv_tbc", finite(4, 1, 2), finite(2, 2, 3), x(3), 1),
    sample("aten::_slow_conv2d_forward", finite(1, 1, 3, 4), finite(2, 1, 2, 2), [2, 2], x(2), [1, 1], [1, 0]),
    sample("aten::slow_conv3d_forward", finite(1, 1, 2, 3, 2), finite(2, 1, 2, 2, 1), [2, 2, 1], x(2), [1, 1, 1], [0, 1, 0]),
    sample("aten::slow_conv_dilated2d", finite(1, 1, 3, 4), finite(2, 1, 2, 2), [2, 2], x(2), [1, 1], [0, 0], [1, 2]),
    sample("aten::slow_conv_dilated3d", finite(1, 1, 2, 3, 3), finite(1, 1, 1, 2, 2), [1, 2, 2], x(1), [1, 1, 1], [0, 0, 0], [1, 1, 1]),
    program(
        "aten::mkldnn_convolution",
        lambda a, w, b: torch.ops.aten.mkldnn_convolution(a.float(), w.float(), b.float(), [1], [1], [1], 1),
        finite(1, 2, 4), finite(3, 2, 2), x(3),
    ),
]  # fmt: skip

NORMS = [
    sample("aten::native_layer_norm", divisor(2, 3, 2), [2], divisor(2), divisor(2), 1e-5),
    sample("aten::native_layer_norm", x(2, 3, 2), [3, 2], None, None, 1e-5),
    sample("aten::native_layer_norm", x(2, 4), [4], divisor(4).generic, None, 1e-5),
    sample("aten::_fused_rms_norm", divisor(2, 3), [3], divisor(3), 1e-5),
    sample("aten::_fused_rms_norm", divisor(2, 3), [3], None, None),
    sample("aten::native_group_norm", divisor(2, 4, 2), divisor(4), divisor(4), 2, 4, 2, 2, 1e-5),
    sample("aten::native_group_norm", divisor(1, 4, 2), None, None, 1, 4, 2, 4, 1e-5),
    sample("aten::native_batch_norm", x(3, 2), divisor(2), divisor(2), None, None, True, 0.1, 1e-5),
    sample("aten::native_batch_norm", x(3, 2), divisor(2), divisor(2), divisor(2), positive(2), False, 0.1, 1e-5),
    sample(
        "aten::_native_batch_norm_legit", x(3, 2), divisor(2), divisor(2), divisor(2), positive(2), False, 0.1, 1e-5
    ),
    sample("aten::_native_batch_norm_legit", x(3, 2), divisor(2), divisor(2), divisor(2), positive(2), True, 0.1, 1e-5),
    sample("aten::_native_batch_norm_legit.no_stats", x(3, 2, 2), divisor(2), divisor(2), True, 0.1, 1e-5),
    sample(
        "aten::_native_batch_norm_legit_functional",
        x(3, 2),
        divisor(2),
        divisor(2),
        divisor(2),
        positive(2),
        True,
        0.1,
        1e-5,
    ),
    sample(
        "aten::_native_batch_norm_legit_functional",
        x(3, 2),
        divisor(2),
        divisor(2),
        divisor(2),
        positive(2),
        False,
        0.1,
        1e-5,
    ),
    sample(
        "aten::_native_batch_norm_legit_no_training",
        x(3, 2),
        divisor(2),
        divisor(2),
        divisor(2),
        positive(2),
        0.1,
        1e-5,
    ),
    sample("aten::_batch_norm_no_update", x(3, 2), divisor(2), divisor(2), divisor(2), positive(2), 0.1, 1e-5),
    sample("aten::_batch_norm_with_update", x(3, 2), divisor(2), divisor(2), divisor(2), positive(2), 0.1, 1e-5),
]

POOLING = [
    sample("aten::avg_pool2d", x(1, 1, 3, 4), [2, 2], [1, 2]),
    sample("aten::avg_pool2d", x(1, 2, 3, 3), [2, 2], [2, 2], [1, 1], True, False),
    sample("aten::avg_pool3d", x(1, 1, 2, 3, 2), [2, 2, 1]),
    sample("aten::adaptive_max_pool2d", x(1, 1, 3, 5), [2, 3]),
    sample("aten::adaptive_max_pool3d", x(1, 1, 2, 3, 2), [1, 2, 2]),
    sample("aten::_adaptive_avg_pool3d", x(1, 1, 2, 3, 3), [2, 2, 2]),
    sound(sample("aten::_upsample_bilinear2d_aa", x(1, 1, 3, 4), [2, 5], False)),
    sound(sample("aten::_upsample_bicubic2d_aa", x(1, 1, 3, 4), [2, 5], True)),
    sample("aten::grid_sampler_3d", finite(1, 2, 2, 2, 2), finite(1, 1, 2, 1, 3), 0, 0, False),
]

LINALG = [
    sample("aten::linalg_solve_triangular", divisor(3, 3), finite(3, 2), upper=False),
    sample("aten::linalg_solve_triangular", divisor(2, 2, 2), finite(2, 2, 3), upper=True),
    sample("aten::linalg_solve_triangular", divisor(2, 2), finite(3, 2), upper=True, left=False, unitriangular=True),
    sample("aten::triangular_solve", finite(3, 2), divisor(3, 3)),
    sample("aten::triangular_solve", finite(3, 2), divisor(3, 3), False, True),
    sound(sample("aten::_linalg_solve_ex", divisor(3, 3), finite(3, 2))),
    sound(sample("aten::linalg_inv_ex", divisor(2, 3, 3))),
    sample("aten::linalg_matrix_exp", finite(2, 2, 2)),
    *(
        sound(program(f"aten::{name}", lambda a, op=op: op(a @ a.mT + 9 * torch.eye(3, dtype=torch.float64)), finite(2, 3, 3)))
        for name, op in (
            ("linalg_cholesky_ex", torch.linalg.cholesky_ex), ("cholesky", torch.cholesky),
            ("cholesky_inverse", torch.cholesky_inverse),
        )
    ),
    program("aten::cholesky_solve", lambda b, a: torch.cholesky_solve(b, a.tril()), finite(3, 2), divisor(3, 3)),
    sample("aten::linalg_lu", finite(3, 3)),
    sample("aten::linalg_lu_factor_ex", finite(3, 3)),
    program("aten::linalg_lu_solve", lambda a, b: torch.linalg.lu_solve(*torch.linalg.lu_factor(a), b), finite(3, 3), finite(3, 2)),
    sample("aten::linalg_qr", finite(3, 2)),
    sample("aten::_linalg_svd", finite(3, 2)),
    sample("aten::_linalg_eigh", finite(3, 3)),
    sample("aten::linalg_eig", finite(3, 3)),
    sample("aten::_linalg_eigvals", finite(3, 3)),
    sample("aten::_linalg_det", finite(2, 3, 3)),
    sample("aten::_linalg_slogdet", finite(3, 3)),
    sample("aten::linalg_ldl_factor_ex", finite(3, 3)),
    sample("aten::linalg_lstsq", finite(3, 2), finite(3, 1)),
    sample("aten::linalg_householder_product", finite(3, 2), finite(2)),
    sample("aten::linalg_householder_product", finite(2, 2, 2, 1), finite(2, 2, 1)),
    sample("aten::linalg_pinv.atol_rtol_tensor", finite(3, 2)),
    sample("aten::_cdist_forward", finite(3, 2), finite(4, 2), 2.0, None),
    sample("aten::_cdist_forward", finite(2, 3, 2), finite(2, 2, 2), 1.0, None),
    sample("aten::_pdist_forward", finite(4, 2)),
    sample("aten::_trilinear", divisor(2, 3), divisor(2, 3, 2), divisor(2, 2), [1, 3], [0], [1, 2], [2, 3]),
]  # fmt: skip

FFT = [
    sample("aten::_fft_r2c", finite(2, 4), [1], 0, True),
    sample("aten::_fft_r2c", finite(2, 3), [0, 1], 1, False),
    sample("aten::_fft_c2c", cx(2, 3), [1], 0, True),
    sample("aten::_fft_c2c", cx(2, 3), [0], 2, False),
    sample("aten::_fft_c2r", cx(2, 3), [1], 2, 4),
]

MOVING = [
    sample("aten::_embedding_bag", finite(5, 2), ints(6, high=5), torch.tensor([0, 2, 2])),
    sample("aten::_embedding_bag", finite(5, 2), ints(4, high=5), torch.tensor([0, 1]), False, 2),
    sample("aten::_embedding_bag", finite(5, 2), ints(4, high=5), torch.tensor([0, 1]), False, 0, False, finite(4)),
    sample("aten::_embedding_bag_forward_only", finite(5, 2), ints(4, high=5), torch.tensor([0, 3]), False, 1),
    sound(sample("aten::embedding_renorm", finite(4, 2), ints(3, high=4), 1.0, 2.0)),
    sound(sample("aten::segment_reduce", finite(5, 2), "sum", lengths=torch.tensor([2, 3]))),
    sound(sample("aten::segment_reduce", finite(5, 2), "max", lengths=torch.tensor([2, 0, 3]))),
    sample("aten::_pack_padded_sequence", x(4, 2, 2), torch.tensor([4, 2]), False),
    sample("aten::transpose_", x(2, 3), 0, 1),
    sample("aten::as_strided_", x(2, 3), (3, 2), (1, 3)),
    sample("aten::select_copy.int", x(2, 3), 1, -1),
    sample("aten::slice_copy.Tensor", x(2, 5), 1, 1, 5, 2),
    sample("aten::split_copy.Tensor", x(2, 5), 2, 1),
    sample("aten::view_as_complex_copy", x(3, 2)),
    sample("aten::set_.source_Tensor", x(2), x(3)),
    sound(sample("aten::masked_scatter", x(2, 3), flags(2, 3), x(6))),
    sample("aten::masked_scatter", x(2, 3), torch.tensor([True, False, True]), x(5)),
    sample("aten::put", x(2, 3), ints(2, low=-6, high=6), x(2), True),
    sound(sample("aten::put", x(2, 3), ints(2, high=6), x(2))),
    sample("aten::kthvalue", x(2, 3), 2),
    sample("aten::kthvalue", x(4), 1, 0, True),
    sample("aten::searchsorted.Tensor", torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64), x(2, 3)),
    sound(sample("aten::searchsorted.Tensor", x(3), x(2, 3))),
    sound(sample("aten::_is_all_true", flags(2, 2))),
    sample("aten::_is_any_true", flags(2, 2)),
    sound(sample("aten::nonzero_static", ints(4, high=2), size=3)),
]

RANDOM = random(
    sample("aten::normal_", x(3)),
    sample("aten::normal_functional", x(3)),
    sample("aten::uniform", x(3)),
    sample("aten::exponential", x(3)),
    sample("aten::geometric", x(3), 0.5),
    sample("aten::cauchy", x(3)),
    sample("aten::log_normal", x(3)),
    sample("aten::random.from", ints(3, high=9), 2, 9),
    sample("aten::bernoulli_.float", x(3)),
    sample("aten::bernoulli.p", x(3), 0.5),
    sample("aten::bernoulli", unit(2, 3)),
    sample("aten::normal.Tensor_Tensor", x(2, 3), positive(2, 3)),
    sample("aten::normal.Tensor_float", x(2, 3)),
    sample("aten::bernoulli_.Tensor", x(2, 3), unit(2, 3)),
    sample("aten::bernoulli.Tensor", x(2, 3), unit(2, 3)),
    sound(sample("aten::multinomial", positive(2, 3), 2)),
    sound(sample("aten::rrelu_with_noise", x(2, 3), x(2, 3), 0.1, 0.3, True)),
)


def _q(value: Tensor) -> Tensor:
    return torch.quantize_per_tensor(value.float(), 0.01, 0, torch.qint8)


def _linear(op: str, packed: Any, *more: Any) -> Sample:
    def call(a: Tensor) -> Tensor:
        a = a.float()
        a = a if "dynamic" in op else torch.quantize_per_tensor(a, 0.1, 64, torch.quint8)
        made = getattr(quantized, op)(a, packed(), *more)
        return made if "dynamic" in op else made.dequantize()

    return sound(program(f"quantized::{op}", call, finite(2, 4)))


def _weight() -> Tensor:
    return torch.linspace(-1, 1, 12).reshape(3, 4)


def _integer_weight() -> Any:
    return quantized.linear_prepack(torch.quantize_per_tensor(_weight(), 0.1, 0, torch.qint8), torch.zeros(3))


def _half_weight() -> Any:
    return quantized.linear_prepack_fp16(_weight(), torch.zeros(3))


def _recurrent(kind: Any) -> Any:
    torch.manual_seed(0)
    layer = torch.ao.quantization.quantize_dynamic(nn.ModuleDict({"of": kind(2, 3)}), {kind}, dtype=torch.qint8)["of"]
    return lambda a: layer(a.float())[0]


def _fused_layer(a: Tensor) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    w = [torch.randn(*shape, generator=generator) for shape in ((8, 2), (8, 2), (8,), (8,))]
    zero = torch.zeros(1, 2)
    return torch.ops.aten.mkldnn_rnn_layer(a.float(), *w, zero, zero, False, [], 2, 2, 1, True, False, False, False)[:3]


def _observed(a: Tensor) -> Tensor:
    on, low, high = torch.ones(1, dtype=torch.int64), torch.full((1,), -3.0), torch.full((1,), 3.0)
    scale, zero = torch.ones(1), torch.zeros(1, dtype=torch.int32)
    op = torch.ops.aten._fused_moving_avg_obs_fq_helper
    return op(a.float(), on, on, low, high, scale, zero, 0.1, -128, 127, 0)[0]


_SHAPES = (
    (6, 2),
    (6,),
    (2, 2),
    (2,),
    (2,),
    (2,),
    (2,),
    (2,),
    (3, 2),
    (3,),
    (2, 3),
    (2,),
)  # of an encoder layer's weights
_WEIGHTS = [torch.linspace(-1, 1, math.prod(shape), dtype=torch.float64).cos().reshape(shape) for shape in _SHAPES]


def _encoder_layer(a: Tensor, mask: Tensor | None, *weights: Tensor) -> Tensor:
    w = weights or _WEIGHTS
    kind = None if mask is None else 0
    return torch.ops.aten._transformer_encoder_layer_fwd(a, 2, 1, *w[:4], False, False, 1e-5, *w[4:], mask, kind)


def _multi_head(a: Tensor, mask: Tensor | None, *weights: Tensor) -> Tensor:
    kind = None if mask is None else 0
    op = torch.ops.aten._native_multi_head_attention
    return op(a, a, a, 2, 1, *(weights or _WEIGHTS[:4]), mask, False, True, kind)[0]


def _grouped(a: Tensor, b: Tensor, ends: Tensor) -> Tensor:
    return torch.ops.aten._grouped_mm(a.bfloat16(), b.bfloat16(), ends)


def _later(n: int) -> Tensor:
    return torch.ones(n, n, dtype=torch.bool).triu(1)


FUSED = [
    *(sound(program("aten::_transformer_encoder_layer_fwd", lambda a, m=mask: _encoder_layer(a, m), finite(1, 3, 2)))
      for mask in (None, _later(3))),
    *(sound(program("aten::_native_multi_head_attention", lambda a, m=mask: _multi_head(a, m), finite(1, 3, 2)))
      for mask in (None, _later(3))),
    sound(program("aten::_transformer_encoder_layer_fwd", lambda a, *w: _encoder_layer(a, None, *w),
                  finite(1, 2, 2), *(finite(*shape) for shape in _SHAPES))),
    sound(program("aten::_native_multi_head_attention", lambda a, *w: _multi_head(a, None, *w),
                  finite(1, 2, 2), *(finite(*shape) for shape in _SHAPES[:4]))),
    sound(program("aten::mkldnn_rnn_layer", _fused_layer, finite(3, 1, 2))),
    sound(program("aten::_grouped_mm", lambda a, b: _grouped(a, b, torch.tensor([1, 3], dtype=torch.int32)),
                  finite(3, 8), finite(2, 8, 8))),
    sound(program("aten::_grouped_mm", lambda a, b, k: _grouped(a, b, k.cumsum(0).int()),
                  finite(4, 8), finite(2, 8, 8), ints(2, high=3))),
]  # fmt: skip

QUANTISED = [
    program("aten::quantize_per_tensor", lambda a: torch.quantize_per_tensor(a.float(), 0.01, 0, torch.qint8).int_repr(), x(2, 3)),
    program("aten::int_repr", lambda a: _q(a).int_repr(), x(2, 3)),
    program("aten::dequantize.self", lambda a: _q(a).dequantize(), x(2, 3)),
    program("aten::quantize_per_tensor.tensor_qparams",
            lambda a, s: torch.quantize_per_tensor(a.float(), s.float(), torch.tensor(0), torch.qint8).dequantize(),
            x(2, 3), positive().known),
    sound(program("aten::quantize_per_channel",
                  lambda a, s: torch.quantize_per_channel(a.float(), s, torch.zeros(3), 1, torch.qint8).dequantize(),
                  x(2, 3), positive(3))),
    sound(sample("aten::fake_quantize_per_tensor_affine_cachemask", x(2, 3), 0.01, 0, -128, 127)),
    sound(program("aten::_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
                  lambda a, s: torch.fake_quantize_per_tensor_affine(a.float(), s.float(), torch.tensor(0), -128, 127),
                  x(2, 3), positive())),
    sound(program("aten::fake_quantize_per_channel_affine_cachemask",
                  lambda a, s: torch.fake_quantize_per_channel_affine(
                      a.float(), s.float(), torch.zeros(3, dtype=torch.int32), 1, -128, 127),
                  x(2, 3), positive(3))),
    *(sound(program(f"quantized::{name}", lambda a, b, op=name: getattr(quantized, op)(_q(a), _q(b), 0.1, 0).dequantize(),
                    finite(2, 3), finite(2, 3)))
      for name in ("add", "add_relu", "mul", "mul_relu")),
    *(sound(program(f"quantized::{name}", lambda a, op=name, m=more: getattr(quantized, op)(_q(a), *m).dequantize(), finite(2, 3)))
      for name, more in (("add_scalar", (0.5,)), ("mul_scalar", (0.5,)), ("relu6", ()), ("hardswish", (0.1, 0)),
                         ("leaky_relu", (0.1, False, 0.1, 0)), ("sigmoid", (0.1, 0)), ("elu", (0.1, 0)))),
    _linear("linear", _integer_weight, 0.1, 64),
    _linear("linear_relu", _integer_weight, 0.1, 64),
    _linear("linear_dynamic", _integer_weight),
    _linear("linear_relu_dynamic", _integer_weight),
    _linear("linear_dynamic_fp16", _half_weight),
    _linear("linear_relu_dynamic_fp16", _half_weight),
    program("aten::quantize_per_tensor_dynamic", lambda a: torch.quantize_per_tensor_dynamic(a.float(), torch.qint8, False).dequantize(), finite(2, 3)),
    program("aten::quantized_lstm", _recurrent(nn.LSTM), finite(3, 1, 2)),
    program("aten::quantized_gru", _recurrent(nn.GRU), finite(3, 1, 2)),
    program("aten::_fused_moving_avg_obs_fq_helper", _observed, finite(2, 3)),
    program("aten::_int_mm", lambda a, b: torch._int_mm(a.to(torch.int8).repeat(9, 4), b.to(torch.int8).repeat(4, 8)),
            ints(2, 2, high=9), ints(2, 1, high=9)),
    sound(program("aten::_weight_int8pack_mm",
                  lambda a, s: torch.ops.aten._weight_int8pack_mm(
                      a.bfloat16().repeat(1, 16), torch.ones(16, 32, dtype=torch.int8), s.bfloat16().repeat(8)),
                  finite(2, 2), finite(2))),
]  # fmt: skip

KERNELS: list[Sample] = [
    *CONVOLUTION, *NORMS, *POOLING, *LINALG, *FFT, *MOVING, *RANDOM, *FUSED, *QUANTISED,
]  # fmt: skip
