"""Decide in float64 whether a delta is a leak or rounding.

A magnitude threshold cannot: shipped leaks moved logits by 2.4e-7 in float32 while a correct FFT convolution moves
them by 2e-6. Measured again in float64, rounding falls with machine epsilon and a leak stays.
"""

import math
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_LOW = (torch.float32, torch.float16, torch.bfloat16)
_CASTS = {torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16}
# The kernels of token-choice experts, which the mode has to compute itself.
_GROUPED = {getattr(torch, "_grouped_mm", None), getattr(torch.nn.functional, "grouped_mm", None)} - {None}
_EPS32 = torch.finfo(torch.float32).eps
_EPS64 = torch.finfo(torch.float64).eps
_MARGIN = 1e3  # sums of a thousand terms, or an ill-conditioned step, may round this much worse than one operation


class _Float64(TorchFunctionMode):
    """Models cast to float32 inside (norms, softmax); here every such cast goes to float64 instead."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in _CASTS:
            func = torch.Tensor.double
        kwargs = kwargs or {}
        if func in _GROUPED and kwargs.get("bias") is None:
            return _grouped_mm(*args, offs=kwargs["offs"])
        args = [torch.float64 if _is_low(arg) else arg for arg in args]
        kwargs = {name: torch.float64 if _is_low(arg) else arg for name, arg in kwargs.items()}
        return func(*args, **kwargs)


def _grouped_mm(rows: torch.Tensor, weights: torch.Tensor, *, offs: torch.Tensor) -> torch.Tensor:
    """torch's `grouped_mm` of `[rows, in]` with `[groups, in, out]`, whose kernels have no float64.

    Group `g` ends before row `offs[g]`; rows after the last group are zero here and undefined there.
    """
    ends = offs.tolist()
    groups = [rows[start:end] @ weights[g] for g, (start, end) in enumerate(zip([0, *ends], ends, strict=False))]
    rest = rows.new_zeros(len(rows) - ends[-1], weights.shape[-1])
    return torch.cat([*groups, rest])


def _is_low(value: Any) -> bool:
    return isinstance(value, torch.dtype) and value in _LOW


class float64:  # noqa: N801  (a context manager, used like a function)
    """Everything in the body is computed in float64, explicit casts to a lower precision included.

    It can be entered again, also while it is active: gradient checkpointing does so for each backward pass.
    """

    def __init__(self) -> None:
        self._entered: list[tuple[torch.dtype, _Float64]] = []

    def __enter__(self) -> None:
        mode = _Float64()
        self._entered.append((torch.get_default_dtype(), mode))
        torch.set_default_dtype(torch.float64)
        mode.__enter__()

    def __exit__(self, *exception: Any) -> None:
        default, mode = self._entered.pop()
        mode.__exit__(*exception)
        torch.set_default_dtype(default)


def is_rounding(single: float, double: float, scale: float) -> bool:
    """Whether a delta of `single` in float32 and `double` in float64 scales with machine epsilon.

    `scale` is the size of the values that moved. Rounding in float64 is at most a margin above what epsilon makes of
    that size, or of the conditioning that the float32 delta reveals (`single / eps`). An infinity rounds to nothing.
    """
    if not math.isfinite(double):
        return False
    conditioning = single / _EPS32 if math.isfinite(single) else 0.0
    return double <= _MARGIN * _EPS64 * max(scale, conditioning)
