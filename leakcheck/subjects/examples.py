"""What a model reads, told from one call of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from leakcheck.errors import UsageError
from leakcheck.subjects.inputs import BATCH, TIME, Argument, Axis, Inputs

# Of integers by these names, what they mean is no token.
_NO_TOKENS = ("mask", "position", "label", "target", "length", "cache", "type")


@dataclass(frozen=True)
class Free:
    """Which axes of an argument may have other sizes than the example's: the batch's, the time's."""

    batch: bool = True
    time: bool = True


def described(
    arguments: Mapping[str, Any], model: nn.Module, free: Free | None = None, bound: int | None = None
) -> Inputs:
    """Inputs that vary the first argument that looks like tokens `[batch, time]` or features, the rest as it was given.

    Tokens are below `bound`, else below what the model's embeddings tell. Without `free` the time is held where another
    argument has it too: a mask of the example's length, positions.

    Raises:
        UsageError: no argument is a tensor with a batch and a time.
    """
    name = next((name for name, value in arguments.items() if _varies(name, value)), None)
    if name is None:
        raise UsageError("none of the arguments is a tensor of tokens [batch, time] or of features [batch, time, size]")
    value: Tensor = arguments[name]
    time = _time_axis(value, model)
    batch = 0 if time else 1
    rows, steps = value.shape[batch], value.shape[time]
    others = {n: v for n, v in arguments.items() if n != name}
    if free is None:
        free = Free(time=not any(isinstance(v, Tensor) and steps in v.shape for v in others.values()))
    axes: list[Axis] = list(value.shape)
    axes[time] = TIME
    if free.batch:
        axes[batch] = BATCH
    below = None if value.is_floating_point() else bound or _bound(value, model)
    audited = Argument("float" if below is None else "int", tuple(axes), below, fixed=None if free.time else steps)
    return Inputs({n: audited if n == name else v for n, v in arguments.items()}, rows=rows if free.batch else None)


def _varies(name: str, value: Any) -> bool:
    if not isinstance(value, Tensor) or value.dim() < 2 or value.dtype == torch.bool or value.is_complex():
        return False
    return not any(word in name for word in _NO_TOKENS)


def _time_axis(value: Tensor, model: nn.Module) -> int:
    """1, unless the first layers tell otherwise: a convolution has it last, a recurrent one may have it first."""
    if value.dim() == 3 and value.is_floating_point():
        for module in model.modules():
            if isinstance(module, nn.Conv1d) and value.shape[1] == module.in_channels:
                return 2
            if isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
                return 1 if module.batch_first else 0
            if isinstance(module, nn.Linear):
                break
    return 1


def _bound(value: Tensor, model: nn.Module) -> int:
    """How many values the integers have: the rows of the first embedding that holds them all."""
    largest = int(value.max()) + 1 if value.numel() else 1
    tables = [m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)]
    return next((size for size in tables if size >= largest), max(largest, 2))
