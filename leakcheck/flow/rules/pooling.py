"""Pooling and resizing where torch has no decomposition: windows that are a product over the dimensions of space.

    out[..., p] = max over the window of p of x[..., i]

A window is a boolean matrix `[out, in]` for each dimension.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from leakcheck.flow import labels as L
from leakcheck.flow.labels import ZERO, Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import Tier, rule
from leakcheck.flow.rules.matmul import contract

Sizes = Sequence[int] | int


@rule("aten::avg_pool2d", "aten::avg_pool3d")
def average_pool(
    x: Operand, kernel_size: Sizes, stride: Sizes = (), padding: Sizes = 0, *_: Any, context: Any = None, **__: Any
) -> Labels:
    """Mean of `kernel_size` elements every `stride`; what lies outside is not read."""
    space = 2 if context.name.endswith("2d") else 3
    kernel, pads = _each(kernel_size, space), _each(padding, space)
    steps = _each(stride, space) if stride else kernel
    windows = [
        _strided(n, out, k, step, pad)
        for n, out, k, step, pad in zip(
            x.shape[-space:], context.result.shape[-space:], kernel, steps, pads, strict=True
        )
    ]
    return pooled(x.structure, windows)


@rule("aten::adaptive_max_pool2d", "aten::adaptive_max_pool3d", "aten::_adaptive_avg_pool3d")
def adaptive_pool(x: Operand, output_size: Sequence[int], context: Any = None) -> tuple[Labels, ...]:
    """Windows from `floor(p in / out)` to `ceil((p + 1) in / out)`; a maximum comes with its index."""
    windows = [_adaptive(n, out) for n, out in zip(x.shape[-len(output_size) :], output_size, strict=True)]
    if "avg" in context.name:
        return (pooled(x.structure, windows),)
    both = pooled(x.labels, windows)
    return both, both


@rule("aten::_upsample_bilinear2d_aa", "aten::_upsample_bicubic2d_aa")
def smooth_resize(
    x: Operand,
    output_size: Sequence[int],
    align_corners: bool,
    *scales: float | None,
    context: Any = None,
    **named: Any,
) -> Labels:
    """A linear map along each of the two dimensions; what it reads is seen from the op on unit vectors."""
    scales = scales or (named.get("scales_h"), named.get("scales_w"))
    op = getattr(torch.ops.aten, context.name.removeprefix("aten::"))
    rows, columns = x.shape[-2:]
    units = torch.eye(rows)[None, :, :, None].expand(1, rows, rows, columns).contiguous()
    down = op(units, output_size, align_corners, *scales)[0, :, :, 0]  # [in, out]: the weights across add up to 1
    units = torch.eye(columns)[None, :, None, :].expand(1, columns, rows, columns).contiguous()
    across = op(units, output_size, align_corners, *scales)[0, :, 0, :]
    return pooled(x.structure, [down.mT != 0, across.mT != 0])


@rule("aten::grid_sampler_3d", tier=Tier.COARSE)
def sample_volume(x: Operand, grid: Operand, *_: Any) -> Labels:
    """At coordinates that are taken for unknown: `[n, channels, *space]` at `[n, *places, 3]`."""
    anywhere = L.floor(x.labels.over((2, 3, 4), keepdim=True))  # [n, channels, 1, 1, 1]
    where = L.floor(grid.labels.over(-1)).view(lambda t: t.unsqueeze(1))  # [n, 1, *places]
    return L.join(anywhere, where)


def pooled(x: Labels, windows: Sequence[Tensor]) -> Labels:
    """The join over windows `[out, in]` along each of the last dimensions; zeros alone stay ZERO."""
    for dim, window in enumerate(windows, -len(windows)):
        moved = x.view(lambda t, dim=dim: t.transpose(dim, -1).unsqueeze(-1))  # type: ignore[misc]  # [..., in, 1]
        gate = Labels(torch.where(window, L.KNOWN, ZERO).to(L.DTYPE))
        x = contract(gate, moved).view(lambda t, dim=dim: t.squeeze(-1).transpose(dim, -1))  # type: ignore[misc]
    return x


def _strided(size: int, out: int, kernel: int, stride: int, padding: int) -> Tensor:
    first = torch.arange(out)[:, None] * stride - padding
    at = torch.arange(size)
    return (at >= first) & (at < first + kernel)


def _adaptive(size: int, out: int) -> Tensor:
    place, at = torch.arange(out)[:, None], torch.arange(size)
    return (at >= place * size // out) & (at < ((place + 1) * size + out - 1) // out)


def _each(value: Sizes, space: int) -> list[int]:
    several = [value] if isinstance(value, int) else list(value)
    return several * space if len(several) == 1 else several
