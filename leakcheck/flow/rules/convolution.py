"""Convolutions: products of patches with a kernel, so that zeros of a masked kernel and of the padding block.

    out[n, o, p] = max over channels c of o's group, taps k: x[n, c, p stride + k dilation - padding] max w[o, c, k]

over those where neither is a known zero, and the bias of o. A transposed convolution is a convolution with the mirrored
kernel over an input with stride - 1 zeros between its elements.
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from leakcheck.flow import labels as L
from leakcheck.flow.labels import ZERO, Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import rule
from leakcheck.flow.rules.matmul import contract

Sizes = Sequence[int]


@rule("aten::convolution", "aten::_convolution", "aten::convolution_overrideable")
def convolution(
    x: Operand, weight: Operand, bias: Operand | None, stride: Sizes, padding: Sizes, dilation: Sizes, transposed: bool,
    output_padding: Sizes, groups: int, *_: Any,
) -> Labels:  # fmt: skip
    """`[batch, in, *space]` by `[out, in / groups, *kernel]` gives `[batch, out, *space]`."""
    plane, kernel = x.structure.plane, weight.structure.plane
    space = kernel.dim() - 2
    batched = plane.dim() == kernel.dim()
    plane = plane if batched else plane.unsqueeze(0)
    stride, padding, dilation = _each(stride, space), _each(padding, space), _each(dilation, space)
    if transposed:
        plane = _spread(plane, stride)
        reach = [d * (k - 1) for d, k in zip(dilation, kernel.shape[2:], strict=True)]
        extra = _each(output_padding, space)
        pads = [(r - p, r - p + e) for r, p, e in zip(reach, padding, extra, strict=True)]
        kernel = _mirrored(kernel, groups)
        stride = [1] * space
    else:
        pads = [(p, p) for p in padding]
    plane = _padded(plane, pads)
    result = correlate(plane, kernel, stride, dilation, groups)
    if bias is not None:
        result = L.join(result, bias.labels.view(lambda t: t.reshape(-1, *(1,) * space)))
    return result if batched else result.view(lambda t: t.squeeze(0))


@rule("aten::mkldnn_convolution")
def mkldnn_convolution(
    x: Operand, weight: Operand, bias: Operand | None, padding: Sizes, stride: Sizes, dilation: Sizes, groups: int
) -> Labels:
    return convolution(x, weight, bias, stride, padding, dilation, False, [0], groups)


@rule("aten::_slow_conv2d_forward", "aten::slow_conv3d_forward")
def slow_convolution(
    x: Operand, weight: Operand, size: Sizes, bias: Operand | None, stride: Sizes, padding: Sizes
) -> Labels:
    return convolution(x, weight, bias, stride, padding, [1], False, [0], 1)


@rule("aten::slow_conv_dilated2d", "aten::slow_conv_dilated3d")
def dilated_convolution(
    x: Operand,
    weight: Operand,
    size: Sizes,
    bias: Operand | None = None,
    stride: Sizes = (1,),
    padding: Sizes = (0,),
    dilation: Sizes = (1,),
) -> Labels:
    return convolution(x, weight, bias, stride, padding, dilation, False, [0], 1)


@rule("aten::_conv_depthwise2d", "aten::conv_depthwise3d")
def depthwise_convolution(
    x: Operand,
    weight: Operand,
    size: Sizes,
    bias: Operand | None,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
) -> Labels:
    channels = x.shape[-1 - len(size)]
    return convolution(x, weight, bias, stride, padding, dilation, False, [0], channels)


@rule("aten::conv_tbc")
def time_first(x: Operand, weight: Operand, bias: Operand, pad: int = 0) -> Labels:
    """`[time, batch, in]` by `[kernel, in, out]`."""
    plane = _padded(x.structure.plane.permute(1, 2, 0), [(pad, pad)])
    result = correlate(plane, weight.structure.plane.permute(2, 1, 0), [1], [1], 1)
    return L.join(result.view(lambda t: t.permute(2, 0, 1)), bias.labels)


def correlate(plane: Tensor, kernel: Tensor, stride: Sizes, dilation: Sizes, groups: int) -> Labels:
    """`[n, in, *space]` by `[out, in / groups, *kernel]` without padding gives `[n, out, *space]`."""
    out_channels, space = kernel.shape[0], plane.dim() - 2
    if _same_along(plane, 1) and _same_along(kernel, 0) and _same_along(kernel, 1):
        plane, kernel, groups = plane[:, :1], kernel[:1, :1], 1
    patches = plane
    for d in range(2, plane.dim()):  # [n, in, *positions, *taps]
        size, step = kernel.shape[d], dilation[d - 2]
        patches = patches.unfold(d, step * (size - 1) + 1, stride[d - 2])[..., ::step]
    n, places = plane.shape[0], patches.shape[2 : 2 + space]
    patches = patches.unflatten(1, (groups, -1))  # [n, groups, in / groups, *positions, *taps]
    patches = patches.permute(0, 1, *range(3, 3 + space), 2, *range(3 + space, 3 + 2 * space))
    patches = patches.reshape(n, groups, places.numel(), kernel[0].numel())
    rows = kernel.reshape(groups, kernel.shape[0] // groups, kernel[0].numel())  # [groups, out / groups, in x taps]
    result = contract(Labels(patches), Labels(rows.mT))  # [n, groups, positions, out / groups]
    return result.view(lambda t: t.mT.reshape(n, kernel.shape[0], *places).expand(n, out_channels, *places))


def _same_along(plane: Tensor, dim: int) -> bool:
    return plane.shape[dim] > 0 and (plane.stride(dim) == 0 or bool((plane == plane.narrow(dim, 0, 1)).all()))


def _spread(plane: Tensor, stride: Sizes) -> Tensor:
    """Zeros between the elements."""
    space = [s * (n - 1) + 1 if n else 0 for s, n in zip(stride, plane.shape[2:], strict=True)]
    result = plane.new_full((*plane.shape[:2], *space), ZERO)
    at: tuple[slice, ...] = (slice(None), slice(None), *(slice(None, None, s) for s in stride))
    result[at] = plane
    return result


def _mirrored(kernel: Tensor, groups: int) -> Tensor:
    """`[in, out / groups, *kernel]` of a transposed convolution as `[out, in / groups, *kernel]`, back to front."""
    swapped = kernel.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    return swapped.flip(tuple(range(2, kernel.dim())))


def _padded(plane: Tensor, pads: Sequence[tuple[int, int]]) -> Tensor:
    flat = [p for pair in reversed(pads) for p in pair]
    return F.pad(plane, flat, value=ZERO) if any(flat) else plane


def _each(value: Sizes, space: int) -> list[int]:
    return list(value) * space if len(value) == 1 else list(value)
