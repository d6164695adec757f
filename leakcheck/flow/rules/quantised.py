"""Quantised arithmetic. With fixed scales an op is elementwise or row by row.

A *dynamic* scale is computed from the smallest and the largest value of the whole tensor, so that every element of the
result depends on every element: a later token does change what an earlier position is rounded to.
"""

from typing import Any

from leakcheck.flow import labels as L
from leakcheck.flow.context import Context, tensors_of
from leakcheck.flow.labels import GENERIC, Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import Tier, rule
from leakcheck.flow.rules.matmul import contract


@rule(
    "aten::quantize_per_tensor", "aten::quantize_per_tensor.tensor_qparams", "aten::dequantize.self",
    "aten::dequantize.tensor", "aten::int_repr", "aten::fake_quantize_per_tensor_affine_cachemask",
    "aten::_fake_quantize_per_tensor_affine_cachemask_tensor_qparams", "quantized::add", "quantized::add_relu",
    "quantized::mul", "quantized::mul_relu", "quantized::add_scalar", "quantized::mul_scalar", "quantized::relu6",
    "quantized::hardswish", "quantized::leaky_relu", "quantized::sigmoid", "quantized::elu", rowwise=True,
)  # fmt: skip
def by_element(*args: Any, **named: Any) -> Labels:
    """Elementwise, by scales that are one number each; `fake_quantize` returns what it cut off as well."""
    return L.join(*(x.labels for x in (*args, *named.values()) if isinstance(x, Operand)))


@rule("aten::quantize_per_channel", "aten::fake_quantize_per_channel_affine_cachemask")
def by_channel(x: Operand, scales: Operand, zero_points: Operand, axis: int, *_: Any, **__: Any) -> Labels:
    """Elementwise, by a scale for each index along `axis`."""
    after = x.dim() - axis % x.dim() - 1
    scales_at = L.join(scales.labels, zero_points.labels).view(lambda t: t.reshape(-1, *(1,) * after))
    return L.join(x.labels, scales_at)


@rule(
    "quantized::linear",
    "quantized::linear_relu",
    "quantized::linear_dynamic_fp16",
    "quantized::linear_relu_dynamic_fp16",
)
def linear(x: Operand, *_: Any, context: Context, **__: Any) -> Labels:
    """Row by row, by packed weights: `out[..., :] = max over x[..., :]`."""
    row = L.join(x.labels.over(-1, keepdim=True), Labels.full((), GENERIC))
    return row.expand(context.result.shape)


@rule(
    "quantized::linear_dynamic", "quantized::linear_relu_dynamic", "aten::quantize_per_tensor_dynamic",
    "aten::quantized_lstm", "aten::quantized_gru", "aten::_fused_moving_avg_obs_fq_helper", tier=Tier.COARSE,
)  # fmt: skip
def by_range(*args: Any, context: Context, **named: Any) -> list[Labels]:
    """Everything depends on the range of everything."""
    given = [x.labels.over() for arg in (*args, *named.values()) for x in _operands(arg)]
    whole = L.join(*given, Labels.full((), GENERIC))
    return [whole.expand(t.shape) for t in tensors_of(context.result)]


@rule("aten::_int_mm")
def integer_matmul(a: Operand, b: Operand) -> Labels:
    return contract(a.structure, b.structure)


@rule("aten::_weight_int8pack_mm")
def packed_matmul(x: Operand, weight: Operand, scales: Operand) -> Labels:
    """`(x @ weight.T) * scales`: `[rows, in]` by `[out, in]` and `[out]`."""
    product = contract(x.structure, weight.structure.view(lambda t: t.t()))
    return L.select(product.plane == L.ZERO, product, L.join(product, scales.labels))


def _operands(value: Any) -> list[Operand]:
    if isinstance(value, Operand):
        return [value]
    return [x for x in value if isinstance(x, Operand)] if isinstance(value, (list, tuple)) else []
