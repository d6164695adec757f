"""Normalisations: each group of elements that shares a mean is joined.

out = max over the group of x, max the elementwise weight and bias
"""

from collections.abc import Sequence
from typing import Any

from leakcheck.flow import labels as L
from leakcheck.flow.labels import Labels
from leakcheck.flow.operand import Operand
from leakcheck.flow.registry import rule


@rule("aten::native_layer_norm", rowwise=True)
def layer_norm(
    x: Operand, normalized_shape: Sequence[int], weight: Operand | None, bias: Operand | None, eps: float
) -> tuple[Labels, Labels, Labels]:
    """Over the last dimensions; the output, the mean and the inverse deviation."""
    group = L.floor(x.labels.over(range(x.dim() - len(normalized_shape), x.dim()), keepdim=True))
    return _scaled(group.expand(x.shape), weight, bias), group, group


@rule("aten::_fused_rms_norm", rowwise=True)
def rms_norm(
    x: Operand, normalized_shape: Sequence[int], weight: Operand | None, eps: float | None
) -> tuple[Labels, Labels]:
    group = L.floor(x.labels.over(range(x.dim() - len(normalized_shape), x.dim()), keepdim=True))
    return _scaled(group.expand(x.shape), weight, None), group


@rule("aten::native_group_norm")
def group_norm(
    x: Operand,
    weight: Operand | None,
    bias: Operand | None,
    batch: int,
    channels: int,
    space: int,
    groups: int,
    eps: float,
) -> tuple[Labels, Labels, Labels]:
    """Over the channels of a group and all of space, for each sample: `[batch, channels, *space]`."""
    flat = x.labels.view(lambda t: t.reshape(batch, groups, -1))
    group = L.floor(flat.over(-1, keepdim=True))  # [batch, groups, 1]
    result = group.expand(flat.shape).view(lambda t: t.reshape(x.shape))
    statistics = group.view(lambda t: t.squeeze(-1))
    return _scaled(result, *(_per_channel(p, x) for p in (weight, bias))), statistics, statistics


@rule("aten::native_batch_norm")
def batch_norm(
    x: Operand, weight: Operand | None, bias: Operand | None, mean: Operand | None, variance: Operand | None,
    training: bool, momentum: float, eps: float,
) -> tuple[Labels, Labels, Labels]:  # fmt: skip
    """In training over everything but the channel, else with the running statistics, which training moves.

    The kernel moves them in place, though the schema does not say so.
    """
    if not training:
        return _by_running_statistics(x, weight, bias, mean, variance)
    channel = _of_channel(x)
    for running in (mean, variance):
        if running is not None:
            running._mirror.write(running.tensor, L.join(running.labels, channel))
    result = _laid_out(channel, x)
    return _scaled(result, *(_per_channel(p, x) for p in (weight, bias))), channel, channel


@rule("aten::_native_batch_norm_legit")
def batch_norm_declared(
    x: Operand, weight: Operand | None, bias: Operand | None, mean: Operand, variance: Operand, training: bool,
    momentum: float, eps: float,
) -> tuple[Labels, Labels, Labels]:  # fmt: skip
    """As `native_batch_norm`, with a schema that says what it writes."""
    if not training:
        return _by_running_statistics(x, weight, bias, mean, variance)
    return batch_norm_of_batch(x, weight, bias, training, momentum, eps)


@rule("aten::_native_batch_norm_legit.no_stats")
def batch_norm_of_batch(
    x: Operand, weight: Operand | None, bias: Operand | None, training: bool, momentum: float, eps: float
) -> tuple[Labels, Labels, Labels]:
    channel = _of_channel(x)
    return _scaled(_laid_out(channel, x), *(_per_channel(p, x) for p in (weight, bias))), channel, channel


@rule("aten::_native_batch_norm_legit_functional")
def batch_norm_functional(
    x: Operand, weight: Operand | None, bias: Operand | None, mean: Operand, variance: Operand, training: bool,
    momentum: float, eps: float,
) -> tuple[Labels, ...]:  # fmt: skip
    """Returns the new running statistics as well."""
    result = batch_norm_declared(x, weight, bias, mean, variance, training, momentum, eps)
    if not training:
        return *result, mean.labels, variance.labels
    return *result, L.join(mean.labels, result[1]), L.join(variance.labels, result[1])


@rule("aten::_native_batch_norm_legit_no_training", "aten::_batch_norm_no_update")
def batch_norm_in_use(
    x: Operand, weight: Operand | None, bias: Operand | None, mean: Operand | None, variance: Operand | None, *_: Any
) -> tuple[Labels, ...]:
    """With the running statistics; `_batch_norm_no_update` returns a reserve, empty on the CPU, as well."""
    return *_by_running_statistics(x, weight, bias, mean, variance), Labels.full((0,), L.KNOWN)


@rule("aten::_batch_norm_with_update")
def batch_norm_in_training(
    x: Operand, weight: Operand | None, bias: Operand | None, mean: Operand, variance: Operand, *_: Any
) -> tuple[Labels, ...]:
    return *batch_norm_of_batch(x, weight, bias, True, 0.0, 0.0), Labels.full((0,), L.KNOWN)


def _by_running_statistics(
    x: Operand, weight: Operand | None, bias: Operand | None, mean: Operand | None, variance: Operand | None
) -> tuple[Labels, Labels, Labels]:
    result = _scaled(x.labels, *(_per_channel(p, x) for p in (weight, bias, mean, variance)))
    return result, Labels.full((0,), L.KNOWN), Labels.full((0,), L.KNOWN)  # the kernel returns nothing there


def _of_channel(x: Operand) -> Labels:
    return L.floor(x.labels.over([d for d in range(x.dim()) if d != 1]))  # [channels]


def _laid_out(channel: Labels, x: Operand) -> Labels:
    return channel.view(lambda t: t.reshape(-1, *(1,) * (x.dim() - 2)).expand(x.shape))


def _per_channel(parameter: Operand | None, x: Operand) -> Labels | None:
    """`[channels]` laid along dim 1 of x."""
    if parameter is None:
        return None
    return parameter.labels.view(lambda t: t.reshape(-1, *(1,) * (x.dim() - 2)))


def _scaled(result: Labels, *parameters: Operand | Labels | None) -> Labels:
    present = [p.labels if isinstance(p, Operand) else p for p in parameters if p is not None]
    return L.join(result, *present)
