"""How each registered op is called; one line makes one more sample.

`x(2, 3)` and its like are tensors that take all patterns of labels, also known ones with zeros and with blocking values
(`cases.py`). `.known` and `.generic` fix that; a tensor is known as it stands.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tests.flow.conformance.samples_kernels import KERNELS
from tests.flow.conformance.samples_programs import PROGRAMS
from tests.flow.conformance.spec import (
    Sample,
    Spec,
    cx,
    divisor,
    finite,
    flags,
    ints,
    negative,
    permutation,
    positive,
    random,
    sample,
    sound,
    unit,
    x,
)  # fmt: skip

inf, lowest = math.inf, torch.finfo(torch.float64).min
MASKS = (-inf, lowest, -1e30)  # what blocks for good

# Not tried, with the reason.
EXEMPT: dict[str, str] = {
    "aten::_linalg_check_errors": "it returns nothing",
    "aten::convolution_overrideable": "no kernel on the CPU; it shares the rule of aten::convolution",
    "aten::_conv_depthwise2d": "no kernel on the CPU",
    "aten::conv_depthwise3d": "no kernel on the CPU",
    "aten::dequantize.tensor": "for scripts; Python calls aten::dequantize.self, which shares its rule",
    "transformers::grouped_mm_fallback": "of another library; aten::_grouped_mm shares its rule",
    "aten::nonzero": "the trace goes on with a result of its own: tests/flow/test_routing.py holds that",
}


def with_blocking(values: tuple[float, ...], *samples: Sample) -> list[Sample]:
    return [replace(each, blocking=values) for each in samples]


def by(reference: Callable[..., Any], *samples: Sample) -> list[Sample]:
    return [replace(each, reference=reference) for each in samples]


def causal(rows: int, columns: int, value: float = -inf, offset: int = 0) -> Tensor:
    """An additive mask `[rows, columns]`."""
    return torch.zeros(rows, columns, dtype=torch.float64).masked_fill(
        below(rows, columns, offset).logical_not(), value
    )


def below(rows: int, columns: int, offset: int = 0) -> Tensor:
    return torch.ones(rows, columns, dtype=torch.bool).tril(offset)


_UNARY = (
    "relu", "neg", "abs", "sqrt", "sin", "tanh", "erf", "sgn", "sign", "round", "floor", "ceil", "trunc", "silu", "gelu",
    "mish", "expm1", "log1p", "asinh", "atan", "sinh", "tan", "leaky_relu", "elu", "hardswish", "hardtanh",
    "nan_to_num", "exp", "exp2", "sigmoid", "softplus",
)  # fmt: skip

POINTWISE = [
    *(sample(f"aten::{name}", x(2, 3)) for name in _UNARY),
    sample("aten::relu", x(0, 3)),
    sample("aten::relu", x()),
    sample("aten::hardtanh", x(2, 3), 0.5, 2.0),
    sample("aten::hardtanh", x(2, 3), -2.0, -0.5),
    sample("aten::hardtanh", x(2, 3), -1e31, 1.0),
    sample("aten::elu", x(2, 3), 2.0, 0.5, 3.0),
    sample("aten::softplus", x(2, 3), 2.0, 5.0),
    sample("aten::round.decimals", x(2, 3), decimals=1),
    sample("aten::mul.Tensor", x(2, 3), x(2, 3)),
    sample("aten::mul.Tensor", x(2, 3), x(3)),
    sample("aten::mul.Tensor", x(2, 1, 3), x(4, 1)),
    sample("aten::mul.Tensor", x(0, 3), x(1, 3)),
    sample("aten::mul.Tensor", x(), x(2)),
    sample("aten::mul.Tensor", x(2, 3), cx(2, 1)),
    sample("aten::mul.Tensor", ints(2, 3, high=4), flags(2, 3)),
    sample("aten::mul.Tensor", x(2, 3), torch.tensor([0.5, 0.0, -2.0])),
    sample("aten::mul.Scalar", x(2, 3), 0.25),
    sample("aten::mul.Scalar", x(2, 3), -3),
    sample("aten::mul.Scalar", x(2, 3), 0),
    sample("aten::mul.Scalar", x(2, 3), 0.0),
    sample("aten::bitwise_and.Tensor", flags(2, 3), flags(2, 3)),
    sample("aten::bitwise_and.Tensor", flags(3, 1), below(3, 3)),
    sample("aten::bitwise_and.Tensor", ints(2, 3, high=8), ints(3, high=8)),
    sample("aten::bitwise_and.Scalar", ints(2, 3, high=8), 3),
    sample("aten::bitwise_and.Scalar", ints(2, 3, high=8), 0),
    sample("aten::bitwise_and.Scalar", flags(2, 3), True),
    sample("aten::logical_and", flags(2, 3), flags(3)),
    sample("aten::logical_and", ints(2, 3, high=2), flags(2, 3)),
    sample("aten::logical_or", flags(2, 3), flags(3)),
    sample("aten::bitwise_or.Tensor", flags(2, 3), flags(2, 3)),
    sample("aten::bitwise_or.Tensor", ints(2, 3, high=8), ints(2, 3, high=8)),
    sample("aten::bitwise_or.Scalar", flags(2, 3), True),
    sample("aten::bitwise_or.Scalar", flags(2, 3), False),
    sample("aten::div.Tensor", x(2, 3), divisor(2, 3)),
    sample("aten::div.Tensor", x(2, 3), divisor(1)),
    sample("aten::div.Tensor_mode", x(2, 3), divisor(2, 3), rounding_mode="floor"),
    sample("aten::div.Tensor_mode", positive(2, 3), divisor(3), rounding_mode="trunc"),
    sample("aten::div.Tensor", x(2, 3), torch.tensor([8.0, -8.0, 0.5])),
    sample("aten::div.Scalar", x(2, 3), 8.0),
    sample("aten::div.Scalar", x(2, 3), -8.0),
    sample("aten::floor_divide", x(2, 3), divisor(3)),
    sample("aten::floor_divide", ints(2, 3, high=9), ints(2, 3, low=1, high=4)),
    sample("aten::add.Tensor", x(2, 3), x(2, 3)),
    sample("aten::add.Tensor", x(2, 3), x(3), alpha=0.5),
    sample("aten::add.Tensor", x(2, 3), x(3), alpha=-1),
    sample("aten::add.Tensor", x(2, 3), x(2, 1), alpha=0),
    sample("aten::add.Tensor", x(2, 3, 3), causal(3, 3)),
    sample("aten::add.Tensor", x(2, 3, 3), causal(3, 3, lowest)),
    sample("aten::add.Tensor", x(2, 3, 3), causal(3, 3, -1e9)),
    sample("aten::add.Tensor", causal(3, 3, -1e9), x(2, 3, 3)),
    sample("aten::add.Tensor", causal(3, 3, -1e4), x(2, 3, 3), alpha=-1),
    sample("aten::add.Scalar", x(2, 3), -1e9),
    sample("aten::add.Scalar", x(2, 3), -inf),
    sample("aten::sub.Tensor", x(2, 3), x(2, 3)),
    sample("aten::sub.Tensor", x(2, 3), x(3), alpha=2),
    sample("aten::sub.Tensor", x(2, 3, 3), -causal(3, 3, -1e9)),
    sample("aten::sub.Tensor", x(2, 3, 3), -causal(3, 3)),
    sample("aten::sub.Tensor", causal(3, 3), x(2, 3, 3)),
    sample("aten::sub.Scalar", x(2, 3), 1e9),
    sample("aten::rsub.Tensor", x(2, 3), x(3)),
    sample("aten::rsub.Scalar", x(2, 3), 1.0),
    sample("aten::rsub.Scalar", x(2, 3), 1.0, 0),
    sample("aten::where.self", flags(2, 3), x(2, 3), x(3)),
    sample("aten::where.self", flags(2, 3), x(2, 3), torch.tensor(-inf, dtype=torch.float64)),
    sample("aten::where.self", flags(2, 1), torch.zeros(()), torch.tensor(-inf)),
    sample("aten::where.self", below(3, 3), x(2, 3, 3), torch.tensor(-1e9, dtype=torch.float64)),
    sample("aten::where.self", flags(0, 3), x(0, 3), x(3)),
    sample("aten::masked_fill.Scalar", x(2, 3), flags(2, 3), 0),
    sample("aten::masked_fill.Scalar", x(2, 3), flags(3), -inf),
    sample("aten::masked_fill.Scalar", x(2, 3), flags(2, 1), -1e9),
    sample("aten::masked_fill.Scalar", x(2, 3, 3), ~below(3, 3), -1e4),
    sample("aten::masked_fill.Tensor", x(2, 3), flags(2, 3), x()),
    sample("aten::maximum", x(2, 3), x(2, 3)),
    sample("aten::maximum", x(2, 3), torch.tensor(lowest, dtype=torch.float64)),
    sample("aten::maximum", ints(2, 3, high=5), ints(3, high=5)),
    sample("aten::fmax", x(2, 3), x(3)),
    sample("aten::max.other", x(2, 3), x(2, 1)),
    sample("aten::max.out", x(2, 3), x(2, 1), out=torch.empty(2, 3, dtype=torch.float64)),
    sample("aten::minimum", x(2, 3), x(2, 3)),
    sample("aten::minimum", x(2, 3, 3), causal(3, 3)),
    sample("aten::fmin", x(2, 3), x(3)),
    sample("aten::min.other", x(2, 3), x(2, 1)),
    sample("aten::min.out", x(2, 3), x(2, 1), out=torch.empty(2, 3, dtype=torch.float64)),
    sample("aten::clamp", x(2, 3), -0.5, 0.5),
    sample("aten::clamp", x(2, 3), lowest, 1.0),
    sample("aten::clamp", x(2, 3), 0.1),
    sound(sample("aten::clamp.Tensor", x(2, 3), negative(3), positive(2, 1))),
    sample("aten::clamp.Tensor", x(2, 3), None, x(2, 1)),
    sample("aten::clamp_min", x(2, 3), -1.0),
    sample("aten::clamp_min.Tensor", x(2, 3), x(3)),
    sample("aten::clamp_max", x(2, 3), 0.0),
    sample("aten::clamp_max.Tensor", x(2, 3), x(2, 3)),
    sample("aten::pow.Tensor_Scalar", x(2, 3), 0),
    sample("aten::pow.Tensor_Scalar", x(2, 3), 2),
    sample("aten::pow.Tensor_Tensor", positive(2, 3), x(2, 3)),
    sample("aten::pow.Scalar", 2.0, x(2, 3)),
    sample("aten::pow.Scalar", 1, x(2, 3)),
    sample("aten::xlogy.Tensor", x(2, 3), positive(2, 3)),
    sample("aten::addcmul", x(2, 3), x(2, 3), x(3)),
    sample("aten::addcmul", x(2, 3), x(2, 3), x(3), value=0),
    sample("aten::addcdiv", x(2, 3), x(2, 3), divisor(3)),
    sample("aten::lerp.Tensor", x(2, 3), x(2, 3), unit(3)),
    sample("aten::lerp.Scalar", x(2, 3), x(2, 3), 0.3),
    sample("aten::eq.Tensor", ints(2, 3, high=3), ints(3, high=3)),
    sample("aten::lt.Tensor", x(2, 3), x(3)),
    sample("aten::le.Scalar", x(2, 3), 0.0),
    sample("aten::ne.Scalar", ints(2, 3, high=3), 0),
    sample("aten::logical_not", flags(2, 3)),
    sample("aten::bitwise_not", flags(2, 3)),
    sample("aten::bitwise_xor.Tensor", flags(2, 3), flags(3)),
    sample("aten::remainder.Tensor", ints(2, 3, high=9), ints(3, low=1, high=4)),
    sample("aten::atan2", x(2, 3), x(3)),
]

MATMUL = [
    sample("aten::mm", x(3, 4), x(4, 2)),
    sample("aten::mm", x(3, 1), x(1, 2)),
    sample("aten::mm", x(3, 0), x(0, 2)),
    sample("aten::mm", x(0, 3), x(3, 2)),
    sample("aten::mm", below(4, 4).double(), x(4, 2)),
    sample("aten::mm", x(3, 4), below(4, 4).double()),
    sample("aten::mm", x(3, 4), x(4, 2).generic),
    sample("aten::mm", cx(3, 2), cx(2, 2)),
    sample("aten::bmm", x(2, 3, 4), x(2, 4, 2)),
    sample("aten::bmm", x(1, 3, 4), x(1, 4, 1)),
    sample("aten::bmm", torch.stack([below(3, 3), ~below(3, 3)]).double(), x(2, 3, 2)),
    sample("aten::mv", x(3, 4), x(4)),
    sample("aten::dot", x(4), x(4)),
    sample("aten::vdot", x(4), x(4)),
    sample("aten::addmm", x(2), finite(3, 4), finite(4, 2)),
    sample("aten::addmm", x(3, 2), finite(3, 4), finite(4, 2), beta=0),
    sample("aten::addmm", x(3, 2), finite(3, 4), finite(4, 2), alpha=0),
    sample("aten::addmm", x(2).generic, finite(3, 4), finite(4, 2).generic, alpha=0.5),
    sample("aten::baddbmm", x(2, 3, 2), finite(2, 3, 4), finite(2, 4, 2)),
    sample("aten::baddbmm", x(1, 2), finite(2, 3, 4), finite(2, 4, 2), beta=0),
    sample("aten::_addmm_activation", x(2), finite(3, 4), finite(4, 2)),
    sample("aten::addmv", x(3), finite(3, 4), finite(4)),
    sample("aten::addmv", x(3), finite(3, 4), finite(4), beta=0),
    sample("aten::addmv", x(3), finite(3, 4), finite(4), alpha=0),
    sample("aten::addbmm", x(3, 2), finite(2, 3, 4), finite(2, 4, 2)),
    sample("aten::addbmm", x(3, 2), finite(2, 3, 4), finite(2, 4, 2), beta=0),
    sample("aten::addr", x(3, 2), finite(3), finite(2)),
    sample("aten::addr", x(3, 2), finite(3), finite(2), beta=0),
    sample("aten::linear", x(2, 3, 4), x(2, 4), x(2)),
    sample("aten::linear", x(4), x(2, 4)),
    sample("aten::linear", x(0, 4), x(2, 4).generic, x(2).generic),
]

SOFTMAX = with_blocking(
    MASKS,
    sample("aten::_softmax", x(3, 4), -1, False),
    sample("aten::_softmax", x(3, 4), 0, False),
    sample("aten::_softmax", x(2, 3, 1), 1, False),
    sample("aten::_softmax", x(2, 0), 1, False),
    sample("aten::_softmax", x(), 0, False),
    sample("aten::_safe_softmax", x(3, 4), -1),
    sample("aten::_log_softmax", x(3, 4), -1, False),
    sample("aten::_log_softmax", x(3, 4), 0, False),
    sample("aten::_softmax", x(2, 1), 1, False),
    sample("aten::logcumsumexp", x(3, 4), 1),
    sample("aten::logcumsumexp", x(3, 4), 0),
    sample("aten::logcumsumexp", x(), 0),
    sample("aten::amax", x(3, 4), [-1]),
    sample("aten::amax", x(3, 4), [0, 1], True),
    sample("aten::amax", x(2, 3, 2)),
    sample("aten::max", x(3, 2)),
    sample("aten::max.dim", x(3, 4), 1),
    sample("aten::max.dim", x(3, 4), 0, True),
    sample("aten::argmax", x(3, 4), 1),
    sample("aten::argmax", x(3, 4), -2, True),
    sample("aten::argmax", x(2, 2)),
    sample("aten::logsumexp", x(3, 4), [1]),
    sample("aten::logsumexp", x(3, 4), [0, 1], True),
)

REDUCTIONS = [
    sample("aten::sum", x(2, 3)),
    sample("aten::sum", x()),
    sample("aten::sum.dim_IntList", x(2, 3, 2), [1]),
    sample("aten::sum.dim_IntList", x(2, 3, 2), [-1, 0], True),
    sample("aten::sum.dim_IntList", x(2, 3), None),
    sample("aten::sum.dim_IntList", x(2, 3), []),
    sample("aten::sum.dim_IntList", x(2, 0), [1]),
    sample("aten::sum.dim_IntList", flags(3, 4), [1]),
    sample("aten::sum.dim_IntList", x(2, 3), [0], dtype=torch.float32),
    sample("aten::nansum", x(2, 3), [1]),
    sample("aten::mean", x(2, 3)),
    sample("aten::mean.dim", x(2, 3), [1], True),
    sample("aten::mean.dim", x(2, 3), [-2]),
    sample("aten::prod", divisor(2, 2)),
    sample("aten::prod.dim_int", divisor(2, 3), 1),
    sample("aten::prod.dim_int", divisor(2, 3), 0, True),
    sample("aten::prod.dim_int", x(2, 3), 1),
    sample("aten::any", flags(2, 2)),
    sample("aten::any.dim", flags(4, 2), 1),
    sample("aten::any.dims", flags(2, 3, 1), [1, 2], True),
    sample("aten::all", flags(2, 2)),
    sample("aten::all.dim", flags(4, 2), -1, True),
    sample("aten::norm.Scalar", x(2, 3)),
    sample("aten::norm.ScalarOpt_dim", x(2, 3), 2, [1]),
    sample("aten::norm.ScalarOpt_dim", x(2, 3), 1, [0], True),
    sample("aten::linalg_vector_norm", x(2, 3), 2, [1]),
    sample("aten::linalg_vector_norm", x(2, 3), 3, [0], True),
    sample("aten::linalg_vector_norm", x(2, 3)),
    sample("aten::std.correction", x(2, 3), [1], correction=1),
    sample("aten::std.correction", x(2, 3), [0], correction=0, keepdim=True),
    sample("aten::var.correction", x(2, 3), None, correction=1),
    sample("aten::var.correction", x(2, 3), [-1]),
    sample("aten::var.dim", x(2, 3), [1], False, True),
    sample("aten::var.dim", x(2, 3), [1], True),
    sample("aten::std", x(2, 3), False),
    sample("aten::var_mean.correction", x(2, 3), [1], correction=0, keepdim=True),
    sample("aten::var_mean.dim", x(2, 3), [1], False, True),
    sample("aten::var_mean", x(2, 3), False),
    sample("aten::std_mean.correction", x(2, 3), [0]),
    sample("aten::count_nonzero", flags(2, 3)),
    sample("aten::count_nonzero.dim_IntList", flags(2, 3), [1]),
    sample("aten::amin", x(3, 4), [-1]),
    sample("aten::amin", x(3, 4), [0], True),
    sample("aten::min", x(3, 2)),
    sample("aten::min.dim", x(3, 4), 1),
    sample("aten::min.dim", x(3, 4), 0, True),
    sample("aten::argmin", x(3, 4), 1),
    sample("aten::argmin", x(2, 2)),
    sample("aten::median", x(5)),
    sample("aten::median.dim", x(2, 3), 1),
    sample("aten::nanmedian.dim", x(2, 3), 0, True),
    sample("aten::mode", ints(2, 3, high=3), 1),
    sample("aten::aminmax", x(3, 4), dim=1),
    sample("aten::aminmax", x(2, 3), dim=0, keepdim=True),
    sample("aten::aminmax", x(2, 2)),
]

_FLASH = "aten::_scaled_dot_product_flash_attention"
_OVERRIDEABLE = "aten::_scaled_dot_product_fused_attention_overrideable"
_EFFICIENT = "aten::_scaled_dot_product_efficient_attention"
_CUDNN = "aten::_scaled_dot_product_cudnn_attention"


def _attention(q: int, k: int, mask: Any = None, *, is_causal: bool = False, groups: int = 1) -> Sample:
    """Query length q, key length k."""
    query, key, value = qkv(q, k, groups)
    return sample(f"{_FLASH}_for_cpu", query, key, value, 0.0, is_causal, attn_mask=mask)


def qkv(q: int, k: int, groups: int = 1) -> tuple[Spec, Spec, Spec]:
    """`[1, 2 heads, length, 2]`."""
    query, key = (replace(finite(1, heads, length, 2), zero=False) for heads, length in ((2 * groups, q), (2, k)))
    return query, key, replace(finite(1, 2, k, 2), zero=False)


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool) -> tuple[Tensor, Tensor]:
    """The output, and the log-sum-exp of the scores. A query that sees no key gives zeros."""
    groups = query.shape[-3] // key.shape[-3]
    key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -inf) if mask.dtype == torch.bool else scores + mask
    if causal:
        scores = scores.masked_fill(~below(*scores.shape[-2:]), -inf)
    return scores.softmax(-1).nan_to_num() @ value, scores.logsumexp(-1)


def _unmasked(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, is_causal: bool = False) -> Any:
    return attention(q, k, v, None, is_causal)


def _biased(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, dropout: float = 0.0, is_causal: bool = False
) -> Any:
    return attention(q, k, v, bias, is_causal)


def _with_lse(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, lse: bool, dropout: float = 0.0, is_causal: bool = False
) -> Any:
    return attention(q, k, v, bias, is_causal)


ATTENTION = with_blocking(
    MASKS,
    _attention(3, 3),
    _attention(3, 3, is_causal=True),
    _attention(2, 4, is_causal=True),
    _attention(4, 2, is_causal=True),
    _attention(1, 4, is_causal=True),
    _attention(3, 3, is_causal=True, groups=2),
    _attention(3, 3, causal(3, 3)),
    _attention(2, 4, causal(2, 4, offset=2)),
    sound(_attention(4, 2, causal(4, 2, offset=-2))),
    _attention(3, 3, causal(3, 3, lowest)),
    _attention(3, 3, causal(3, 3, -1e9)),
    sound(_attention(3, 3, causal(3, 3, lowest, offset=-1))),
    _attention(3, 3, x(3, 3)),
    _attention(2, 3, x(1, 2, 2, 3)),
    _attention(2, 3, x(2, 3).generic),
    _attention(3, 3, causal(3, 3), is_causal=True),
    *by(_unmasked, sample(_FLASH, *qkv(3, 3), 0.0, True), sample(_FLASH, *qkv(2, 3))),
    *by(
        _biased,
        sample(_OVERRIDEABLE, *qkv(3, 3), causal(3, 3)),
        sample(_OVERRIDEABLE, *qkv(2, 3), x(1, 2, 2, 3)),
        sample(_OVERRIDEABLE, *qkv(3, 3), None, 0.0, True),
        sample(_OVERRIDEABLE, *qkv(3, 3), below(3, 3)),
        sample(_OVERRIDEABLE, *qkv(3, 3), torch.stack([below(3, 3), ~below(3, 3, -1)])[None]),
    ),
    *map(sound, by(
        _biased,
        sample(_OVERRIDEABLE, *qkv(3, 3), below(3, 3, offset=-1)),
        sample(_OVERRIDEABLE, *qkv(2, 3), flags(2, 3)),
        sample(_OVERRIDEABLE, *qkv(2, 3), flags(1, 1, 1, 3), 0.0, True),
    )),
    *by(
        _with_lse,
        sample(_EFFICIENT, *qkv(3, 3), causal(3, 3), True),
        sample(_EFFICIENT, *qkv(2, 3), None, False, 0.0, True),
        sample(_EFFICIENT, *qkv(2, 3), None, True),
        sample(_CUDNN, *qkv(2, 3), None, True, 0.0, True),
        sample(_CUDNN, *qkv(3, 3), causal(3, 3, -1e9), False),
    ),
)  # fmt: skip

INDEXING = [
    sample("aten::embedding", x(4, 2), ints(2, 3, high=4)),
    sample("aten::embedding", x(4, 2).generic, ints(3, high=4)),
    sample("aten::embedding", x(4, 2), ints(0, high=4)),
    sample("aten::index_select", x(3, 4), 1, ints(2, high=4)),
    sample("aten::index_select", x(3, 4), -2, ints(5, high=3)),
    sample("aten::index_select", x(), 0, ints(1, high=1).known),
    sample("aten::index.Tensor", x(3, 4), [ints(2, low=-3, high=3)]),
    sample("aten::index.Tensor", x(3, 4), [None, ints(2, 2, high=4)]),
    sample("aten::index.Tensor", x(3, 4), [ints(2, 1, high=3), ints(3, high=4)]),
    sample("aten::index.Tensor", x(2, 3, 2), [ints(3, high=2), None, ints(3, high=2)]),
    sample("aten::index.Tensor", x(2, 3, 2), [None, ints(2, high=3), ints(2, high=2)]),
    sample("aten::index.Tensor", x(2, 3, 2), [None, ints(2, low=-3, high=3)]),
    sound(sample("aten::index.Tensor", x(3, 4), [flags(3)])),
    sound(sample("aten::index.Tensor", x(3, 2), [flags(3, 2)])),
    sound(sample("aten::index.Tensor", x(2, 3, 2), [None, flags(3), ints(1, high=2)])),
    sample("aten::index.Tensor", x(3, 4), [torch.tensor([True, False, True])]),
    sample("aten::index.Tensor", x(3, 4), [ints(2, high=3), torch.tensor([True, False, True, False])]),
    sample("aten::_unsafe_index.Tensor", x(3, 4), [None, ints(3, high=4)]),
    sample("aten::_unsafe_index.Tensor", x(3, 4), [ints(2, 1, high=3), ints(3, high=4)]),
    sample("aten::gather", x(3, 4), 1, ints(3, 2, high=4)),
    sample("aten::gather", x(3, 4), -2, ints(2, 3, high=3)),
    sample("aten::gather", x(4), 0, ints(6, high=4)),
    sample("aten::gather", x(3, 4), 1, ints(3, 0, high=4)),
    sample("aten::gather", x(), 0, ints(2, high=1).known),
    sample("aten::take", x(2, 3), ints(4, low=-6, high=6)),
    sound(sample("aten::masked_select", x(3, 4), flags(3, 4))),
    sound(sample("aten::masked_select", x(3, 4), flags(4))),
    sample("aten::masked_select", x(4), below(3, 4)),
    sample("aten::masked_select", x(3, 4), below(3, 4)),
    sample("aten::slice_scatter", x(3, 4), x(3, 2), 1, 0, 4, 2),
    sample("aten::slice_scatter", x(3, 4), x(1, 4), 0, -1),
    sample("aten::select_scatter", x(3, 4), x(3), 1, -1),
    sample("aten::diagonal_scatter", x(3, 4), x(3), 1),
    sample("aten::scatter.src", x(3, 4), 1, ints(3, 1, high=4), x(3, 2)),
    sample("aten::scatter.src", x(3, 4), 0, ints(1, 3, high=3), x(2, 4)),
    sample("aten::scatter.value", x(3, 4), 1, ints(2, 2, high=4), 0.0),
    sample("aten::scatter.value", x(3, 4), 0, ints(2, 2, high=3), 1.5),
    sample("aten::scatter.reduce", x(3, 4), 1, ints(2, 2, high=4), x(2, 3), reduce="add"),
    sample("aten::scatter.reduce", divisor(3, 4), 0, ints(2, 2, high=3), divisor(2, 2), reduce="multiply"),
    sound(sample("aten::scatter.reduce", x(3, 4), 0, ints(2, 2, high=3), x(2, 2), reduce="multiply")),
    sample("aten::scatter.value_reduce", x(3, 4), 0, ints(2, 2, high=3), 2.0, reduce="multiply"),
    sound(sample("aten::scatter.value_reduce", x(3, 4), 0, ints(2, 2, high=3), 0.0, reduce="multiply")),
    sound(sample("aten::scatter.value_reduce", x(3, 4), 0, ints(2, 2, high=3), 0.0, reduce="add")),
    sample("aten::scatter_add", x(3, 4), 1, ints(3, 3, high=4), x(3, 4)),
    sample("aten::scatter_add", x(4), 0, ints(6, high=4), x(6)),
    sample("aten::scatter_add", torch.zeros(4, dtype=torch.float64), 0, ints(3, high=4), x(3)),
    *(sample("aten::scatter_reduce.two", divisor(3, 4), 1, ints(3, 3, high=4), divisor(3, 4), mode)
      for mode in ("sum", "prod", "mean", "amax", "amin")),
    sample("aten::scatter_reduce.two", x(3, 4), 0, ints(2, 4, high=3), x(2, 4), "sum", include_self=False),
    sample("aten::scatter_reduce.two", x(3, 4), 0, ints(2, 4, high=3), x(2, 4), "amax", include_self=False),
    sound(sample("aten::scatter_reduce.two", x(3, 4), 0, ints(2, 4, high=3), x(2, 4), "prod", include_self=False)),
    sound(sample("aten::scatter_reduce.two", x(3, 4), 1, ints(3, 2, high=4), x(3, 4), "prod")),
    sample("aten::index_add", x(3, 4), 1, ints(2, high=4), x(3, 2)),
    sample("aten::index_add", x(3, 4), 0, ints(5, high=3), x(5, 4), alpha=0.5),
    sample("aten::index_add", torch.zeros(3, 2, dtype=torch.float64), 0, ints(2, high=3), x(2, 2)),
    sample("aten::index_copy", x(3, 4), 1, permutation(2), x(3, 2)),
    sample("aten::index_copy", x(3, 4), -2, ints(1, high=3), x(1, 4)),
    sample("aten::index_reduce", divisor(3, 4), 0, ints(4, high=3), divisor(4, 4), "prod"),
    sound(sample("aten::index_reduce", x(3, 4), 0, ints(4, high=3), x(4, 4), "prod")),
    sample("aten::index_reduce", x(3, 4), 0, ints(2, high=3), x(2, 4), "amax", include_self=False),
    sample("aten::index_reduce", x(3, 4), 1, ints(2, high=4), x(3, 2), "mean"),
    sample("aten::index_fill.int_Scalar", x(3, 4), 1, ints(2, high=4), 0.0),
    sample("aten::index_fill.int_Scalar", x(3, 4), 0, ints(1, high=3), 2.5),
    sample("aten::index_fill.int_Tensor", x(3, 4), -1, ints(2, high=4), x()),
    sample("aten::index_fill.int_Scalar", x(), 0, ints(1, high=1).known, 0.0),
    sample("aten::index_add", x(), 0, ints(1, high=1).known, x()),
    sample("aten::index_copy", x(), 0, ints(1, high=1).known, x()),
    sample("aten::index_put", x(3, 4), [ints(1, low=-3, high=3)], x(4)),
    sample("aten::index_put", x(3, 4), [None, ints(1, high=4)], x(3, 1)),
    sample("aten::index_put", x(3, 4), [permutation(3), ints(3, high=4)], x(3)),
    sample("aten::index_put", x(3, 4), [ints(5, high=3), ints(5, high=4)], x(5), True),
    sample("aten::index_put", x(3, 4), [ints(4, high=3)], x(4, 4), True),
    sample("aten::index_put", x(2, 3, 2), [permutation(2), None, ints(2, high=2)], x(2, 3)),
    sound(sample("aten::index_put", x(3, 4), [flags(3, 4)], x())),
    sound(sample("aten::index_put", x(3, 4), [flags(3)], x(4))),
    sound(sample("aten::index_put", x(3, 4), [flags(3)], x(4), True)),
    sample("aten::index_put", x(3, 4), [torch.tensor([True, False, True])], x(2, 4)),
    sample("aten::_unsafe_index_put", x(3, 4), [permutation(3)], x(3, 4)),
    sample("aten::_unsafe_index_put", x(3, 4), [ints(4, high=3)], x(4, 4), True),
    sample("aten::_index_put_impl", x(3, 4), [permutation(3)], x(3, 4)),
]  # fmt: skip

SORTING = [
    sample("aten::sort", x(3, 4), 1),
    sample("aten::sort", x(4), 0, True),
    sample("aten::sort.stable", x(3, 4), stable=True, dim=0),
    sample("aten::argsort", x(3, 4), 1),
    sample("aten::argsort.stable", x(4), stable=True),
    sample("aten::topk", x(3, 4), 2),
    sample("aten::topk", x(4), 2, 0, False),
    sample("aten::histc", x(5), 3, -1.0, 1.0),
    sample("aten::bincount", ints(5, high=4)),
    sample("aten::bincount", ints(5, high=4), x(5), 4),
    sample("aten::cumsum", x(3, 4), 1),
    sample("aten::cumsum", x(3, 4), -2),
    sample("aten::cumsum", x(), 0),
    sample("aten::cumsum", flags(3, 4), 1),
    sample("aten::cumprod", divisor(3, 4), 1),
    sound(sample("aten::cumprod", x(3, 4), 1)),
    sample("aten::cummax", x(3, 4), 1),
    sample("aten::cummin", x(3, 4), 0),
    sample("aten::unique_consecutive", ints(5, high=3)),
    sample("aten::_unique2", ints(5, high=3), True, True),
    sample("aten::unique_dim", ints(3, 2, high=2), 0),
    sample("aten::_unique", ints(5, high=3)),
]

STORING = [
    sample("aten::clone", x(3, 4)),
    sample("aten::clone", cx(3, 2)),
    sample("aten::_to_copy", x(3, 4), dtype=torch.float32),
    sample("aten::_to_copy", x(3, 4), dtype=torch.int64),
    sample("aten::_to_copy", flags(3, 4), dtype=torch.float64),
    sample("aten::_to_copy", x(3, 4), dtype=torch.complex128),
    sample("aten::lift_fresh_copy", x(3)),
    sample("aten::alias_copy", x(3)),
    sample("aten::detach_copy", x(3)),
    sample("aten::_unsafe_view", x(2, 1, 3), [2, 3]),
    sample("aten::_reshape_copy", x(3, 4), [2, -1]),
    sample("aten::view_as_real_copy", cx(3)),
    sample("aten::copy", x(3, 4), x(4)),
    sample("aten::copy", x(3, 4), ints(3, 1, high=5)),
    sample("aten::zeros_like", x(3)),
    sample("aten::ones_like", x(3)),
    sample("aten::full_like", x(3), 2.5),
    sample("aten::new_zeros", x(3), [2, 2]),
    sample("aten::new_ones", x(3), [2, 2]),
    sample("aten::new_full", x(3), [2, 2], -inf),
    sample("aten::zero", x(3)),
    sample("aten::fill.Scalar", x(3, 2), 1.0),
    sample("aten::fill.Tensor", x(3, 2), x()),
    sample("aten::cat", [x(2, 3), x(2, 1), x(2, 0)], 1),
    sample("aten::cat", [x(2, 3), x(1, 3)], -2),
    sample("aten::cat", [x(0), x(2, 3)]),
    sample("aten::cat", [x(2, 3), causal(2, 3)]),
    sample("aten::stack", [x(2, 3), x(2, 3)], -1),
    sample("aten::repeat", x(2, 3), [2, 1, 2]),
    sample("aten::repeat", x(2), [0]),
    sample("aten::flip", x(2, 3), [-1, 0]),
    sample("aten::roll", x(2, 3), [1], [1]),
    sample("aten::roll", x(2, 3), [2]),
    sample("aten::roll", x(2, 3), [1, -1], [0, 1]),
    sample("aten::constant_pad_nd", x(2, 3), [1, 2]),
    sample("aten::constant_pad_nd", x(2, 3), [-1, 1, 0, 1], 2.5),
    sample("aten::constant_pad_nd", x(2, 3), [1, 0], -inf),
    sample("aten::tril", x(3, 4)),
    sample("aten::tril", x(2, 3, 4), 1),
    sample("aten::triu", x(3, 4), 1),
    sample("aten::triu", x(3, 4), -1),
    sample("aten::diag_embed", x(2, 3)),
    sample("aten::diag_embed", x(2, 3), 1, 0, 2),
    sample("aten::diag_embed", x(3), -1),
    sound(sample("aten::empty_like", x(3))),
    sound(sample("aten::empty_permuted", [2, 3], [1, 0])),
    sound(sample("aten::new_empty", x(3), [2, 2])),
    sound(sample("aten::new_empty_strided", x(3), [2, 2], [1, 2])),
    sound(sample("aten::empty.memory_format", [2, 3])),
    sound(sample("aten::empty_strided", [2, 3], [1, 2])),
    sound(sample("aten::resize", x(3), [2, 3])),
    *random(
        sample("aten::native_dropout", x(3, 4), 0.5, True),
        sample("aten::rand_like", x(3)),
        sample("aten::randn_like", x(3)),
        sample("aten::randint_like", x(3), 9),
    ),
]

SAMPLES: list[Sample] = [
    *POINTWISE, *MATMUL, *SOFTMAX, *REDUCTIONS, *ATTENTION, *INDEXING, *SORTING, *STORING, *KERNELS, *PROGRAMS,
]  # fmt: skip
